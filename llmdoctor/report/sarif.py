"""SARIF 2.1.0, for code scanning: the rules that were found with their help, every finding with its place and fingerprint.

Files are percent-encoded relative references, so that a path cannot be another kind of address. Strings are cleaned, because viewers show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.fingerprint import fingerprints
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines, plain
from llmdoctor.report.json import dumps
from llmdoctor.report.layout import parts
from llmdoctor.report.subjects import placed
from llmdoctor.version import __version__, rule_url

if TYPE_CHECKING:
    from llmdoctor.report import Style

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def render(report: Report, _style: Style, rules: Sequence[Rule]) -> str:
    """Return `report` as one SARIF log of one run, ending in a line break."""
    found = placed(report)
    known = {rule.code: rule for rule in rules}
    codes = list(dict.fromkeys(finding.code for finding, _ in found))
    described = [_rule(known[code]) if code in known else {"id": clean(code)} for code in codes]
    index = {code: number for number, code in enumerate(codes)}
    marks = fingerprints([finding for finding, _ in found])
    run = {
        "tool": {"driver": {"name": "llmdoctor", "version": __version__, "rules": described}},
        "invocations": [_invocation(report)],
        "results": [_result(finding, file, index[finding.code], mark) for (finding, file), mark in zip(found, marks, strict=True)],
    }
    return dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    text = f"{rule.reason}\n\nBad:\n{rule.bad}\n\nGood:\n{rule.good}\n\nFix: {rule.fix}"
    markdown = f"{rule.reason}\n\n**Bad**\n\n{_fenced(rule.bad)}\n\n**Good**\n\n{_fenced(rule.good)}\n\n**Fix**\n\n{rule.fix}"
    url = rule_url(rule.code)
    return {
        "id": rule.code,
        **({"helpUri": url} if url is not None else {}),
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.reason},
        "help": {"text": text, "markdown": markdown},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"


def _result(finding: Finding, file: str, rule: int, mark: str) -> dict[str, Any]:
    lines = [finding.message, *(f"{label}: {text}" for label, text in parts(finding, place=False))]
    return {
        "ruleId": clean(finding.code),
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": clean_lines("\n".join(lines)) or "(no message)"},
        "locations": [_location(finding, file)],
        "partialFingerprints": {"llmdoctor/v1": mark},
        "properties": {"evidence": plain(finding.evidence), "cause": finding.cause, "fix": finding.fix},
    }


def _location(finding: Finding, file: str) -> dict[str, Any]:
    place = finding.location
    physical: dict[str, Any] = {"artifactLocation": {"uri": uri(file)}}
    if place is not None and place.line is not None and place.line > 0:
        physical["region"] = {"startLine": place.line}
        if place.column is not None and place.column > 0:
            physical["region"]["startColumn"] = place.column
    location: dict[str, Any] = {"physicalLocation": physical}
    if place is not None and place.pointer:
        location["logicalLocations"] = [{"fullyQualifiedName": clean(place.pointer), "kind": "property"}]
    return location


def uri(file: str) -> str:
    """Return a path as a relative reference, or as a file: address if it is absolute; bytes that are not UTF-8 are escaped."""
    path = quote(file, safe="/", errors="backslashreplace")
    return f"file:///{path.lstrip('/')}" if path.startswith("/") else path


def _invocation(report: Report) -> dict[str, Any]:
    """Return how the run went, with the verdict: a refusal is an error of the run, what was skipped a note."""
    notes = [{"level": "note", "message": {"text": clean(f"skipped {one.what}: {one.reason}")}} for one in report.skipped]
    if report.error is not None:
        notes.insert(0, {"level": "error", "message": {"text": clean(report.error.message) or "(no message)"}})
    verdict = report.verdict
    return {
        "executionSuccessful": verdict.status != "refused",
        "toolExecutionNotifications": notes,
        "properties": {"verdict": {"text": clean(verdict.text), "status": verdict.status}},
    }
