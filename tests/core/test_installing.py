"""The hint that names how to install an extra fits how this package was installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmdoctor.core import installing
from llmdoctor.core.errors import MissingExtra

CLONE = Path(__file__).parents[2]

REQUIRES = ["numpy>=1.26", "scipy>=1.15; extra == 'stats'", "torch>=2.2; extra == 'live'"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that makes this process one whose package was installed from `recorded` in an environment with the file `marker`."""

    def make(recorded: dict | None, marker: str = "pyvenv.cfg") -> str:
        (tmp_path / marker).touch()
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
        text = None if recorded is None else json.dumps(recorded)
        monkeypatch.setattr("importlib.metadata.distribution", lambda name: SimpleNamespace(read_text=lambda file: text, requires=REQUIRES))
        return installing.install_line("stats")

    return make


@pytest.mark.parametrize(
    ("marker", "line"),
    [
        ("uv-receipt.toml", f"uv tool install --force '{CLONE}[stats]'"),
        ("pipx_metadata.json", f"pipx install --force '{CLONE}[stats]'"),
    ],
)
def test_tools_of_an_environment_of_their_own(installed, tmp_path: Path, monkeypatch, marker: str, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert installed({"url": CLONE.as_uri(), "dir_info": {}}, marker) == line


def test_pip_of_the_shell_or_of_this_interpreter(installed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    assert installed({"url": CLONE.as_uri(), "dir_info": {"editable": True}}) == f"{tmp_path}/bin/python -m pip install -e '{CLONE}[stats]'"
    pip = tmp_path / "bin" / "pip"
    pip.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(pip.parent))
    monkeypatch.chdir(CLONE)
    assert installed({"url": CLONE.as_uri(), "dir_info": {}}) == "pip install '.[stats]'"


def test_a_repository_a_clone_that_is_gone_and_a_checkout(installed, tmp_path: Path, monkeypatch) -> None:
    git = {"url": "https://git.example/llmdoctor", "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "0" * 40}}
    assert installed(git).endswith("install 'llmdoctor-toolkit[stats] @ git+https://git.example/llmdoctor@main'")
    assert installed({"url": (tmp_path / "gone").as_uri(), "dir_info": {}}).endswith("install 'scipy>=1.15'")
    monkeypatch.chdir(tmp_path)
    assert installed(None).endswith(f"install -e '{CLONE}[stats]'")


def test_the_error_ends_with_the_line() -> None:
    assert str(MissingExtra("a test", "scipy", "stats")).endswith(f"is not installed here: {installing.install_line('stats')}")
