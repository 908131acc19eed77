"""What a person reads of an answer, as data: a job builds it, a renderer lays it out, neither knows the other.

The order is always the same: the verdict, the evidence, the cause, the fix, the next step. All strings may come from data: the
renderer cleans them and parses no markup in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "bad", "warn", "plain", "dim"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Verdict:
    """The answer in one sentence; `tone` says whether it is a good one."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cell:
    """A table's cell with a tone of its own."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Table:
    """Rows of cells under `columns`; a column may give way first (`give`) where the screen is narrow."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Note:
    """A labelled paragraph: CAUSE, WATCH, NEXT. Each line of `text` starts on a line of its own."""

    label: str
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Code:
    """Something to paste, never wrapped: FIX."""

    label: str
    text: str


Block = Verdict | Table | Note | Code
