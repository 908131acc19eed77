"""A rule is declared once; its findings, its page, `llmdoctor rule CODE` and its SARIF entry all come from the declaration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Location, Severity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Rule:
    """What a rule looks for and why it matters.

    `severity` and `fix` are those of every finding of the rule, unless the function that makes the finding has a reason to differ. `since` is
    the first release of llmdoctor that has the rule; `fixable` states that `check --fix` can repair at least some of its findings.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    reason: str
    bad: str
    good: str
    fix: str
    since: str = "0.1.0"
    fixable: bool = False

    def at(
        self,
        location: Location | None,
        message: str,
        *,
        cause: str | None = None,
        fix: str | None = None,
        severity: Severity | None = None,
        edits: tuple[Edit, ...] = (),
        **evidence: Any,
    ) -> Finding:
        """Return the finding of this rule at `location`.

        `fix` and `severity` replace those of the rule if this finding needs others; keyword arguments that remain are the evidence.
        """
        return Finding(
            code=self.code,
            severity=severity or self.severity,
            message=message,
            location=location,
            evidence=evidence,
            cause=cause,
            fix=fix or self.fix,
            edits=edits,
        )


def declared(module: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules that a module has declared so far, in their order: `RULES = declared(globals())` at its end, so that none is forgotten."""
    return tuple(value for value in module.values() if isinstance(value, Rule))
