"""One self-contained page: one style sheet and one short script, which the page's own policy allows by their hashes; nothing is fetched.

The script adds buttons that copy a fix and an order for many findings; a page whose reader allows no script lacks these only.

Dark and light, for print, by keyboard and screen reader. Everything from data goes through clean() and markup.text() or attribute().
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmdoctor.core.document import Bars, Block, Cell, Code, Fold, Grid, Headline, Note, Table, TokenStrip
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines, plural
from llmdoctor.report import svg
from llmdoctor.report import text as screen
from llmdoctor.report.layout import blocks, message_of, parts, sentence
from llmdoctor.report.markup import attribute, breakable, text, whole_options
from llmdoctor.version import __version__, rule_url

if TYPE_CHECKING:
    from llmdoctor.report import Style

_STYLE, _SCRIPT = Path(__file__).with_name("page.css"), Path(__file__).with_name("page.js")
_MANY, _CARDS = 4, 6  # columns: a table with more scrolls as a whole; a table with at most so many is shown as cards on a telephone
_FITS, _NARROW = 24, 34  # characters of a table's longest words: the first number always fits, more than the second are shown as cards
_SHORT, _SNUG = 9, 24  # characters of a cell that are kept on one line, and on a wide screen
_NAMES = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def render(report: Report, style: Style, rules: Sequence[Rule] = ()) -> str:
    """Return `report` as an HTML document in ASCII, ending in a line break."""
    css, script = _STYLE.read_text(encoding="ascii"), _SCRIPT.read_text(encoding="ascii")
    policy = f"default-src 'none'; style-src {_pin(css)}; script-src {_pin(script)}; base-uri 'none'; form-action 'none'"
    verdict = report.verdict
    body = [*_body(report, {rule.code: rule for rule in rules}, replace(style, width=100, color=False)), _skipped(report)]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">',
            f"<title>{_t(sentence(report)[:200])}</title>",
            f"<style>{css}</style>\n</head>\n<body>",
            '<header><a class="skip" href="#answer">To the answer</a>',
            f'<p class="command"><b>llmdoctor {_t(report.command)}</b>{_subject(report)}</p>{_invocation(report)}',
            f'<h1 class="{verdict.tone}">{_t(sentence(report))}</h1><p class="status">{verdict.status}</p></header>\n<main id="answer">',
            *[part for part in body if part],
            f"</main>\n<footer>llmdoctor {__version__}{_dated(style)}. This page fetches nothing; its script copies and orders.</footer>",
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _pin(source: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows exactly the inline text `source`, in ASCII."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode('ascii')).digest()).decode('ascii')}'"


def _subject(report: Report) -> str:
    """Return the paths, numbers and lists of `report.subject` as one line."""
    items = [f"{name} {value}" for name, value in report.subject.items() if isinstance(value, str | int) and not isinstance(value, bool)]
    items += [f"{name} {value['path']}" for name, value in report.subject.items() if isinstance(value, Mapping) and value.get("path")]
    items += [f"{name} {', '.join(map(str, value[:3]))}" for name, value in report.subject.items() if isinstance(value, list) and value]
    return "".join(f" &#183; {_t(item[:200])}" for item in items)


def _invocation(report: Report) -> str:
    """Return the command line, to copy; "" for a report of the Python API."""
    return f'<p class="command mono">llmdoctor {_t(shlex.join(report.arguments)[:1000])}</p>' if report.arguments else ""


def _dated(style: Style) -> str:
    return f", {_t(style.date)}" if style.date else ""


def _body(report: Report, rules: Mapping[str, Rule], style: Style) -> list[str]:
    """Return the blocks in reading order, each finding as a card; boxes to filter by severity precede the first card."""
    out: list[str] = []
    boxes = _filter(report.findings)
    for number, block in enumerate(blocks(report)):
        if isinstance(block, Finding):
            out += [boxes, _card(block, report, rules.get(block.code), number)]
            boxes = ""
        else:
            out.append(_block(block, str(number), style))
    return out


def _block(block: Block, number: str, style: Style) -> str:
    if isinstance(block, Headline):
        return f'<h2 class="{block.tone}">{_t(block.text)}</h2>'
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Note):
        return _note(block)
    if isinstance(block, Code):
        return f'<div><span class="label">{_t(block.label)}</span><pre data-copy>{whole_options(text(clean_lines(block.text)))}</pre></div>'
    if isinstance(block, Grid) and sum(map(len, block.cells)) <= svg.MOST_CELLS:
        return svg.grid(block, number)
    if isinstance(block, Bars):
        return svg.bars(block)
    if isinstance(block, TokenStrip):
        return _strip(block)
    if isinstance(block, Fold) and not block.blocks:
        return ""
    if isinstance(block, Fold):
        inner = "".join(_block(one, f"{number}-{at}", style) for at, one in enumerate(block.blocks))
        return f'<details class="fold"{" open" if block.open else ""}><summary>{_t(block.label)}</summary>{inner}</details>'
    return _drawn(_in_words(block, style))


def _strip(strip: TokenStrip) -> str:
    """Return a text token by token: a token that stands out is underlined, and the pointer shows the words of each."""
    key = f'<p class="dim"><span class="token marked">{_t(strip.marked)}</span> <span class="token">{_t(strip.plain)}</span></p>'
    out = []
    for one in strip.tokens:
        shown = text(clean_lines(one.text).replace("\n", "\u21b5\n")) or "&#8203;"
        out.append(f'<span class="token{" marked" if one.marked else ""}"{attribute("title", clean(one.note))}>{shown}</span>')
    return f'{key}<p class="strip">{"".join(out)}</p>'


def _drawn(lines: str) -> str:
    """Return a drawing in characters, whose lines are never folded."""
    return f'<pre class="drawn" tabindex="0" role="region" aria-label="drawing">{text(clean_lines(lines))}</pre>'


def _in_words(block: Block, style: Style) -> str:
    """Return a block that this page has no drawing for as the terminal shows it, else its fields."""
    shown = screen.words((block,), style)
    if shown.strip() or not is_dataclass(block):
        return shown
    return "\n".join(f"{field.name}: {getattr(block, field.name)}" for field in fields(block))


def _note(note: Note) -> str:
    if not note.label.strip():
        return _drawn(note.text)
    return f'<div class="note"><b>{_t(note.label)}</b><p class="{note.tone}">{whole_options(text(clean_lines(note.text)))}</p></div>'


def _table(table: Table) -> str:
    """Return a table; it scrolls if it is too wide, and its rows become cards on a narrow screen if few columns hold long words."""
    head = "".join(f'<th scope="col">{_t(column)}</th>' for column in table.columns)
    rows = "".join(_row(row, table.columns) for row in table.rows)
    label = attribute("aria-label", clean(", ".join(filter(None, table.columns)) or "table"))
    least, many = _least(table), len(table.columns) > _MANY
    cards = 2 < len(table.columns) <= _CARDS and table.columns[0] and least > _NARROW
    shape = ' class="cards"' if cards else ' class="many"' if many else ""
    place = (
        f' tabindex="0" role="region"{label}' if not cards and (many or least > _FITS) else ""
    )  # a stop of the keyboard only where it scrolls
    top = f"<thead><tr>{head}</tr></thead>" if any(table.columns) else ""
    return f'<div class="scroll"{place}><table{shape}{label}>{top}<tbody>{rows}</tbody></table></div>'


def _least(table: Table) -> int:
    """Return the number of characters of a line that breaks no word."""
    longest = [0] * max((len(row) for row in table.rows), default=0)
    for row in table.rows:
        for at, cell in enumerate(row):
            value = cell if isinstance(cell, str) else cell.text
            longest[at] = max(longest[at], max(map(len, value.replace("_", "_ ").replace("/", "/ ").split()), default=0))
    return sum(longest)


def _row(row: tuple[str | Cell, ...], columns: tuple[str, ...]) -> str:
    first = row[0] if row else ""
    mark = f" class=mark-{first.tone}" if isinstance(first, Cell) and first.tone in ("bad", "warn", "good") else ""
    return f"<tr{mark}>{''.join(_cell(cell, at, columns) for at, cell in enumerate(row))}</tr>"


def _cell(cell: str | Cell, at: int, columns: tuple[str, ...]) -> str:
    value, tone = (cell, "plain") if isinstance(cell, str) else (cell.text, cell.tone)
    shown = breakable(text(clean_lines(value)))
    if at == 0:
        indent = " class=under" if value.startswith("  ") else ""
        return f'<th scope="row" class="{tone}"><span{indent}>{shown.strip()}</span></th>'
    name = attribute("data-column", clean(columns[at])) if at < len(columns) and columns[at] else ""
    short = " short" if len(value) <= _SHORT else " snug" if len(value) <= _SNUG else ""
    return f'<td class="{tone}{short}"{name}>{f"<span>{shown}</span>" if value else ""}</td>'


def _card(finding: Finding, report: Report, rule: Rule | None, number: int) -> str:
    """Return a finding: severity, code and the rule's name, the message, then At, Cause and Fix, and the explanation of the rule."""
    name = f' <span class="dim">{_t(rule.name)}</span>' if rule is not None else ""
    url = rule_url(finding.code) if rule is not None else None
    code = _t(finding.code) if url is None else f"<a{attribute('href', url)}>{_t(finding.code)}</a>"
    message = message_of(finding, report)
    file = clean((finding.location.file if finding.location is not None else None) or "")
    card = [
        f'<article class="finding {finding.severity.value}" id="block-{number}"{attribute("data-code", finding.code)}{attribute("data-file", file)}>'
        f'<h3><span class="badge">{_NAMES[finding.severity]}</span>{code}{name}</h3>',
        f"<p>{text(clean_lines(message))}</p>" if message else "",
    ]
    for label, words in parts(finding):
        mono = "" if label == "Cause" else ' class="mono" data-copy' if label == "Fix" else ' class="mono"'
        card.append(f'<div class="note"><b>{label}</b><p{mono}>{whole_options(text(clean_lines(words)))}</p></div>')
    if rule is not None:
        card.append(
            f"<details><summary>Why {_t(rule.code)} matters</summary><p>{text(clean_lines(rule.reason))}</p>"
            f'<span class="label">Bad</span><pre>{text(clean_lines(rule.bad))}</pre>'
            f'<span class="label">Good</span><pre>{text(clean_lines(rule.good))}</pre></details>'
        )
    return "".join(card) + "</article>"


def _filter(findings: tuple[Finding, ...]) -> str:
    """Return boxes that show and hide findings by severity, if there are several severities; the style sheet does it."""
    counts = [(severity, sum(one.severity is severity for one in findings)) for severity in reversed(Severity)]
    present = [(severity, count) for severity, count in counts if count]
    if len(present) < 2:
        return ""
    boxes = "".join(
        f'<label><input type="checkbox" id="show-{severity.value}" checked>{plural(count, _NAMES[severity])}</label>'
        for severity, count in present
    )
    return f"<fieldset><legend>Show</legend>{boxes}</fieldset>"


def _skipped(report: Report) -> str:
    if not report.skipped:
        return ""
    items = "".join(f"<li><code>{_t(one.what)}</code> {_t(one.reason)}</li>" for one in report.skipped)
    return f"<details><summary>{len(report.skipped)} skipped</summary><ul>{items}</ul></details>"


def _t(value: str) -> str:
    return text(clean(value))
