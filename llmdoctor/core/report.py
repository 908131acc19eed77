"""The one thing every command ends in: an answer with its findings, which a renderer turns into text or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmdoctor.core.document import Block, Headline, Tone
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
    """An answer: `result` is what programs read, `verdict` and `document` are what a person reads, `arguments` the words after `llmdoctor`.

    `differs` is true if two sides differ (exit 1), `nothing` if there was nothing to check (exit 3), `unanswered` if a number or a decision was asked
    and the verdict is only a bound or undecided (exit 2). A finding that stands as a block in `document` is shown
    there; every other finding is shown after it. `told` (being removed) hides those others.
    """

    command: str
    subject: Mapping[str, Any]
    result: Mapping[str, Any] | None = None
    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    document: tuple[Block, ...] = ()
    error: ReportError | None = None
    arguments: tuple[str, ...] = ()
    verdict: Verdict | None = None
    differs: bool = False
    nothing: bool = False
    unanswered: bool = False
    told: bool = False

    def worst(self) -> Severity | None:
        """Return the highest severity among the findings; None without any."""
        return max((finding.severity for finding in self.findings), key=lambda severity: severity.rank, default=None)

    def conclusion(self) -> Verdict:
        """Return the verdict; that of an error is its message. A report without either has its first headline (being removed)."""
        if self.verdict is not None:
            return self.verdict
        if self.error is not None:
            return Verdict(self.error.message, "refused")
        first = next((block for block in self.document if isinstance(block, Headline)), None)
        if first is None:
            return Verdict(f"llmdoctor {self.command}")
        return Verdict(first.text, "problem" if first.tone in ("bad", "warn") else "ok")
