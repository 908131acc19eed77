"""The picture blocks as figures of HTML and SVG: no script, no inline style, every number also as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, zip_longest

from llmdoctor.core.document import Bar, Bars, Grid
from llmdoctor.core.text import clean
from llmdoctor.report.flat import longest, shown, total_of, value_of
from llmdoctor.report.markup import attribute, text

MOST_CELLS = 300 * 300  # a page with more would be slow: the block's text is shown
_ALONE = 1024  # up to this number each cell is a rectangle, beyond it a run of equal cells is
_NAMED = 32  # up to this number all rows and columns are named, beyond it every eighth or sixteenth
_LINE = 7  # width of a character of the names


def grid(block: Grid, number: str) -> str:
    """Return a figure of cells: a rectangle for each cell or run of equal cells, described on hover; the rows in words below."""
    wide = max((len(row) for row in block.cells), default=0)
    many = max(len(block.rows), wide)
    size = 24 if many <= 12 else 18 if many <= 24 else 13 if many <= 40 else 7 if many <= 64 else 5
    names, heads = _names(block.rows, block.rows), _names(tuple(str(at) for at in range(wide)), block.columns)
    left = _LINE * max((len(name) for name in names), default=0) + 10
    top = 8 + (_LINE * max(map(len, heads), default=0) if max(map(len, heads), default=0) * _LINE > size - 4 else 12)
    axis = "".join(_head(name, left + size * at, top, size) for at, name in enumerate(heads) if name)
    marks = {mark.character: mark for mark in block.marks}
    alone = sum(map(len, block.cells)) <= _ALONE and not block.notes
    gap = 0 if size < 9 else 1
    lines, words = [], []
    for index, (name, cells) in enumerate(zip(block.rows, block.cells, strict=False)):
        high, shapes, described = top + index * size, [], []
        for start, end, character, note in _runs(cells, block.notes[index] if index < len(block.notes) else ()):
            mark = marks.get(character)
            if mark is None:
                continue
            what = f"{mark.meaning}, {note}" if note else mark.meaning
            described.append(f"{what}: {_span(block, start, end)}")
            for first, last in [(at, at + 1) for at in range(start, end)] if alone else [(start, end)]:
                title = f"<title>{_t(f'{block.down} {name}, {_span(block, first, last)}: {what}')}</title>"
                place = f'x="{left + first * size}" y="{high}" width="{(last - first) * size - gap}" height="{size - gap}"'
                shapes.append(f'<rect class="t-{mark.tone}"{_faint(mark.strength)} {place}>{title}</rect>')
        if names[index]:
            shapes.append(f'<text x="{left - 6}" y="{high + size // 2 + 4}" text-anchor="end">{_t(names[index])}</text>')
        lines.append(f"<g>{''.join(shapes)}</g>")
        words.append(f"<li>{_t(f'{block.down} {name}: ' + ('; '.join(described) or 'nothing'))}</li>")
    across, down = left + size * wide + 2, top + size * len(block.rows) + 2
    label = attribute("aria-label", clean(f"{block.label}: {block.down} down, {block.across} across; each row in words below"))
    picture = f'<svg role="img"{label} width="{across}" height="{down}" viewBox="0 0 {across} {down}">{axis}{"".join(lines)}</svg>'
    zoom = "".join(
        f'<label><input type="radio" name="zoom{number}" class="zoom{times}"{" checked" if times == 1 else ""}>{times} &#215;</label>'
        for times in (1, 2, 4)
    )
    keys = "".join(f"<li>{_key(f't-{mark.tone}', mark.strength)}{_t(mark.meaning)}</li>" for mark in block.marks)
    name, axes = attribute("aria-label", clean(block.label) or "picture"), f"{_t(block.down)} down, {_t(block.across)} across"
    return (
        f'<figure class="grid"{name}><figcaption>{_t(block.label)} <span class="dim">{axes}</span></figcaption>'
        f'<ul class="key">{keys}</ul><fieldset><legend>Zoom</legend>{zoom}</fieldset><div class="scroll" tabindex="0" role="region"{name}>'
        f'{picture}</div><details><summary>Each row in words</summary><ul class="rows">{"".join(words)}</ul></details></figure>'
    )


def _names(short: tuple[str, ...], full: tuple[str, ...]) -> list[str]:
    """Return the names at the axis: all of a few, else the first of every eighth or sixteenth."""
    every = 1 if len(short) <= _NAMED else 8 if len(short) <= 100 else 16
    if every == 1:
        return [clean(name)[:18] for name in short]
    return [clean(full[at] if at < len(full) else name).partition("..")[0][:18] if at % every == 0 else "" for at, name in enumerate(short)]


def _head(name: str, x: int, top: int, size: int) -> str:
    """Return the name above a column, upright if it is wider than the column."""
    if _LINE * len(name) <= size - 4:
        return f'<text x="{x + size // 2}" y="{top - 5}" text-anchor="middle">{_t(name)}</text>'
    return f'<text x="{x + size // 2 + 4}" y="{top - 4}" transform="rotate(-90 {x + size // 2 + 4} {top - 4})">{_t(name)}</text>'


def _faint(strength: float) -> str:
    return f' fill-opacity="{min(max(0.0, strength), 1.0):.2g}"' if strength != 1 else ""


def bars(block: Bars) -> str:
    """Return a figure of bars: a table with a drawing in its middle column, and the numbers of all parts below."""
    most = longest(block)
    rows = "".join(_bar_row(block, bar, most) for bar in block.bars)
    parts = block.parts if len(block.parts) > 1 else ()
    keys = "".join(f"<li>{_key(f'p{index % 10}')}{_t(part)}</li>" for index, part in enumerate(parts))
    if block.limit is not None:
        said = f"{block.limit_name or 'limit'}: {shown(block, block.limit)} {block.unit}"
        keys += f"<li>{_key('limit')}{_t(said)}</li>"
    name = attribute("aria-label", clean(block.label) or "bars")
    shape = "bars stacked" if block.stacked else "bars"
    unit = f' <span class="dim">{_t(block.unit)}</span>' if block.unit else ""
    return (
        f'<figure class="{shape}"{name}><figcaption>{_t(block.label)}{unit}</figcaption><ul class="key">{keys}</ul>'
        f"<table><tbody>{rows}</tbody></table><details><summary>All numbers</summary>{_numbers(block)}</details></figure>"
    )


def _bar_row(block: Bars, bar: Bar, most: float) -> str:
    values = [value_of(value) for value in bar.values]
    high = 20 if block.stacked else 13 * max(len(values), 1)
    shapes, done = [], 0.0
    for index, value in enumerate(values):
        if not value:
            continue
        start = done / most * 1000 if block.stacked else 0.0
        top, thick = (0, high) if block.stacked else (13 * index + 1, 11)
        title = f"<title>{_t(f'{_part(block, index)}: {shown(block, value)} {block.unit}')}</title>"
        place = f'x="{start:.2f}" y="{top}" width="{value / most * 1000:.2f}" height="{thick}"'
        shapes.append(f'<rect class="p{index % 10}" {place}>{title}</rect>')
        done += value
    if block.limit is not None:
        shapes.append(
            f'<rect class="limit" x="{min(value_of(block.limit) / most * 1000, 996):.2f}" y="0" width="4" height="{high}"></rect>'
        )
    said = ", ".join(f"{_part(block, index)} {shown(block, value)}" for index, value in enumerate(values))
    head = f'<svg role="img"{attribute("aria-label", clean(said) or "nothing")} height="{high}" viewBox="0 0 1000 {high}" preserveAspectRatio="none">'
    described = shown(block, total_of(block, bar)) if block.stacked else "<br>".join(shown(block, value) for value in values)
    note = f'<span class="small">{_t(bar.note)}</span>' if bar.note else ""
    chosen = "&#9656; " if bar.chosen else ""
    return (
        f'<tr{" class=chosen" if bar.chosen else ""}><th scope="row">{chosen}{_t(bar.name)}{note}</th>'
        f'<td class="bar">{head}{"".join(shapes)}</svg></td><td class="value mono">{described}</td></tr>'
    )


def _numbers(block: Bars) -> str:
    parts = [_part(block, index) for index in range(max((len(bar.values) for bar in block.bars), default=0))]
    head = "".join(f'<th scope="col">{_t(part)}</th>' for part in parts)
    rows = "".join(
        f'<tr><th scope="row">{_t(bar.name)}</th>{"".join(f"<td>{shown(block, value)}</td>" for value in bar.values)}</tr>'
        for bar in block.bars
    )
    label = attribute("aria-label", clean(f"All numbers: {block.label}"))
    return f'<div class="scroll" tabindex="0" role="region"{label}><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _part(block: Bars, index: int) -> str:
    return block.parts[index] if index < len(block.parts) else f"part {index + 1}"


def _runs(cells: str, notes: tuple[str, ...]) -> Iterator[tuple[int, int, str, str]]:
    """(first, past the last, character, note) of each run of equal cells."""
    start = 0
    for (character, note), same in groupby(zip_longest(cells, notes[: len(cells)], fillvalue="")):
        end = start + sum(1 for _ in same)
        yield start, end, character, note
        start = end


def _span(block: Grid, start: int, end: int) -> str:
    first, last = (block.columns[at] if at < len(block.columns) else str(at) for at in (start, end - 1))
    return f"{block.across} {first}" if end - start == 1 else f"{block.across} {first} to {last}"


def _key(kind: str, strength: float = 1.0) -> str:
    square = f'<rect class="{kind}"{_faint(strength)} width="11" height="11"></rect>'
    return f'<svg class="key-cell" width="11" height="11" aria-hidden="true">{square}</svg>'


def _t(value: str) -> str:
    return text(clean(value))
