"""An object of settings inside a file, and findings with its place in the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.rule import Rule
from llmdoctor.files.jsonfile import JsonFile


@dataclass(frozen=True, slots=True)
class Config:
    """An object of settings; `at` is its JSON pointer inside the file, "" for the whole file."""

    file: JsonFile
    value: Mapping[str, Any]
    at: str = ""

    def section(self, *keys: str) -> Config | None:
        """Return the object at `keys`; None if there is no object."""
        found: Any = self.value
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return Config(self.file, found, self._pointer(keys)) if isinstance(found, Mapping) else None

    def get(self, *keys: str) -> Any:
        """Return the value at `keys`; None if it is missing."""
        section = self.section(*keys[:-1])
        return None if section is None else section.value.get(keys[-1])

    def line(self, *keys: str) -> int | None:
        """Return the line of the setting, from 1; None if it is missing."""
        return self.file.line(self._pointer(keys))

    def edit(self, *keys: str, action: Literal["set", "remove", "last"] = "set", value: Any = None, safe: bool = False) -> tuple[Edit, ...]:
        """Return the edit that corrects the setting `keys`; nothing for a file of another format than JSON."""
        if not self.file.path.endswith(".json"):
            return ()
        return (Edit(self.file.shown_name, self._pointer(keys), action, value, safe),)

    def found(
        self,
        rule: Rule,
        message: str,
        *keys: str,
        cause: str | None = None,
        fix: str | None = None,
        severity: Severity | None = None,
        edits: tuple[Edit, ...] = (),
        **evidence: Any,
    ) -> Finding:
        """Return a finding of `rule` at the setting `keys`."""
        pointer = self._pointer(keys)
        where = Location(self.file.shown_name, pointer or None, self.file.line(pointer))
        return rule.at(where, message, cause=cause, fix=fix, severity=severity, edits=edits, **evidence)

    def _pointer(self, keys: Iterable[str]) -> str:
        return self.at + "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in keys)


def autos(value: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the places whose value is "auto"."""
    for key, item in value.items():
        if item == "auto":
            yield (*at, key)
        elif isinstance(item, Mapping):
            yield from autos(item, (*at, key))


def meant(name: str, known: Iterable[str]) -> str:
    """Return ` (is "x" meant?)` if a known name is close, else an empty text."""
    close = difflib.get_close_matches(name, list(known), 1, 0.8)
    return f' (is "{close[0]}" meant?)' if close else ""


def is_on(value: Any) -> bool:
    """Return whether pydantic reads `value` as true."""
    return value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "yes", "on", "1", "t", "y"))


def is_off(value: Any) -> bool:
    """Return whether pydantic reads `value` as false."""
    return (
        value is False
        or (value == 0 and value is not None)
        or (isinstance(value, str) and value.lower() in ("false", "no", "off", "0", "f", "n"))
    )


def stage_of(zero: Config) -> int | None:
    """Return the ZeRO stage; None if the value is not a stage, or is "auto"."""
    stage = zero.value.get("stage", 0)
    return int(stage) if isinstance(stage, int | str) and not isinstance(stage, bool) and str(stage) in ("0", "1", "2", "3") else None


def offloads(zero: Config | None, name: str) -> bool:
    """Return whether something is offloaded, also by the deprecated names."""
    old = {"offload_optimizer": "cpu_offload", "offload_param": "cpu_offload_param"}[name]
    return zero is not None and (zero.get(name, "device") in ("cpu", "nvme") or is_on(zero.value.get(old)))
