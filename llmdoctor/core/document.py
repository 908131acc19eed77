"""What a person reads of an answer, as data: a job builds it, a renderer lays it out, neither knows the other.

The order is always the same: the verdict, the evidence, the cause, the fix, the next step. All strings may come from data: the
renderer cleans them and parses no markup in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmdoctor.core.finding import Finding

Tone = Literal["good", "bad", "warn", "plain", "dim"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Headline:
    """A sentence that stands above what follows; `tone` shows whether it is a good one."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cell:
    """A table's cell with a tone of its own."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Table:
    """Rows of cells under `columns`, the first cell of a row being its head.

    `instead` is what takes the place of a table that is made for a page, where characters alone can be shown.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    instead: tuple[Headline | Table | Note | Code, ...] = ()


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

    `cells` holds one string for each of `rows` (their names), one character a cell; `marks` says what the characters mean, and a character
    without a mark stays blank. `columns` names the cells of a row; where it is empty they are numbered from 0. `instead` is what takes the
    picture's place where characters alone can be shown; without it the cells themselves are printed. `notes` says more of a cell than its
    mark does, such as the share of a block that is seen; neighbours with the same mark and note are drawn and told as one.
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
    """One line of Bars: a value for each part, not negative. `chosen` sets it apart from the others; `note` stands beside it."""

    name: str
    values: tuple[float, ...]
    note: str = ""
    chosen: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bars:
    """Bars of one unit: memory as parts stacked over phases, or (not `stacked`) probabilities of a token side by side, before and after.

    `parts` names the values of every bar; `digits` are the decimals to print; `limit` is a line across all bars, such as a device's memory,
    and `limit_name` says what it is. `most` is the value at the right edge, for pictures that are to be compared; without it the largest of this
    one is. `instead` is as for a Grid.
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
class Fold:
    """What only a page has room for: behind `label`, which opens it on a click (`open`: which closes it).

    Elsewhere nothing but what stands `instead`; without blocks that is all there is.
    """

    label: str
    blocks: tuple[Table | Note | Grid | Bars, ...] = ()
    instead: tuple[Headline | Table | Note | Code, ...] = ()
    open: bool = False


Block = Headline | Table | Note | Code | Grid | Bars | Fold | Finding
