"""What a command did with the settings it was given: no value that a file or an option sets is dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict


class IgnoredKey(TypedDict):
    """A key that cannot change the answer."""

    key: str
    reason: str


class AssumedValue(TypedDict):
    """A value that nothing sets, on which the answer depends."""

    what: str
    value: Any


class InputsResult(TypedDict):
    """`result.inputs` of every command that reads a configuration."""

    used: dict[str, Any]
    ignored: list[IgnoredKey]
    assumed: list[AssumedValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The settings of one answer.

    `used` maps each key that the answer depends on to its value, `ignored` each key without influence on this question to the reason,
    `assumed` what nothing sets to the value that was taken.
    """

    used: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)

    def result(self) -> InputsResult:
        """Return `result.inputs` for a program."""
        return {
            "used": dict(self.used),
            "ignored": [{"key": key, "reason": reason} for key, reason in self.ignored.items()],
            "assumed": [{"what": what, "value": value} for what, value in self.assumed.items()],
        }
