"""Which rules a command reports: `--select` and `--ignore`, the same in every command that has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmdoctor.core.finding import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Prefixes of rule codes: `select` are those to report, all if it is empty; `ignore` are those to leave out, which takes precedence."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def wants(self, code: str) -> bool:
        """Return whether findings of the rule `code` are reported."""
        return (not self.select or code.startswith(self.select)) and not (self.ignore and code.startswith(self.ignore))

    def keep(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Return the findings whose rules are reported."""
        return tuple(finding for finding in findings if self.wants(finding.code))
