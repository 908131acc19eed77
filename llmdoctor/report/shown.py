"""A report with fewer findings on the screen: --show and --statistics. The verdict, which counts all of them, stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.core.document import Block, Note, Table
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report
from llmdoctor.core.text import plural


def reduced(report: Report, show: Severity, statistics: bool) -> Report:
    """Return `report` with the findings from severity `show` on; with `statistics` a table of the rules takes their place."""
    chosen = [finding for finding in report.findings if finding.severity.rank >= show.rank]
    kept = [] if statistics else chosen
    ids = {id(finding) for finding in kept}
    table = [_table(chosen)] if statistics and chosen else []
    first = next((at for at, block in enumerate(report.document) if isinstance(block, Finding)), len(report.document))
    placed = (*report.document[:first], *table, *report.document[first:])
    document: list[Block] = [block for block in placed if not isinstance(block, Finding) or id(block) in ids]
    left = len(report.findings) - len(chosen)
    if left:
        below = " and ".join(severity.value for severity in Severity if severity.rank < show.rank)
        document.append(Note("Not shown", f"{plural(left, 'finding')} of severity {below}: --show info shows them", "dim"))
    return replace(report, findings=tuple(kept), document=tuple(document), result=_reindexed(report, ids))


def _table(findings: list[Finding]) -> Table:
    """Return the number of findings per rule, the most frequent first."""
    counts = Counter((finding.code, finding.severity) for finding in findings)
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0][0]))
    return Table(("Findings", "Severity", "Code"), tuple((f"{count:,}", severity.value, code) for (code, severity), count in ordered))


def _reindexed(report: Report, kept: set[int]) -> Mapping[str, Any] | None:
    """Return the result with `subjects` that refer to the findings that are kept."""
    subjects = (report.result or {}).get("subjects")
    if report.result is None or not isinstance(subjects, list):
        return report.result
    places = {index: place for place, index in enumerate(at for at, finding in enumerate(report.findings) if id(finding) in kept)}
    return {
        **report.result,
        "subjects": [{**entry, "findings": [places[at] for at in entry.get("findings", []) if at in places]} for entry in subjects],
    }
