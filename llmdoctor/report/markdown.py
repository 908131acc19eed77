"""Markdown for a comment on a pull request: the findings first, the evidence folded, within the size that GitHub accepts (65,536).

No text of data is markup: punctuation is escaped, and a word that the site would interpret (a mention, a reference to an issue, an address,
an emoji, a formula) is shown as code, in which the site interprets nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llmdoctor.core.document import Block, Cell, Code, Headline, Note, Table
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines, defuse, plural
from llmdoctor.report.flat import flat
from llmdoctor.report.layout import blocks, message_of, parts, sentence
from llmdoctor.report.subjects import Group, groups

if TYPE_CHECKING:
    from llmdoctor.report import Style

MARK = "<!-- llmdoctor -->"  # a bot finds its comment by it
LIMIT = 60_000  # bytes of UTF-8, so under 65,536 however the site counts
LONGEST, ROWS = 1_500, 60  # characters of one text, rows of one table
_PUNCTUATION = re.compile(r"[\\`*_{}\[\]<>#~!^]")
_ALIVE = re.compile(r"@|#\d|\$|://|www\.|:[\w+-]+:|\bGH-\d|\b[0-9a-f]{7,40}\b", re.IGNORECASE)
_LIST = re.compile(r"^(\d*)([-+=.)])")  # what would make a list or a heading of the text's first word
_ICONS = {Severity.ERROR: "🔴", Severity.WARNING: "🟡", Severity.INFO: "🔵"}
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return `report` as at most LIMIT bytes, ending in a line break; findings that are left out are counted."""
    items = [_finding(finding, report) for finding in sorted(report.findings, key=lambda one: -one.severity.rank)]
    head = [MARK, f"### llmdoctor {inline(report.command)}"]
    if report.error is not None:
        head.append(f"**refused** {inline(report.error.message)}")
    else:
        head.append(f"**{inline(report.verdict.status)}** {inline(sentence(report))}")
    if report.findings:
        head.append(_overview(groups(report)))
    evidence = [_block(block) for block in flat(blocks(report)) if not isinstance(block, Finding)]
    skipped = [f"- skipped {inline(one.what)}: {inline(one.reason)}" for one in report.skipped]
    kept, left = _fit([*head, *items], LIMIT)
    kept += _folded("Evidence", evidence, LIMIT - _size(kept))
    kept += _folded(plural(len(skipped), "path") + " skipped", skipped, LIMIT - _size(kept))
    if left:
        kept.append(f"{plural(left, 'finding')} more: this comment is full, `--format json` has them all")
    return defuse("\n\n".join(kept) + "\n")


def inline(value: str) -> str:
    """Return `value` for one line of prose or one cell of a table, without markup; a text that is too long is cut and ends in [...]."""
    text = clean(value[:LONGEST]) + (" [...]" if len(value) > LONGEST else "")
    return _LIST.sub(r"\1\\\2", " ".join(_word(word) for word in text.split()))


def _word(word: str) -> str:
    if _ALIVE.search(word):
        return code(word)
    return _PUNCTUATION.sub(r"\\\g<0>", word.replace("&", "&amp;")).replace("|", "&#124;")


def code(value: str) -> str:
    """Return `value` as code made of character references: neither the bars of a table nor backticks can end it."""
    safe = "".join(one if one.isalnum() or one in " ./,-" else f"&#{ord(one)};" for one in clean(value[:LONGEST]))
    return f"<code>{safe.replace('www.', 'www&#46;')}</code>"


def fenced(value: str) -> str:
    """Return `value` as a block of code, whose fence is longer than any in it."""
    text = clean_lines(value[: 8 * LONGEST])
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _overview(found: tuple[Group, ...]) -> str:
    """Return the number of findings per subject and severity as a table, the worst subject first."""
    worst = sorted(found, key=lambda group: [-sum(one.severity is severity for one in group.findings) for severity in _ORDER])
    rows = [
        (code(group.path), *(str(sum(one.severity is severity for one in group.findings)) for severity in _ORDER)) for group in worst[:ROWS]
    ]
    if len(worst) > ROWS:
        rows.append((f"{len(worst) - ROWS} more", "", "", ""))
    return _rows(("", "errors", "warnings", "notes"), rows)


def _finding(finding: Finding, report: Report) -> str:
    """Return a list item: severity, code and message, and below them At, Cause and Fix."""
    head = f"- {_ICONS[finding.severity]} **{inline(finding.severity.value)} {inline(finding.code)}** {inline(message_of(finding, report))}"
    lines = [head.rstrip()]
    for label, text in parts(finding):
        if label == "Fix":
            lines.append("  <br>**Fix**\n\n" + "\n".join("  " + line for line in fenced(text).split("\n")))
        else:
            lines.append(f"  <br>**{label}** {code(text) if label == 'At' else inline(text)}")
    return "\n".join(lines)


def _block(block: Block) -> str:
    if isinstance(block, Headline):
        return f"**{inline(block.text)}**" if block.text.strip() else ""
    if isinstance(block, Note):
        label = f"**{inline(block.label)}** " if block.label.strip() else ""
        return label + ("\n\n" + fenced(block.text) if _drawn(block) else "<br>".join(inline(line) for line in block.text.split("\n")))
    if isinstance(block, Code):
        return (f"**{inline(block.label)}**\n\n" if block.label.strip() else "") + fenced(block.text)
    if isinstance(block, Table):
        rows = [tuple(inline(cell.text if isinstance(cell, Cell) else cell) for cell in row) for row in block.rows[:ROWS]]
        more = f"\n\n{len(block.rows) - ROWS:,} more rows" if len(block.rows) > ROWS else ""
        return _rows(tuple(inline(column) for column in block.columns), rows) + more
    return ""


def _drawn(note: Note) -> bool:
    """Return whether a note is a drawing: several lines without a label."""
    return not note.label and "\n" in note.text


def _rows(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _folded(title: str, items: list[str], room: int) -> list[str]:
    kept, left = _fit([item for item in items if item], room - 200)
    more = [f"{left} more, left out here"] if left else []
    return [f"<details><summary>{title}</summary>", *kept, *more, "</details>"] if kept or left else []


def _fit(items: list[str], room: int) -> tuple[list[str], int]:
    """Return the leading items that fit into `room` bytes, and the number of the others."""
    kept: list[str] = []
    for number, item in enumerate(items):
        room -= _size([item])
        if room < 0:
            return kept, len(items) - number
        kept.append(item)
    return kept, 0


def _size(items: list[str]) -> int:
    return sum(len(item.encode("utf-8")) + 2 for item in items)
