"""A repository that holds modules with the names of those that Python and llmdoctor import: none of them is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_model
from tests.test_action import ROOT

NAMES = (
    "logging venv pip ensurepip random sitecustomize usercustomize llmdoctor json re "
    "typer rich jinja2 multiprocessing tempfile yaml numpy concurrent"
).split()
SCRIPT = Path(sys.executable).parent / "llmdoctor"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a model, a configuration, a request, enough Python for several processes, and the planted modules."""
    folder = tmp_path / "repository"
    write_model(folder / "model", generation_config={})
    (folder / "ds.json").write_text('{"zero_optimization": {"stage": 2}, "train_batch_size": 8}')
    (folder / "request.json").write_text('{"model": "./model", "messages": [{"role": "user", "content": "a"}], "temperature": 0.5}')
    (folder / "outputs.jsonl").write_text('{"completion_ids": [1, 2], "finish_reason": "length"}\n')
    for number in range(3):
        (folder / f"module{number}.py").write_text("x = 'a'\n" * 80_000)
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / ('ran-' + name))!r}, 'w').write('')\n")
    return folder


def planted_that_ran(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.parent.glob("ran-*"))


def test_the_modules_would_run(repository: Path) -> None:
    """Python itself, started with -m in the repository, imports from it: the test can fail."""
    subprocess.run([sys.executable, "-m", "venv", "--help"], cwd=repository, capture_output=True, check=False)
    assert "ran-venv" in planted_that_ran(repository)


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
@pytest.mark.parametrize(
    "command",
    [
        "check .",
        "check --allow-nothing module0.py model/config.json ds.json",  # as pre-commit calls it
        "check . --fix",
        "look .",
        "look model",
        "env",
        "rule GEN001",
        "gencfg show model",
        "gencfg check model",
        "gencfg diff model",
        "gencfg runaway outputs.jsonl",
        "mask inspect model --shape 1,8",
        "mem compare model --strategy trainer:adamw_torch,bf16 --static",
        "sample draw --probs .5,.5 -n 10",
    ],
)
def test_no_static_command_runs_them(command: str, repository: Path) -> None:
    done = subprocess.run([str(SCRIPT), *command.split()], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert planted_that_ran(repository) == []


def test_the_action_runs_none_of_them(repository: Path) -> None:
    """From nothing: the environment is made, and the installation then fails for want of an index."""
    temporary = repository.parent / "runner"
    env = {
        **os.environ,
        "GITHUB_ACTION_PATH": str(ROOT),
        "RUNNER_TEMP": str(temporary),
        "GITHUB_OUTPUT": str(repository.parent / "output"),
        "GITHUB_STEP_SUMMARY": str(repository.parent / "summary.md"),
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(["bash", str(ROOT / "action" / "check.sh")], cwd=repository, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (temporary / "llmdoctor" / "venv" / "bin" / "pip").exists(), done.stderr
    assert planted_that_ran(repository) == []
