"""GitLab's Code Quality report: a JSON list; a finding keeps its fingerprint while lines above it come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.fingerprint import fingerprints
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean
from llmdoctor.report.json import dumps
from llmdoctor.report.layout import parts
from llmdoctor.report.subjects import placed

if TYPE_CHECKING:
    from llmdoctor.report import Style

_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "major", Severity.INFO: "info"}


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """`report`'s findings as a JSON list, ending in a line break; a question that could not be asked is one blocker in it."""
    found = placed(report)
    marks = fingerprints([finding for finding, _ in found])
    entries = [_entry(finding, file, mark) for (finding, file), mark in zip(found, marks, strict=True)]
    if report.error is not None:
        refused = Finding("not-asked", Severity.ERROR, report.error.message)
        entries.insert(0, {**_entry(refused, report.command, fingerprints([refused])[0]), "severity": "blocker"})
    return dumps(entries)


def _entry(finding: Finding, file: str, mark: str) -> dict[str, Any]:
    line = finding.location.line if finding.location is not None else None
    lines = [finding.message, *(f"{label}: {text}" for label, text in parts(finding, place=False))]
    return {
        "description": clean(" | ".join(lines)),
        "check_name": clean(finding.code),
        "fingerprint": mark,
        "severity": _SEVERITIES[finding.severity],
        "location": {"path": clean(file).removeprefix("./"), "lines": {"begin": max(line or 1, 1)}},
    }
