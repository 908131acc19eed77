"""JSON by the published schema (llmdoctor/schema/report.schema.json): in ASCII, so that it cannot control a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmdoctor.core.finding import Finding
from llmdoctor.core.report import SCHEMA, Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import plain
from llmdoctor.version import __version__

if TYPE_CHECKING:
    from llmdoctor.report import Style


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return `report` as one JSON object, indented by two, ending in a line break."""
    return dumps(to_json(report))


def dumps(value: Any) -> str:
    """Return `value`, which holds JSON values, as ASCII lines indented by two."""
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    return text.replace("##[", "#\\u0023[")  # a CI runner finds its commands anywhere in a line; the value stays the same


def to_json(report: Report) -> dict[str, Any]:
    """Return `report` as JSON values."""
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": {"name": "llmdoctor", "version": __version__},
        "command": report.command,
        "arguments": list(report.arguments),
        "subject": plain(report.subject),
        "verdict": {"text": report.verdict.text, "status": report.verdict.status},
        "result": plain(report.result),
        "findings": [_finding(finding) for finding in report.findings],
        "skipped": [{"what": skipped.what, "reason": skipped.reason} for skipped in report.skipped],
    }
    if report.error is not None:
        out["error"] = {"kind": report.error.kind, "message": report.error.message}
    return out


def _finding(finding: Finding) -> dict[str, Any]:
    place = finding.location
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "location": None if place is None else {"file": place.file, "pointer": place.pointer, "line": place.line, "column": place.column},
        "evidence": plain(finding.evidence),
        "cause": finding.cause,
        "fix": finding.fix,
    }
