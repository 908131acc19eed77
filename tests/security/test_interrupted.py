"""Ctrl-C at any moment after Python's own start: exit 130 and one word, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A real SIGINT at the moment when a module is imported for the first time.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, {root!r})
def hook(event, arguments, left=[1]):
    if event == "import" and arguments[0] == {module!r} and left:
        left.pop()
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
from llmdoctor.cli.main import entry
sys.argv = ["llmdoctor", "env"]
entry()
"""


@pytest.mark.parametrize("module", ["llmdoctor.cli.app", "typer", "llmdoctor.look.env", "llmdoctor.core.progress"])
def test_one_word(module: str, tmp_path: Path) -> None:
    program = PROGRAM.format(root=str(ROOT), module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 130
    assert done.stderr == "llmdoctor: interrupted\n"


def test_before_the_first_line_of_main_nearly_nothing_is_imported() -> None:
    """Only Python itself answers a Ctrl-C before main(), with a traceback; so that time has to be short."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); import llmdoctor.cli.main; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert {name for name in done.stdout.split() if not name.startswith("llmdoctor")} <= {
        "__future__", "_collections_abc", "_stat", "errno", "gc", "genericpath", "os", "os.path", "posixpath", "stat",
    }  # fmt: skip
