"""Progress on stderr: a line that is rewritten on a terminal, a plain line now and then elsewhere, nothing in the first second."""

from __future__ import annotations

import sys
import time

_QUIET, _TERMINAL, _PLAIN = 1.0, 0.2, 10.0  # seconds: before the first word, between two on a terminal, between two elsewhere


class Progress:
    """Says how far a pass over many steps is; `tick` mostly looks at the clock and returns."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = time.monotonic()
        self._next = self._start + _QUIET
        self._shown = False

    def tick(self, done: int, of: int) -> None:
        """`done` steps of `of` are done."""
        now = time.monotonic()
        if done == of and self._shown and sys.stderr.isatty():
            self._write("\r\x1b[K")
        if now < self._next or done == of:
            return
        text = f"llmdoctor: {self._what}: {done:,} of {of:,} steps, {done / (now - self._start):,.0f} a second"
        terminal = sys.stderr.isatty()
        self._next = now + (_TERMINAL if terminal else _PLAIN)
        self._shown = True
        self._write(f"\r\x1b[K{text}" if terminal else text + "\n")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (ValueError, OSError):
            self._next = float("inf")  # nobody reads it
