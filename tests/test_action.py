"""The GitHub action by hand: its scripts as a runner starts them, with the environment that is here for the one that it would make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_model

ROOT = Path(__file__).parent.parent


def run(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "action" / script)], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def runner(tmp_path: Path) -> dict[str, str]:
    """What a runner gives a step; llmdoctor is installed already."""
    scripts = tmp_path / "temp" / "llmdoctor" / "venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(sys.executable)
    (scripts / "llmdoctor").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -c "from llmdoctor.cli.main import entry; entry()" "$@"\n')
    (scripts / "llmdoctor").chmod(0o755)
    return {
        "GITHUB_ACTION_PATH": str(ROOT),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }


def outputs(runner: dict[str, str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in Path(runner["GITHUB_OUTPUT"]).read_text().splitlines())


def test_findings_are_annotated_counted_and_fail_the_step(tmp_path: Path, runner: dict[str, str]) -> None:
    repository = tmp_path / "repository"
    write_model(repository / "model", generation_config={})
    done = run("check.sh", repository, **runner)
    assert done.returncode == 1
    assert done.stdout.startswith("::error title=llmdoctor GEN001,file=model/")
    out = outputs(runner)
    assert (out["exit-code"], out["errors"]) == ("1", "1")
    assert all(Path(out[name]).is_file() for name in ("report", "sarif", "markdown", "html"))
    assert "GEN001" in Path(runner["GITHUB_STEP_SUMMARY"]).read_text()


def test_inputs_are_words_and_nothing_in_them_is_run(tmp_path: Path, runner: dict[str, str]) -> None:
    repository = tmp_path / "repository"
    write_model(repository / "a" / "model", generation_config={})
    (repository / "b").mkdir()
    (repository / "b" / "x.py").write_text("")
    options = {"LLMDOCTOR_PATHS": "a b", "LLMDOCTOR_ARGS": "--select GEN", "LLMDOCTOR_FAIL_ON": "never"}
    assert run("check.sh", repository, **runner, **options).returncode == 0
    done = run("check.sh", repository, **runner, LLMDOCTOR_PATHS="$(touch${IFS}pwned) `touch pwned`")
    assert done.returncode == 2
    assert not (repository / "pwned").exists()


def test_nothing_to_check_does_not_fail_a_change(tmp_path: Path, runner: dict[str, str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run("check.sh", tmp_path / "empty", **runner).returncode == 0
    assert outputs(runner)["exit-code"] == "3"


@pytest.mark.parametrize(("old", "findings", "expected"), [("", "2", "POST"), ("41", "2", "PATCH"), ("41", "0", "PATCH"), ("", "0", "")])
def test_one_comment_is_kept_current(old: str, findings: str, expected: str, tmp_path: Path) -> None:
    """The decision alone: `gh`, which is on a runner and not here, is a script that writes down how it was called."""
    (tmp_path / "gh").write_text(f'#!/bin/sh\ncase "$*" in *--paginate*) echo "{old}";; *) echo "$@" >> "{tmp_path}/calls";; esac\n')
    (tmp_path / "gh").chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "GITHUB_REPOSITORY": "o/r",
        "PULL_REQUEST": "7",
        "MARKDOWN": "report.md",
        "FINDINGS": findings,
    }
    done = run("comment.sh", tmp_path, **env)
    assert (done.returncode, done.stderr) == (0, "")
    calls = (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
    assert expected in calls
    assert ("issues/comments/41" in calls) == (expected == "PATCH")
    assert bool(calls) == bool(expected)
