"""Text for a person: the verdict first, then the document's blocks in their order, then the findings that have no place in it.

All text is cleaned here and given to rich as Text, never as markup. What is too wide is folded, not cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from llmdoctor.core.document import Block, Cell, Code, Headline, Note, Table, Tone
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines, defuse
from llmdoctor.report.columns import fit
from llmdoctor.report.flat import flat
from llmdoctor.report.layout import blocks, message_of, parts, sentence

if TYPE_CHECKING:
    from llmdoctor.report import Style

_TONES: dict[Tone, str] = {"good": "bold green", "bad": "bold red", "warn": "yellow", "plain": "", "dim": "dim"}
_SEVERITIES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_LONG = 160  # characters of a cell that a terminal shows
_LABEL, _LONGEST_LABEL = 7, 14  # columns of the labels on the left; a longer label does not widen them
_CODE = re.compile("\x1b\\[[0-9;]*m")


def render(report: Report, style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return `report` as lines of at most `style.width` columns, lines to paste excepted, ending in a line break."""
    out = StringIO()
    console = _console(out, style)
    verdict = report.verdict
    if report.error is not None:
        console.print(Text(clean(verdict.text)), soft_wrap=True)
    else:
        console.print(Text(clean(sentence(report)), style=_TONES[verdict.tone]))
    skipped = [Note("Skipped", f"{one.what}: {one.reason}", "dim") for one in report.skipped]
    _print_blocks(console, (*flat(blocks(report)), *skipped), report, style.terminal)
    return _finished(out)


def words(document: Sequence[Block], style: Style) -> str:
    """Return blocks without a report around them, as lines of at most `style.width` columns."""
    out = StringIO()
    _print_blocks(_console(out, style), flat(document), Report("", {}, verdict=Verdict("")), style.terminal)
    return _finished(out)


def _console(out: StringIO, style: Style) -> Console:
    return Console(
        file=out,
        width=max(style.width, 40),
        force_terminal=style.color,
        color_system="standard" if style.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )


def _finished(out: StringIO) -> str:
    return defuse("\n".join(map(_trimmed, out.getvalue().split("\n"))))


def _print_blocks(console: Console, document: Sequence[Block], report: Report, terminal: bool) -> None:
    """Print the blocks one below the other, a blank line where one part of the answer ends and the next begins."""
    labels = [len(clean(block.label)) for block in document if isinstance(block, Note | Code)]
    width = max([_LABEL, *(length for length in labels if length <= _LONGEST_LABEL)])
    before: Block = Headline(report.verdict.text)
    for block in document:
        if _apart(before, block):
            console.print()
        if isinstance(block, Finding):
            _print_finding(console, block, report)
        elif isinstance(block, Table):
            console.print(_grid(_shortened(block) if terminal else block, console.width))
        elif isinstance(block, Headline):
            console.print(Text(clean(block.text), style=_TONES[block.tone]))
        elif isinstance(block, Note):
            _print_note(console, block, width)
        elif isinstance(block, Code):
            _print_code(console, block, width)
        before = block


def _apart(before: Block, block: Block) -> bool:
    """Return whether a blank line parts two blocks: around findings and tables, and above a headline."""
    if isinstance(before, Finding) or isinstance(block, Finding):
        return True
    if isinstance(block, Headline):
        return not isinstance(before, Headline)
    if isinstance(before, Headline):
        return isinstance(block, Table)
    if isinstance(before, Note) and not before.text:  # a heading, above what it names
        return False
    if isinstance(block, Note) and not block.label:  # a legend or a drawing, below what it belongs to
        return False
    heading = isinstance(block, Note) and not block.text
    drawn = isinstance(before, Note) and not before.label
    return heading or drawn or isinstance(before, Table) or isinstance(block, Table)


def _shortened(table: Table) -> Table:
    """Return the table with its very long cells cut; redirected output has them whole."""

    def short(cell: str | Cell) -> str | Cell:
        text = cell if isinstance(cell, str) else cell.text
        if len(text) <= _LONG:
            return cell
        cut = text[: _LONG - 4] + " ..."
        return cut if isinstance(cell, str) else replace(cell, text=cut)

    return replace(table, rows=tuple(tuple(map(short, row)) for row in table.rows))


def _trimmed(line: str) -> str:
    """Return `line` without the blanks at its end, with the colour codes among them."""
    codes = ""
    while True:
        line = line.rstrip()
        start = line.rfind("\x1b")
        if start < 0 or not _CODE.fullmatch(line, start):
            return line + codes
        line, codes = line[:start], line[start:] + codes


def _grid(table: Table, width: int) -> Grid:
    """Return the table at the width of the screen; further lines of a cell keep its indentation."""
    columns = fit(table, width)
    gap = columns.gap
    grid = Grid(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=any(table.columns), header_style="bold")
    for at, wide in enumerate(columns.widths):
        grid.add_column(Text(clean(table.columns[at])) if at < len(table.columns) else "", overflow="fold", width=wide)
    for row in table.rows:
        grid.add_row(*map(_cell, row))
    return grid


def _cell(cell: str | Cell) -> RenderableType:
    if isinstance(cell, str):
        cell = Cell(cell)
    text = clean(cell.text)
    indent = len(text) - len(text.lstrip(" "))
    styled = Text(text[indent:], style=_TONES[cell.tone])
    return Padding(styled, (0, 0, 0, indent)) if indent else styled


def _print_note(console: Console, note: Note, width: int) -> None:
    """Print the text beside its label, which takes `width` columns; below it if the label is a sentence."""
    label = clean(note.label)
    if label and (not note.text or len(label) > console.width // 3):
        console.print(Text(label, style="dim" if note.tone == "dim" else "bold"), overflow="fold")
        label = ""
    if note.text:
        console.print(_labelled(label, note.text, width if note.label else 0, note.tone))


def _print_code(console: Console, code: Code, width: int) -> None:
    """Print lines to paste beside their label, never wrapped."""
    label = clean(code.label)
    if len(label) > width:
        console.print(Text(label, style="bold"))
        label = ""
    for line in clean_lines(code.text).split("\n"):
        text = Text(f"{label:<{width}}  ", style="bold") if code.label else Text("  ")
        console.print(text.append(line, style="not bold"), soft_wrap=True)
        label = ""


def _labelled(label: str, text: str, width: int, tone: Tone = "plain") -> RenderableType:
    if not width:
        return Text(clean_lines(text), style=_TONES[tone], overflow="fold")
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=width, style="bold" if tone != "dim" else "dim")
    grid.add_column(overflow="fold")
    grid.add_row(Text(label), Text(clean_lines(text), style=_TONES[tone]))
    return grid


def _print_finding(console: Console, finding: Finding, report: Report) -> None:
    """Print severity, code and message, and below them At, Cause and Fix."""
    head = Text()
    head.append(finding.severity.value, style=_SEVERITIES[finding.severity])
    head.append(f" {clean(finding.code)} ", style="bold")
    head.append(clean_lines(message_of(finding, report)))
    console.print(head)
    for label, text in parts(finding):
        if label == "At":  # a place is to be copied or clicked on: its line is never folded
            console.print(Text(f"  {label:<{_LABEL - 2}}  ", style="bold").append(clean(text), style="not bold"), soft_wrap=True)
        else:
            console.print(Padding(_labelled(label, text, _LABEL - 2), (0, 0, 0, 2)))
