"""A rule is declared once; its page, `llmdoctor rule CODE` and its SARIF entry come from these words."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.core.diagnostic import Severity


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rule:
    """What a rule looks for and why it hurts.

    `severity` is what a finding of the rule is unless the rule's function has a reason, which it states, to report less.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    why: str
    bad: str
    good: str
    fix: str
