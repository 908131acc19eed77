"""The picture blocks as figures of HTML and SVG: no script, no inline style, every number also as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from llmdoctor.core.document import Bar, Bars, Grid
from llmdoctor.core.text import clean
from llmdoctor.report.flat import longest, shown, total_of, value_of
from llmdoctor.report.markup import attribute, text

MOST_CELLS = 300 * 300  # beyond it a page would be slow: the job's text stands instead
_ALONE = 1024  # up to so many cells each is a rectangle of its own, beyond it a run of equal ones is
_NAMED = 40  # rows that are named at the left; of more none


def grid(block: Grid, number: int) -> str:
    """A figure of cells: a rectangle for each cell or run of equal cells, which says on hover what it is; the rows in words below."""
    size = 20 if len(block.rows) <= 16 else 14 if len(block.rows) <= 32 else 9 if len(block.rows) <= 64 else 5
    alone = sum(map(len, block.cells)) <= _ALONE
    named = len(block.rows) <= _NAMED
    names = [clean(name)[:18] for name in block.rows]
    left = 7 * max((len(name) for name in names), default=0) + 8 if named else 4
    wide, high = left + size * max((len(row) for row in block.cells), default=0) + 2, size * len(block.rows) + 2
    marks = {mark.character: mark for mark in block.marks}
    shapes, words = [], []
    for index, (name, cells) in enumerate(zip(block.rows, block.cells, strict=False)):
        top, told = index * size, []
        for start, end, character in _runs(cells):
            mark = marks.get(character)
            if mark is None:
                continue
            what = f"{mark.meaning}: {_span(block, start, end)}"
            told.append(what)
            for first, last in [(at, at + 1) for at in range(start, end)] if alone else [(start, end)]:
                title = f"<title>{_t(f'{block.down} {name}, {_span(block, first, last)}: {mark.meaning}')}</title>"
                place = f'x="{left + first * size}" y="{top}" width="{(last - first) * size - 1}" height="{size - 1}"'
                shapes.append(f'<rect class="t-{mark.tone}" {place}>{title}</rect>')
        if named:
            shapes.append(f'<text x="{left - 6}" y="{top + size // 2 + 3}" text-anchor="end">{_t(names[index])}</text>')
        words.append(f"<li>{_t(f'{block.down} {name}: ' + ('; '.join(told) or 'nothing'))}</li>")
    label = attribute("aria-label", clean(f"{block.label}: {block.down} down, {block.across} across; each row in words below"))
    picture = f'<svg role="img"{label} width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">{"".join(shapes)}</svg>'
    zoom = "".join(
        f'<label><input type="radio" name="zoom{number}" class="zoom{times}"{" checked" if times == 1 else ""}>{times} &#215;</label>'
        for times in (1, 2, 4)
    )
    keys = "".join(f"<li>{_key(f't-{mark.tone}')}{_t(mark.meaning)}</li>" for mark in block.marks)
    return (
        f'<figure class="grid"><figcaption>{_t(block.label)} <span class="dim">{_t(block.down)} down, {_t(block.across)} across</span></figcaption>'
        f'<fieldset><legend>Zoom</legend>{zoom}</fieldset><div class="scroll" tabindex="0" role="region"{attribute("aria-label", clean(block.label))}>'
        f'{picture}</div><ul class="key">{keys}</ul><details><summary>Each row in words</summary><ul>{"".join(words)}</ul></details></figure>'
    )


def bars(block: Bars) -> str:
    """A figure of bars, which is a table with a drawing in its middle column, and the numbers of all parts below."""
    most = longest(block)
    rows = "".join(_bar_row(block, bar, most) for bar in block.bars)
    keys = "".join(f"<li>{_key(f'p{index % 10}')}{_t(part)}</li>" for index, part in enumerate(block.parts))
    if block.limit is not None:
        said = f"{block.limit_name or 'limit'}: {shown(block, block.limit)} {block.unit}"
        keys += f"<li>{_key('limit')}{_t(said)}</li>"
    return (
        f'<figure class="bars"><figcaption>{_t(block.label)} <span class="dim">{_t(block.unit)}</span></figcaption><ul class="key">{keys}</ul>'
        f"<table><tbody>{rows}</tbody></table><details><summary>All numbers</summary>{_numbers(block)}</details></figure>"
    )


def _bar_row(block: Bars, bar: Bar, most: float) -> str:
    values = [value_of(value) for value in bar.values]
    high = 18 if block.stacked else 11 * max(len(values), 1)
    shapes, done = [], 0.0
    for index, value in enumerate(values):
        start = 1000 * done / most if block.stacked else 0.0
        top, thick = (0, high) if block.stacked else (11 * index, 10)
        title = f"<title>{_t(f'{_part(block, index)}: {shown(block, value)} {block.unit}')}</title>"
        place = f'x="{start:.2f}" y="{top}" width="{1000 * value / most:.2f}" height="{thick}"'
        shapes.append(f'<rect class="p{index % 10}" {place}>{title}</rect>')
        done += value
    if block.limit is not None:
        shapes.append(
            f'<rect class="limit" x="{min(1000 * value_of(block.limit) / most, 996):.2f}" y="0" width="4" height="{high}"></rect>'
        )
    said = ", ".join(f"{_part(block, index)} {shown(block, value)}" for index, value in enumerate(values))
    head = f'<svg role="img"{attribute("aria-label", clean(said) or "nothing")} height="{high}" viewBox="0 0 1000 {high}" preserveAspectRatio="none">'
    told = shown(block, total_of(block, bar)) if block.stacked else "<br>".join(shown(block, value) for value in values)
    note = f'<span class="small">{_t(bar.note)}</span>' if bar.note else ""
    chosen = "&#9656; " if bar.chosen else ""
    return (
        f'<tr{" class=chosen" if bar.chosen else ""}><th scope="row">{chosen}{_t(bar.name)}{note}</th>'
        f'<td class="bar">{head}{"".join(shapes)}</svg></td><td class="value mono">{told}</td></tr>'
    )


def _numbers(block: Bars) -> str:
    parts = [_part(block, index) for index in range(max((len(bar.values) for bar in block.bars), default=0))]
    head = "".join(f'<th scope="col">{_t(part)}</th>' for part in parts)
    rows = "".join(
        f'<tr><th scope="row">{_t(bar.name)}</th>{"".join(f"<td>{shown(block, value)}</td>" for value in bar.values)}</tr>'
        for bar in block.bars
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _part(block: Bars, index: int) -> str:
    return block.parts[index] if index < len(block.parts) else f"part {index + 1}"


def _runs(cells: str) -> Iterator[tuple[int, int, str]]:
    """(first, past the last, character) of each run of equal characters."""
    start = 0
    for character, same in groupby(cells):
        end = start + sum(1 for _ in same)
        yield start, end, character
        start = end


def _span(block: Grid, start: int, end: int) -> str:
    first, last = (block.columns[at] if at < len(block.columns) else str(at) for at in (start, end - 1))
    return f"{block.across} {first}" if end - start == 1 else f"{block.across} {first} to {last}"


def _key(kind: str) -> str:
    return f'<svg class="key-cell" width="11" height="11" aria-hidden="true"><rect class="{kind}" width="11" height="11"></rect></svg>'


def _t(value: str) -> str:
    return text(clean(value))
