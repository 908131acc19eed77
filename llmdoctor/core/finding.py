"""A finding: which rule, how severe, where, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from llmdoctor.core.edit import Edit


class Severity(str, Enum):
    """How severe a finding is; ordered by :attr:`rank`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return ("info", "warning", "error").index(self.value)


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file.

    `file` is the path as the user would type it, `pointer` a JSON pointer (RFC 6901), `line` and `column` count from 1.
    """

    file: str
    pointer: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of one rule; made by `Rule.at`.

    `cause` names what produced the finding, `fix` is text to paste, `edits` are the changes to JSON files that would remove it.
    A finding is also a block of a document: each renderer lays it out in its own way.
    """

    code: str
    severity: Severity
    message: str
    location: Location | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    cause: str | None = None
    fix: str | None = None
    edits: tuple[Edit, ...] = ()
