"""Attributes that are replaced for a time, and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

_ABSENT = object()


@dataclass(slots=True, eq=False)
class _Layer:
    """One replacement of an attribute, over what was there `before`; no longer `wanted` after its undo()."""

    owner: Any
    before: Any
    wanted: bool = True


class Patches:
    """Replacements of class and module attributes, undone to exactly what was there.

    Several may lie over one attribute and end in any order: one that ends below another is taken away with that one.
    """

    _over: ClassVar[dict[tuple[int, str], list[_Layer]]] = {}

    def __init__(self) -> None:
        self._mine: list[tuple[tuple[int, str], _Layer]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace `owner.name`; an attribute that `owner` only inherits is inherited again after undo()."""
        layer = _Layer(owner, vars(owner).get(name, _ABSENT))
        self._over.setdefault((id(owner), name), []).append(layer)
        self._mine.append(((id(owner), name), layer))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back. May be called twice."""
        while self._mine:
            key, layer = self._mine.pop()
            layer.wanted = False
            layers = self._over[key]
            while layers and not layers[-1].wanted:
                top = layers.pop()
                if top.before is _ABSENT:
                    delattr(top.owner, key[1])
                else:
                    setattr(top.owner, key[1], top.before)
            if not layers:
                del self._over[key]
