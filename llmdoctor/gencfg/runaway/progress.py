"""Progress on stderr: a line that is rewritten on a terminal, a plain line now and then elsewhere, nothing in the first second."""

from __future__ import annotations

import sys
import time
from typing import IO

_QUIET, _TERMINAL, _PLAIN = 1.0, 0.2, 10.0  # seconds: before the first word, between two on a terminal, between two elsewhere


class Progress:
    """Says how far a long reading is. `tick` is cheap: it looks at the clock and mostly returns."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._start = self._next = time.monotonic()
        self._next += _QUIET
        self._width = 0

    def tick(self, sequences: int, share: float | None) -> None:
        """`sequences` have been read, `share` (0 to 1) of the file."""
        now = time.monotonic()
        if now < self._next:
            return
        rate = sequences / max(now - self._start, 1e-9)
        part = "" if share is None else f", {min(share, 1.0):.0%} of the file"
        text = f"llmdoctor: {sequences:,} sequences{part}, {rate:,.0f} a second"
        terminal = self._terminal()
        self._next = now + (_TERMINAL if terminal else _PLAIN)
        self._write(f"\r{text:<{self._width}}" if terminal else text + "\n")
        self._width = len(text)

    def close(self) -> None:
        """Take the rewritten line away."""
        if self._width and self._terminal():
            self._write("\r" + " " * self._width + "\r")

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
