"""Progress lines: on a terminal only, gone when the work is done, with the time that is left."""

from __future__ import annotations

import io
import time

import pytest

from llmdoctor.core import progress
from llmdoctor.core.progress import Progress, heartbeat


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_QUIET": 0.02, "_TERMINAL": 0.0, "_PLAIN": 0.0, "_SILENCE": 0.0}.items():
        monkeypatch.setattr(progress, name, value)


def test_a_line_says_how_much_is_done_and_how_long_it_takes_yet() -> None:
    stream = io.StringIO()
    line = Progress("check", stream)
    line.tick(1, 4, "files")
    assert stream.getvalue() == ""
    time.sleep(0.03)
    line.tick(1, 4, "files")
    assert stream.getvalue() == "llmdoctor: check: 1 of 4 files, 0 s left\n"


def test_the_heartbeat_of_a_long_command_is_gone_when_it_ends() -> None:
    stream = Terminal()
    with heartbeat("mem compare", stream):
        time.sleep(0.1)
    written = stream.getvalue()
    assert written.startswith("\rllmdoctor: mem compare: 0 s")
    assert written.endswith("\r" + " " * len("llmdoctor: mem compare: 0 s") + "\r")


def test_a_short_command_and_a_pipe_see_nothing() -> None:
    for stream, seconds in ((Terminal(), 0.0), (io.StringIO(), 0.05)):
        with heartbeat("check", stream):
            time.sleep(seconds)
        assert stream.getvalue() == ""


def test_the_heartbeat_is_silent_while_a_line_of_progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SILENCE", 60.0)
    stream = Terminal()
    with heartbeat("check", stream):
        Progress("pass", Terminal()).say("1 of 2")
        time.sleep(0.05)
    assert stream.getvalue() == ""


def test_a_line_that_nothing_reads_is_no_fault() -> None:
    stream = Terminal()
    stream.close()
    Progress("x", stream).say("1 of 2")
