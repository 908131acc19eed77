"""A change to a JSON file that removes a finding, as data; files/ applies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Edit:
    """Set the member at `pointer` (RFC 6901) of the JSON file `file` to `value`, remove it, or remove its earlier duplicates ("last").

    `file` is the path of a Location. An edit is `safe` if every program that read the file correctly before still does; an edit that changes a
    behaviour on which a user may rely is not safe, even if that behaviour looks like a mistake.
    """

    file: str
    pointer: str
    action: Literal["set", "remove", "last"] = "set"
    value: Any = None
    safe: bool = False
