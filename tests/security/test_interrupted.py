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


SWALLOWED = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from llmdoctor.cli import app, main
class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
def command():
    {body}
app.make_app = lambda arguments: command
main.entry()
"""


@pytest.mark.parametrize(
    "body",
    [
        "Lost(); time.sleep(30)",
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(30)\n    except BaseException: pass\n    time.sleep(30)",
    ],
    ids=["in __del__", "by a handler of every exception"],
)
def test_an_interrupt_that_a_library_loses_comes_again(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(root=str(ROOT), body=body)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "llmdoctor: interrupted\n"


def test_an_import_error_that_stands_for_an_interrupt_is_none() -> None:
    body = "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(30)\n    except BaseException: raise ImportError('numpy failed to import') from None"
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(root=str(ROOT), body=body)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (130, "llmdoctor: interrupted\n")


def test_an_ignored_interrupt_stays_ignored() -> None:
    program = SWALLOWED.format(root=str(ROOT), body="os.kill(os.getpid(), signal.SIGINT)")
    program = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN){program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
