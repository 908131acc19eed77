"""scipy is an extra: commands without statistics never import it, the others name the extra if it is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
class NoScipy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'")
sys.meta_path.insert(0, NoScipy())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "scipy" else found(name, package)
sys.argv = ["llmdoctor", *sys.argv[1:]]
from llmdoctor.cli.main import main
main()
"""


def without_scipy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "engines", "--logits", "4,3,2", "--temperature", "0.7"),
        ("sample", "compare", "a.json", "b.json"),
        ("sample", "draw", "--probs", ".5,.5", "-n", "5"),
    ],
    ids=["engines", "compare", "draw"],
)
def test_commands_without_statistics(arguments: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps([-1 - step % 7 / 10 for step in range(400)]))  # two tokens would be undecided
    done = without_scipy(tmp_path, *arguments)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("sample", "replay", "l.json", "--tokens", "t.json"), ("sample", "draw", "--probs", ".5,.5", "--draws", "t.json")],
    ids=["replay", "draws"],
)
def test_the_extra_is_named(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps([[1.0, 2.0]] * 4))
    (tmp_path / "t.json").write_text("[0, 1, 1, 0]")
    done = without_scipy(tmp_path, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "[stats]" in done.stderr
