"""Progress on stderr: a line that is rewritten on a terminal, a plain line now and then elsewhere, nothing in the first second."""

from __future__ import annotations

import sys
import time
from typing import IO

_QUIET, _TERMINAL, _PLAIN = 1.0, 0.2, 10.0  # seconds: before the first word, between two on a terminal, between two elsewhere


class Progress:
    """Says how far a long pass is. `due` and `tick` are cheap: they look at the clock and mostly return."""

    def __init__(self, what: str = "", stream: IO[str] | None = None) -> None:
        self._what = f"{what}: " if what else ""
        self._stream = sys.stderr if stream is None else stream
        self._start = self._next = time.monotonic()
        self._next += _QUIET
        self._width = 0

    def due(self) -> float:
        """The seconds since the start where a word is due, else 0."""
        now = time.monotonic()
        return 0.0 if now < self._next else max(now - self._start, 1e-9)

    def tick(self, done: int, of: int) -> None:
        """`done` steps of `of` are done."""
        if done == of:
            self.close()
        elif spent := self.due():
            self.say(f"{done:,} of {of:,} steps, {done / spent:,.0f} a second")

    def say(self, text: str) -> None:
        """Write one line."""
        text = f"llmdoctor: {self._what}{text}"
        terminal = self._terminal()
        self._next = time.monotonic() + (_TERMINAL if terminal else _PLAIN)
        self._write(f"\r{text:<{self._width}}" if terminal else text + "\n")
        self._width = len(text)

    def close(self) -> None:
        """Take the rewritten line away."""
        if self._width and self._terminal():
            self._write("\r" + " " * self._width + "\r")
        self._width = 0

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
            self._next = float("inf")  # nobody reads it
