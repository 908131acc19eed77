"""Workflow commands for GitHub's runner: an annotation for each finding.

The runner (ActionCommand.cs) reads a line that starts with `::` as a command, and `##[` anywhere in a line. It decodes %25, %0D and %0A in a
message, and also %3A and %2C in a property; text that is not encoded could end the message and start another command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines, defuse
from llmdoctor.report.layout import parts
from llmdoctor.report.subjects import placed

if TYPE_CHECKING:
    from llmdoctor.report import Style

_SKIPPED = 20  # lines of the log
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return a command for each finding, then the verdict and its status as a line of the log."""
    lines = []
    if report.error is not None:
        lines.append(_command("error", {"title": "llmdoctor refused"}, report.error.message))
    lines += [_annotation(finding, file) for finding, file in placed(report)]
    if report.error is None:
        verdict = report.verdict
        lines.append(defuse(f"llmdoctor: {verdict.status}: {clean(verdict.text)}"))
    lines += [defuse(f"llmdoctor: skipped {clean(one.what)}: {clean(one.reason)}") for one in report.skipped[:_SKIPPED]]
    if len(report.skipped) > _SKIPPED:
        lines.append(f"llmdoctor: {len(report.skipped) - _SKIPPED} more skipped")
    return "".join(line + "\n" for line in lines)


def _annotation(finding: Finding, file: str) -> str:
    place = finding.location
    properties = {"title": f"llmdoctor {finding.code}", "file": file}
    if place is not None and place.line is not None and place.line > 0:
        properties["line"] = str(place.line)
        if place.column is not None and place.column > 0:
            properties["col"] = str(place.column)
    lines = [finding.message, *(f"{label}: {text}" for label, text in parts(finding, place=False))]
    return _command(_COMMANDS[finding.severity], properties, "\n".join(lines))


def _command(name: str, properties: dict[str, str], message: str) -> str:
    said = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {said}::{_data(message)}"


def _data(text: str) -> str:
    """Return `text` as a message: cleaned, with its line breaks. `%` is encoded first, or the other escapes would be encoded again."""
    return clean_lines(text).replace("##[", "# #[").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(clean(text)).replace(":", "%3A").replace(",", "%2C")
