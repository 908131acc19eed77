"""One finding per line, as compilers write them, so that an editor or a CI runner finds the place: `path:line:column: CODE severity message`.

The last line is the verdict with its status. A line or column that is not known is 1, so that one pattern matches every finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import clean, defuse
from llmdoctor.report.subjects import placed

if TYPE_CHECKING:
    from llmdoctor.report import Style


def render(report: Report, _style: Style, _rules: Sequence[Rule] = ()) -> str:
    """Return `report` as one line per finding and a last line `llmdoctor: STATUS: verdict`."""
    lines = []
    for finding, file in placed(report):
        place = finding.location
        line = max(1, (place.line if place is not None else None) or 1)  # an editor counts from 1
        column = max(1, (place.column if place is not None else None) or 1)
        lines.append(f"{file or '-'}:{line}:{column}: {finding.code} {finding.severity.value} {finding.message}")
    verdict = report.verdict
    lines.append(f"llmdoctor: {verdict.status}: {verdict.text}")
    return defuse("".join(clean(line) + "\n" for line in lines))
