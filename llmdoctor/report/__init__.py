"""Renderers, one file per format. Each has `render(report, style, rules) -> str` and knows no job.

A new format is a new file here and its name in FORMATS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from llmdoctor.core.finding import Severity
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule

FORMATS = ("text", "concise", "json", "sarif", "junit", "github", "gitlab", "markdown", "html")
FOR_PEOPLE = ("text", "concise", "github", "markdown", "html")  # the formats that --show and --statistics change
WITH_RULES = ("sarif", "html")  # the formats that explain a rule: the caller passes all rules


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Style:
    """What the output is written to: columns of the screen, whether it shows colour codes, and whether it is a terminal.

    A very long cell is shortened only on a `terminal`. The formats that a person reads leave out findings below the severity `show`, and with
    `statistics` all of them: a table of the rules takes their place. `date` is printed on a page.
    """

    width: int = 80
    color: bool = False
    terminal: bool = False
    show: Severity = Severity.INFO
    statistics: bool = False
    date: str = ""


def visible(report: Report, style: Style) -> Report:
    """Return `report` with the findings that `style` shows; a note or a table replaces the others."""
    if style.show is Severity.INFO and not style.statistics:
        return report
    from llmdoctor.report.shown import reduced

    return reduced(report, style.show, style.statistics)


def render(report: Report, format: str, style: Style, rules: Sequence[Rule] = ()) -> str:
    """Return `report` in one of FORMATS, ending in a line break; `rules` is the catalogue for the formats in WITH_RULES.

    Raises ValueError if `format` is not one of FORMATS.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    if format in FOR_PEOPLE:
        report = visible(report, style)
    text: str = import_module(f"llmdoctor.report.{format}").render(report, style, rules)
    return text
