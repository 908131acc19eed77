"""A change to a JSON file that mends a finding, as data: who makes it is another matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Edit:
    """In the JSON file `file` the member at `pointer` (RFC 6901) gets `value`, goes, or loses its earlier duplicates ("last").

    `file` is as a Location has it. `safe` says that no program that reads the file and did right before does wrong afterwards; what changes a
    behaviour that somebody may rely on is not safe, however much it looks like a mistake.
    """

    file: str
    pointer: str
    action: Literal["set", "remove", "last"] = "set"
    value: Any = None
    safe: bool = False
