"""Renderers, one file a format. Each has `render(report, style) -> str` and knows no job.

A new format is a new file here and its name in FORMATS; nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.core.report import Report

FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Style:
    """How the output's receiver wants it: columns of the screen, and whether colour codes are understood."""

    width: int = 80
    color: bool = False


def render(report: Report, format: str, style: Style) -> str:
    """`report` in one of FORMATS, ending in a line break.

    Raises ValueError where the format is not one of them.
    """
    if format == "text":
        from llmdoctor.report import text

        return text.render(report, style)
    if format == "json":
        from llmdoctor.report import json

        return json.render(report, style)
    raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
