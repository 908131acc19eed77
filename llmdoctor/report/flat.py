"""Pictures as words: what replaces a picture block if only characters can be shown."""

from __future__ import annotations

import math
from collections.abc import Iterable

from llmdoctor.core.document import Bar, Bars, Block, Cell, Fold, Grid, Note, Table, TokenStrip

WIDTH = 24  # characters of the longest bar: with a name and a note beside it a line fits 60 columns
_LETTERS = "#=+o*x%@~-"


def flat(document: Iterable[Block]) -> tuple[Block, ...]:
    """Return `document` with each picture replaced by its `instead`, else by a drawing in characters."""
    out: list[Block] = []
    for block in document:
        if isinstance(block, Grid):
            out += block.instead or _grid(block)
        elif isinstance(block, Bars):
            out += block.instead or _bars(block)
        elif isinstance(block, TokenStrip):
            out.append(Note("", "".join(token.text for token in block.tokens)))
        elif isinstance(block, Fold) or (isinstance(block, Table) and block.instead):
            out += block.instead
        else:
            out.append(block)
    return tuple(out)


def value_of(number: float) -> float:
    """Return a number that can be drawn: not negative, finite, and small enough that many of them can be added."""
    return min(float(number), 1e300) if math.isfinite(number) and number > 0 else 0.0


def shown(bars: Bars, number: float) -> str:
    """Return a value with the decimals of the picture."""
    return f"{value_of(number):,.{max(bars.digits, 0)}f}"


def total_of(bars: Bars, bar: Bar) -> float:
    """Return the length of a bar: the sum of its parts if they are stacked, else the longest part."""
    values = [value_of(number) for number in bar.values] or [0.0]
    return sum(values) if bars.stacked else max(values)


def longest(bars: Bars) -> float:
    """Return the value at the right edge, which is above zero."""
    values = [value_of(number or 0.0) for number in (bars.limit, bars.most)]
    return max([*(total_of(bars, bar) for bar in bars.bars), *values], default=0.0) or 1.0


def _grid(grid: Grid) -> list[Block]:
    wide = max((len(name) for name in grid.rows), default=0)
    lines = [f"{name:>{wide}} {row}" for name, row in zip(grid.rows, grid.cells, strict=False)]
    legend = "   ".join(f"{mark.character} {mark.meaning}" for mark in grid.marks)
    return [Note(f"{grid.label}: {grid.down} down, {grid.across} across", "", "dim"), Note("", "\n".join([*lines, legend]))]


def _bars(bars: Bars) -> list[Block]:
    most = longest(bars)
    rows: list[tuple[str | Cell, ...]] = []
    for bar in bars.bars:
        name = f"> {bar.name}" if bar.chosen else bar.name
        if bars.stacked:
            rows.append((name, shown(bars, total_of(bars, bar)), _stack(bar, most), bar.note))
            continue
        for number, value in enumerate(bar.values):
            drawn = _LETTERS[number % len(_LETTERS)] * round(value_of(value) / most * WIDTH)
            rows.append((name if number == 0 else "", shown(bars, value), drawn, bar.note if number == 0 else ""))
    legend = "   ".join(f"{_LETTERS[number % len(_LETTERS)]} {part}" for number, part in enumerate(bars.parts))
    if bars.limit is not None:
        legend += f"   {bars.limit_name or 'limit'}: {shown(bars, bars.limit)} {bars.unit}"
    title = Note(f"{bars.label}, {bars.unit}" if bars.unit else bars.label, "", "dim")
    return [title, Table(("", "", "", ""), tuple(rows)), Note("Parts", legend, "dim")]


def _stack(bar: Bar, most: float) -> str:
    """Return a stacked bar: each part as its character, in proportion to the longest bar; rounding errors do not add up."""
    drawn, done = "", 0.0
    for number, value in enumerate(bar.values):
        done += value_of(value)
        drawn += _LETTERS[number % len(_LETTERS)] * max(round(done / most * WIDTH) - len(drawn), 0)
    return drawn
