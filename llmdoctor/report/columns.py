"""The widths of a table's columns on a screen: as wide as their cells if there is room, else no narrower than their longest word."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

from llmdoctor.core.document import Table
from llmdoctor.core.text import clean

_WHOLE = 12  # a column of cells no longer than this, such as a number or a short list, is kept on one line if possible


@dataclass(frozen=True, slots=True)
class FittedColumns:
    """The widths of the columns, and the number of blanks between two of them."""

    widths: tuple[int, ...]
    gap: int


def fit(table: Table, width: int) -> FittedColumns:
    """Return the columns of `table` on a screen of `width` columns: the gaps are reduced first, then words are broken."""
    count = max([len(table.columns), *(len(row) for row in table.rows)], default=0)
    wanted, least = [0] * count, [0] * count
    for row in (table.columns, *table.rows):
        for at, cell in enumerate(row):
            text = clean(cell if isinstance(cell, str) else cell.text)
            indent = len(text) - len(text.lstrip(" "))
            wanted[at] = max(wanted[at], cell_len(text))
            least[at] = max(least[at], max(map(cell_len, text.split()), default=0) + indent)
    gap = 2 if sum(least) + 2 * (count - 1) <= width else 1
    room = max(width - gap * (count - 1), count)
    return FittedColumns(tuple(_share(room, wanted, least)), gap)


def _share(room: int, wanted: list[int], least: list[int]) -> list[int]:
    """Return widths of at most `room` in total: the wanted widths, else the largest common width for all columns that want more."""
    if sum(wanted) <= room:
        return [max(one, 1) for one in wanted]
    whole = [one if one <= _WHOLE else low for one, low in zip(wanted, least, strict=True)]
    below = next((floor for floor in (whole, least) if sum(floor) <= room), [1] * len(least))
    level = max(wanted, default=0)
    while level > 1 and sum(_at(level, one, low) for one, low in zip(wanted, below, strict=True)) > room:
        level -= 1
    widths = [_at(level, one, low) for one, low in zip(wanted, below, strict=True)]
    spare = room - sum(widths)
    for at, one in enumerate(wanted):
        if spare > 0 and widths[at] < one:
            widths[at], spare = widths[at] + 1, spare - 1
    return widths


def _at(level: int, wanted: int, least: int) -> int:
    return max(min(wanted, level), least, 1)
