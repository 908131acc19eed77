"""What a person reads of an answer, as data: a job builds it, a renderer lays it out, and neither knows the other.

The order is always the same: evidence, findings with cause and fix, next step. All strings may come from data: a renderer cleans them and parses
no markup in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmdoctor.core.finding import Finding

Tone = Literal["good", "bad", "warn", "plain", "dim"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Headline:
    """A sentence above a part of the answer; `tone` shows whether it is a good one."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cell:
    """A cell of a table that has its own tone."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Table:
    """Rows of cells under `columns`; the first cell of a row is its head.

    `instead` replaces a table that is made for a page if only characters can be shown.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    instead: tuple[Headline | Table | Note | Code, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Note:
    """A labelled paragraph: Checked, Warning, Next (docs/glossary.md). Each line of `text` begins a new line."""

    label: str
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Code:
    """Lines to paste, which are never wrapped: Fix, Try."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Mark:
    """What one character of a Grid's cells means; `strength`, from 0 to 1, is for shades of one tone."""

    character: str
    meaning: str
    tone: Tone = "plain"
    strength: float = 1.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Grid:
    """A picture of cells: a mask, with queries down and keys across.

    `cells` holds one string for each of `rows` (their names), one character per cell; `marks` gives the meaning of the characters, and a
    character without a mark is blank. `columns` names the cells of a row; without it they are numbered from 0. `instead` replaces the picture
    if only characters can be shown; without it the cells themselves are printed. `notes` adds to the mark of a cell, such as the share of a
    block that is seen; adjacent cells with the same mark and note are drawn and described as one.
    """

    label: str
    rows: tuple[str, ...]
    cells: tuple[str, ...]
    marks: tuple[Mark, ...]
    columns: tuple[str, ...] = ()
    down: str = "row"
    across: str = "column"
    notes: tuple[tuple[str, ...], ...] = ()
    instead: tuple[Headline | Table | Note | Code, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bar:
    """One line of Bars: a value, not negative, for each part. `chosen` marks it among the others; `note` is printed beside it."""

    name: str
    values: tuple[float, ...]
    note: str = ""
    chosen: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bars:
    """Bars of one unit: memory as parts stacked over phases, or (not `stacked`) probabilities of a token side by side, before and after.

    `parts` names the values of every bar; `digits` is the number of decimals; `limit` is a line across all bars, such as a device's memory, and
    `limit_name` its name. `most` is the value at the right edge, for pictures that are to be compared; without it, the largest value is.
    `instead` is as for a Grid.
    """

    label: str
    unit: str
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]
    stacked: bool = True
    digits: int = 1
    limit: float | None = None
    limit_name: str = ""
    most: float | None = None
    instead: tuple[Headline | Table | Note | Code, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MarkedToken:
    """A token of a strip: its text, the words that explain it, and whether it stands out (a training target)."""

    text: str
    note: str
    marked: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TokenStrip:
    """Running text cut into its tokens, each with words of its own under the pointer. `marked` says what a token that stands out is."""

    tokens: tuple[MarkedToken, ...]
    marked: str
    plain: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Fold:
    """Blocks for a page alone, hidden behind `label`, which shows them on a click (`open`: they are shown at first).

    The other formats print `instead`; a fold without blocks is `instead` alone.
    """

    label: str
    blocks: tuple[Table | Note | Grid | Bars | TokenStrip, ...] = ()
    instead: tuple[Headline | Table | Note | Code, ...] = ()
    open: bool = False


Block = Headline | Table | Note | Code | Grid | Bars | TokenStrip | Fold | Finding
