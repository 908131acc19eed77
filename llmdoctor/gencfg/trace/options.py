"""What the user asks of `gencfg trace`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """A trace to report on: `path` is the JSON lines file that a traced command, `recording()` or `TraceCallback` has written."""

    path: str
