"""Renderers, one file a format. Each has `render(report, style, rules) -> str` and knows no job.

A new format is a new file here and its name in FORMATS; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule

FORMATS = ("text", "json", "sarif", "junit", "github", "gitlab", "markdown", "html")
WITH_RULES = ("sarif", "html")  # the formats that say what a rule is: whoever calls has the catalogue


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Style:
    """How the output's receiver wants it: columns of the screen, whether colour codes are understood, and whether a person looks at it now.

    Only on a `terminal` is a very long cell cut.
    """

    width: int = 80
    color: bool = False
    terminal: bool = False


def render(report: Report, format: str, style: Style, rules: Sequence[Rule] = ()) -> str:
    """`report` in one of FORMATS, ending in a line break; `rules` is the catalogue for those WITH_RULES.

    Raises ValueError where the format is not one of them.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    text: str = import_module(f"llmdoctor.report.{format}").render(report, style, rules)
    return text
