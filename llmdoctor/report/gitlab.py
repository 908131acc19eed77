"""GitLab's Code Quality report: a JSON list; a finding keeps its fingerprint while lines above it change."""

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
from llmdoctor.report.subjects import placed, subject_path

if TYPE_CHECKING:
    from llmdoctor.report import Style

_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "major", Severity.INFO: "info"}


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return the findings of `report` as a JSON list, ending in a line break.

    The format has no place for a verdict. A bound, an undecided verdict or a refusal is a separate entry, a blocker if the question is unanswered.
    """
    found = placed(report)
    marks = fingerprints([finding for finding, _ in found])
    entries = [_entry(finding, file, mark) for (finding, file), mark in zip(found, marks, strict=True)]
    verdict = report.verdict
    if verdict.status not in ("ok", "problem"):
        answer = Finding(f"verdict-{verdict.status}", Severity.INFO, verdict.text)
        entry = _entry(answer, subject_path(report), fingerprints([answer])[0])
        entries.insert(0, {**entry, "severity": "blocker" if verdict.status == "refused" or report.unanswered else "info"})
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
