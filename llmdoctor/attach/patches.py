"""Attributes that are replaced for a time, and put back."""

from __future__ import annotations

from typing import Any

_ABSENT = object()


class Patches:
    """Replacements of class and module attributes, undone in reverse order to exactly what was there."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace `owner.name`; an attribute that `owner` only inherits is inherited again after undo()."""
        self._before.append((owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back. May be called twice."""
        while self._before:
            owner, name, value = self._before.pop()
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
