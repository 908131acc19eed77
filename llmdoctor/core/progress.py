"""Progress on stderr: a line that is rewritten on a terminal, a plain line now and then elsewhere, nothing in the first second."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_QUIET, _TERMINAL, _PLAIN = 1.0, 0.2, 10.0  # seconds: before the first line, between two on a terminal, between two elsewhere
_SILENCE = 1.5  # seconds without a line of a Progress after which the heartbeat writes one


class Progress:
    """Report how far a long pass is. `due` and `tick` are cheap: they read the clock and mostly return."""

    written = 0.0  # when any Progress has last written a line: the heartbeat is silent meanwhile

    def __init__(self, what: str = "", stream: IO[str] | None = None) -> None:
        self._what = f"{what}: " if what else ""
        self._stream = sys.stderr if stream is None else stream
        self._start = self._next = time.monotonic()
        self._next += _QUIET
        self._width = 0

    def due(self) -> float:
        """Return the seconds since the start if a line is due, else 0."""
        now = time.monotonic()
        return 0.0 if now < self._next else max(now - self._start, 1e-9)

    def tick(self, done: int, of: int, noun: str = "steps") -> None:
        """Report that `done` of `of` are done, if a line is due; the last one takes the line away."""
        if done == of:
            self.close()
        elif spent := self.due():
            left = spent / done * (of - done) if done else 0.0
            self.say(f"{done:,} of {of:,} {noun}" + (f", {_seconds(left)} left" if done else ""))

    def say(self, text: str) -> None:
        """Write one line."""
        Progress.written = time.monotonic()
        self._show(text)

    def close(self) -> None:
        """Take the rewritten line away."""
        if self._width and self._terminal():
            self._write("\r" + " " * self._width + "\r")
        self._width = 0

    def beat(self) -> None:
        """Write the time since the start, unless another Progress has written a line just now."""
        if time.monotonic() - Progress.written > _SILENCE:
            self._show(_seconds(time.monotonic() - self._start))

    def _show(self, text: str) -> None:
        text = f"llmdoctor: {self._what}{text}"
        terminal = self._terminal()
        self._next = time.monotonic() + (_TERMINAL if terminal else _PLAIN)
        self._write(f"\r{text:<{self._width}}" if terminal else text + "\n")
        self._width = len(text)

    def _terminal(self) -> bool:
        try:
            return self._stream.isatty()
        except (ValueError, OSError):
            return False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (ValueError, OSError):
            self._next = float("inf")  # nothing reads it


@contextmanager
def heartbeat(what: str, stream: IO[str] | None = None) -> Iterator[None]:
    """Show on a terminal how long the block has been running, from its second second on; the line is gone when the block ends.

    Elsewhere nothing is written and no thread is started.
    """
    progress = Progress(what, stream)
    if not progress._terminal():
        yield
        return
    ended = threading.Event()

    def beats() -> None:
        wait = _QUIET
        while not ended.wait(wait):
            progress.beat()
            wait = 0.5

    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.close()


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
