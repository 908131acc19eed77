"""JUnit XML as Jenkins and GitLab read it: a suite for each subject, a case for each finding.

Errors and warnings are failures, notes pass with their text. A subject without findings is one case that passes. The output is ASCII: text
that XML cannot hold is escaped, other text becomes character references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, clean_lines
from llmdoctor.report.layout import parts
from llmdoctor.report.markup import attribute, text
from llmdoctor.report.subjects import Group, groups

if TYPE_CHECKING:
    from llmdoctor.report import Style


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Suite:
    name: str
    cases: tuple[str, ...]
    failures: int = 0
    errors: int = 0
    skipped: int = 0


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return `report` as one `testsuites` element, ending in a line break."""
    suites = _suites(report)
    counts = _counts(sum(len(one.cases) for one in suites), sum(one.failures for one in suites), sum(one.errors for one in suites))
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites{attribute('name', clean(f'llmdoctor {report.command}'))}{counts}>"]
    for one in suites:
        head = attribute("name", clean(one.name) or "-") + _counts(len(one.cases), one.failures, one.errors)
        lines += [f"  <testsuite{head}{attribute('skipped', str(one.skipped))}>", _verdict(report), *one.cases, "  </testsuite>"]
    return "\n".join([*lines, "</testsuites>", ""])


def _verdict(report: Report) -> str:
    """Return the verdict and its status as properties of a suite."""
    verdict = report.verdict
    pairs = (("verdict", clean(verdict.text)), ("status", verdict.status))
    inside = "".join(f"<property{attribute('name', name)}{attribute('value', value)}/>" for name, value in pairs)
    return f"    <properties>{inside}</properties>"


def _counts(tests: int, failures: int, errors: int) -> str:
    return attribute("tests", str(tests)) + attribute("failures", str(failures)) + attribute("errors", str(errors))


def _suites(report: Report) -> list[_Suite]:
    verdict = report.verdict
    if report.error is not None or report.unanswered or verdict.status == "refused":
        kind = report.error.kind if report.error is not None else verdict.status
        case = _case(report.command, report.command, _element("error", kind, verdict.text, ""))
        unanswered = [_Suite(report.command, (case,), errors=1)]
        if report.error is not None:
            return unanswered
    else:
        unanswered = []
    suites = [_suite(report, group, verdict) for group in groups(report) if group.findings or not (report.nothing or unanswered)]
    suites = [*unanswered, *suites]
    if report.skipped:
        cases = tuple(_case(one.what, report.command, _element("skipped", "", one.reason, "")) for one in report.skipped)
        suites.append(_Suite("skipped", cases, skipped=len(cases)))
    return suites


def _suite(report: Report, group: Group, verdict: Verdict) -> _Suite:
    if not group.findings:
        return _Suite(group.path, (_case(report.command, group.path, _output(f"{verdict.status}: {verdict.text}")),))
    failures = sum(finding.severity is not Severity.INFO for finding in group.findings)
    return _Suite(group.path, tuple(_finding(finding, group.path) for finding in group.findings), failures)


def _finding(finding: Finding, subject: str) -> str:
    place = finding.location
    where = "" if place is None else f"{place.file}{place.pointer or ''}"
    lines = [f"{label}: {text}" for label, text in parts(finding)]
    if finding.severity is Severity.INFO:
        inside = _output("\n".join([finding.message, *lines]))
    else:
        inside = _element("failure", finding.severity.value, finding.message, "\n".join(lines))
    return _case(f"{finding.code} {where}".strip(), subject, inside)


def _case(name: str, subject: str, inside: str) -> str:
    return f"    <testcase{attribute('name', clean(name) or '-')}{attribute('classname', clean(subject))}>{inside}</testcase>"


def _element(name: str, type: str, message: str, content: str) -> str:
    kind = attribute("type", clean(type)) if type else ""
    return f"<{name}{kind}{attribute('message', clean(message))}>{text(clean_lines(content))}</{name}>"


def _output(content: str) -> str:
    return f"<system-out>{text(clean_lines(content))}</system-out>" if content else ""
