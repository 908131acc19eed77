"""Text for a person: the verdict first, then the evidence, the findings, the fix, the next step.

Everything is cleaned here and handed to rich as Text, never as markup. Nothing is cut: what is too wide is folded.
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
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines, defuse
from llmdoctor.report.columns import fit
from llmdoctor.report.flat import flat

if TYPE_CHECKING:
    from llmdoctor.report import Style

_TONES: dict[Tone, str] = {"good": "bold green", "bad": "bold red", "warn": "yellow", "plain": "", "dim": "dim"}
_SEVERITIES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_LONG = 160  # characters of a cell that a terminal shows
_CODE = re.compile("\x1b\\[[0-9;]*m")


def render(report: Report, style: Style, _rules: Sequence[Rule] = ()) -> str:
    """`report` as lines of at most `style.width` columns (code to paste excepted), ending in a line break."""
    out = StringIO()
    console = Console(
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
    if report.error is not None:
        console.print(Text(clean(report.error.message)), soft_wrap=True)
    elif report.verdict is not None:
        console.print(Text(clean(report.verdict.text), style=_TONES[report.verdict.tone]))
    document = flat(report.document)
    if style.terminal:
        document = tuple(_shortened(block) if isinstance(block, Table) else block for block in document)
    for block in document:
        if not isinstance(block, Code):
            _print_block(console, block)
    placed = {id(block) for block in document if isinstance(block, Finding)}
    for finding in () if report.told else report.findings:
        if id(finding) not in placed:
            _print_finding(console, finding)
    for block in document:
        if isinstance(block, Code):
            _print_block(console, block)
    for skipped in report.skipped:
        _print_note(console, "SKIPPED", f"{skipped.what}: {skipped.reason}", "dim")
    return defuse("\n".join(map(_trimmed, out.getvalue().split("\n"))))


def _shortened(table: Table) -> Table:
    """The table with its very long cells cut: who wants them whole can redirect the output."""

    def short(cell: str | Cell) -> str | Cell:
        text = cell if isinstance(cell, str) else cell.text
        if len(text) <= _LONG:
            return cell
        cut = text[: _LONG - 4] + " ..."
        return cut if isinstance(cell, str) else replace(cell, text=cut)

    return replace(table, rows=tuple(tuple(map(short, row)) for row in table.rows))


def _trimmed(line: str) -> str:
    """`line` without the blanks at its end; the colour codes among them stay."""
    codes = ""
    while True:
        line = line.rstrip()
        start = line.rfind("\x1b")
        if start < 0 or not _CODE.fullmatch(line, start):
            return line + codes
        line, codes = line[:start], line[start:] + codes


def _print_block(console: Console, block: Block) -> None:
    if isinstance(block, Headline):
        console.print(Text(clean(block.text), style=_TONES[block.tone]))
    elif isinstance(block, Table):
        console.print(_grid(block, console.width))
    elif isinstance(block, Note):
        _print_note(console, block.label, block.text, block.tone)
    elif isinstance(block, Finding):
        _print_finding(console, block)
    elif isinstance(block, Code):
        console.print(Text(clean(block.label), style="bold"))
        for line in clean_lines(block.text).split("\n"):
            console.print(Text("  " + line), soft_wrap=True)


def _grid(table: Table, width: int) -> Grid:
    """The table as wide as the screen allows; a cell that goes on in a second line keeps its indentation."""
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


def _print_note(console: Console, label: str, text: str, tone: Tone = "plain") -> None:
    """The text beside its label; below it where the label is a sentence of its own."""
    if label and (not text or len(label) > console.width // 3):
        console.print(Text(clean(label), style="dim" if tone == "dim" else "bold"), overflow="fold")
        label = ""
    if text:
        console.print(_labelled(label, text, tone))


def _labelled(label: str, text: str, tone: Tone = "plain") -> Grid:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold" if tone != "dim" else "dim")
    grid.add_column(overflow="fold")
    grid.add_row(Text(clean(label)), Text(clean_lines(text), style=_TONES[tone]))
    return grid


def _print_finding(console: Console, finding: Finding) -> None:
    head = Text()
    head.append(finding.severity.value, style=_SEVERITIES[finding.severity])
    head.append(f" {finding.code} ", style="bold")
    head.append(clean(finding.message))
    console.print(head)
    if finding.location is not None:
        console.print(Padding(_labelled("at", str(finding.location)), (0, 0, 0, 2)))
    if finding.cause:
        console.print(Padding(_labelled("cause", finding.cause), (0, 0, 0, 2)))
    if finding.fix:
        console.print(Padding(_labelled("fix", finding.fix), (0, 0, 0, 2)))
