"""A full disk, closed streams and a deleted working directory: one sentence and exit 2, never an internal fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_model

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "gencfg show model",
    "gencfg runaway outputs.jsonl",
    "gencfg check model",
    "check",
    "look model",
    "rule DIR001",
    "env",
    "gencfg runaway -",
)


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    tool = f'PYTHONPATH={ROOT} {sys.executable} -c "from llmdoctor.cli.main import entry; entry()"'
    return subprocess.run(["bash", "-c", script.replace("TOOL", tool)], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", generation_config={"eos_token_id": 2})
    (tmp_path / "outputs.jsonl").write_text('{"token_ids": [1, 2], "finish_reason": "stop"}\n')
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "streams", [">/dev/full </dev/null", ">&- </dev/null", "<&- >/dev/null", "2>&- </dev/null", ">/dev/full 2>/dev/full <&-"]
)
def test_streams_that_take_nothing(command: str, streams: str, place: Path) -> None:
    done = shell(f"TOOL {command} {streams}", place)
    assert done.returncode in (0, 1, 2, 3)
    assert "internal fault" not in done.stderr
    assert "Traceback" not in done.stderr
    if "/dev/full" in streams or ">&- <" in streams.removeprefix("2"):
        assert done.returncode == 2 or "2>&-" in streams


@pytest.mark.parametrize("command", COMMANDS)
def test_a_working_directory_that_is_gone(command: str, place: Path) -> None:
    (place / "gone").mkdir()
    done = shell(f"cd gone && rmdir ../gone && TOOL {command} </dev/null", place)
    assert done.returncode in (0, 2, 3)
    assert "internal fault" not in done.stderr
    assert done.stderr.count("\n") <= 1
