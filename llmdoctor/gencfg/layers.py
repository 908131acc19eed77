"""A configuration under construction: values that remember where they came from and what they replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.gencfg.types import ConfigLayer, Origin, Resolved, SourcedValue


class Fields(dict[str, Resolved]):
    """GenerationConfig's attributes by name, each with its origin."""

    def put(self, name: str, setting: SourcedValue) -> None:
        """Assign: the value that was there becomes the first of what was overridden; a library default is not kept."""
        before = self.get(name)
        replaced: tuple[SourcedValue, ...] = ()
        if before is not None:
            replaced = before.overrides
            if before.origin.layer != "library-default":
                replaced = (SourcedValue(before.value, before.origin), *replaced)
        self[name] = Resolved(setting.value, setting.origin, replaced)

    def put_all(self, settings: Mapping[str, SourcedValue]) -> None:
        """Assign every setting, in order."""
        for name, setting in settings.items():
            self.put(name, setting)

    def inherit(self, name: str, other: Resolved) -> None:
        """Take over another configuration's value with its history; this one's own value becomes part of it."""
        before = self.get(name)
        replaced = other.overrides
        if before is not None and before.origin.layer != "library-default" and before.origin != other.origin:
            replaced = (SourcedValue(before.value, before.origin), *replaced)
        self[name] = Resolved(other.value, other.origin, replaced)

    def value(self, name: str) -> Any:
        """Return the value of a field; None without such a field."""
        found = self.get(name)
        return None if found is None else found.value

    def copied(self) -> Fields:
        """Return a copy that can be changed on its own."""
        return Fields(self)


def bare(defaults: Mapping[str, Any], version: str, layer: ConfigLayer = "library-default") -> Fields:
    """Return the fields of GenerationConfig() in a version."""
    origin = Origin(layer, f"transformers {version}")
    return Fields({name: Resolved(value, origin) for name, value in defaults.items()})


def derived(value: Any, source: str) -> SourcedValue:
    """Return a value that generate() computed itself."""
    return SourcedValue(value, Origin("derived", source))
