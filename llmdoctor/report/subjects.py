"""Which finding belongs to which subject: what the formats that group or place findings share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Group:
    """A subject's path, its kind ("" where it has none) and its findings."""

    path: str
    kind: str
    findings: tuple[Finding, ...]


def groups(report: Report) -> tuple[Group, ...]:
    """Return the subjects of `report` in order, then the findings that belong to no subject; a report without `result.subjects` is one subject."""
    out: list[Group] = []
    listed: set[int] = set()
    for entry in _subjects(report):
        indices = [index for index in _list(entry.get("findings")) if isinstance(index, int) and 0 <= index < len(report.findings)]
        out.append(Group(str(entry.get("path", "")), str(entry.get("kind", "")), tuple(report.findings[index] for index in indices)))
        listed.update(indices)
    rest = tuple(finding for index, finding in enumerate(report.findings) if index not in listed)
    if rest or not out:
        out.append(Group(subject_path(report), "", rest))
    return tuple(out)


def placed(report: Report) -> tuple[tuple[Finding, str], ...]:
    """Return every finding with the file that it is shown at: its own, else the path of its subject."""
    return tuple(
        (finding, finding.location.file if finding.location is not None and finding.location.file else group.path or report.command)
        for group in groups(report)
        for finding in group.findings
    )


def subject_path(report: Report) -> str:
    """Return the path that the question was about, else the command."""
    for name in ("path", "model", "file", "left"):
        value = report.subject.get(name)
        if isinstance(value, str) and value:
            return value
    return report.command


def _subjects(report: Report) -> list[Mapping[str, object]]:
    subjects = (report.result or {}).get("subjects")
    return [entry for entry in _list(subjects) if isinstance(entry, Mapping)]


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
