"""The one thing every command ends in: an answer with its findings, which a renderer turns into text or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.diagnostic import Diagnostic, Severity
from llmdoctor.core.document import Block

SCHEMA = "llmdoctor.report/1"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Skipped:
    """Something that was not looked at, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReportError:
    """Why there is no answer: the kind of error and one sentence."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """An answer: `result` is what programs read, `document` what a person reads.

    `differs` says that two sides differ, `nothing` that there was nothing to check, `told` that the document already tells the findings.
    """

    command: str
    subject: Mapping[str, Any]
    result: Mapping[str, Any] | None = None
    findings: tuple[Diagnostic, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    document: tuple[Block, ...] = ()
    error: ReportError | None = None
    differs: bool = False
    nothing: bool = False
    told: bool = False

    def worst(self) -> Severity | None:
        """The highest severity among the findings; None without any."""
        return max((finding.severity for finding in self.findings), key=lambda severity: severity.rank, default=None)
