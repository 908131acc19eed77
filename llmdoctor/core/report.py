"""A report: the answer of a command with its findings, which a renderer turns into text, JSON or another format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmdoctor.core.document import Block, Tone
from llmdoctor.core.finding import Finding, Severity

SCHEMA = "llmdoctor.report/1"
Status = Literal["ok", "problem", "bound", "undecided", "refused"]
TONES: dict[Status, Tone] = {"ok": "good", "problem": "bad", "bound": "warn", "undecided": "warn", "refused": "bad"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in one sentence that carries its limits.

    `status` is "ok", "problem" (something is wrong), "bound" (a limit of a number, not the number), "undecided" (the data cannot
    separate two readings) or "refused" (the question could not be answered).
    """

    text: str
    status: Status = "ok"

    @property
    def tone(self) -> Tone:
        """The tone in which a screen shows the sentence."""
        return TONES[self.status]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Skipped:
    """Something that was not examined, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReportError:
    """The reason for a refusal: the kind of error and one sentence."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """An answer: `verdict` is the first line, `result` what programs read, `document` the rest of what a person reads.

    `differs` is true if two sides differ (exit 1), `nothing` if there was nothing to check (exit 3), `unanswered` if a number or a decision was asked
    and the verdict is only a bound or undecided (exit 2). A finding that is a block of `document` is shown there; the other findings are shown
    after it. `arguments` are the words after `llmdoctor`; `error` is set by `refusal` alone.
    """

    command: str
    subject: Mapping[str, Any]
    result: Mapping[str, Any] | None = None
    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    document: tuple[Block, ...] = ()
    error: ReportError | None = None
    arguments: tuple[str, ...] = ()
    verdict: Verdict = field(kw_only=True)
    differs: bool = False
    nothing: bool = False
    unanswered: bool = False

    def worst(self) -> Severity | None:
        """Return the highest severity among the findings; None without any."""
        return max((finding.severity for finding in self.findings), key=lambda severity: severity.rank, default=None)


def refusal(command: str, error: ReportError, subject: Mapping[str, Any] | None = None, result: Mapping[str, Any] | None = None) -> Report:
    """Return the report of a question that could not be answered: its verdict is the error's sentence.

    `result` holds `inputs` alone, if settings were read before the refusal.
    """
    return Report(command, subject or {}, result, error=error, verdict=Verdict(error.message, "refused"))
