"""A configuration in a file, and findings that say where in it."""

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
    """An object of settings; `at` is the JSON pointer of it inside its file, "" where it is the whole."""

    file: JsonFile
    value: Mapping[str, Any]
    at: str = ""

    def section(self, *keys: str) -> Config | None:
        """The object at `keys`; None where there is none."""
        found: Any = self.value
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return Config(self.file, found, self._pointer(keys)) if isinstance(found, Mapping) else None

    def get(self, *keys: str) -> Any:
        """The value at `keys`; None where there is none."""
        section = self.section(*keys[:-1])
        return None if section is None else section.value.get(keys[-1])

    def line(self, *keys: str) -> int | None:
        """The line on which the setting stands."""
        return self.file.line(self._pointer(keys))

    def edit(self, *keys: str, action: Literal["set", "remove", "last"] = "set", value: Any = None, safe: bool = False) -> tuple[Edit, ...]:
        """What would mend the setting `keys`; nothing where the file is no JSON."""
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
        """A finding of `rule` at the setting `keys`."""
        pointer = self._pointer(keys)
        where = Location(self.file.shown_name, pointer or None, self.file.line(pointer))
        return Finding(rule.code, severity or rule.severity, message, where, evidence, cause, fix or rule.fix, edits)

    def _pointer(self, keys: Iterable[str]) -> str:
        return self.at + "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in keys)


def autos(value: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places that say "auto"."""
    for key, item in value.items():
        if item == "auto":
            yield (*at, key)
        elif isinstance(item, Mapping):
            yield from autos(item, (*at, key))


def meant(name: str, known: Iterable[str]) -> str:
    """` (is "x" meant?)` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), 1, 0.8)
    return f' (is "{close[0]}" meant?)' if close else ""


def is_on(value: Any) -> bool:
    """Whether pydantic takes `value` for true."""
    return value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "yes", "on", "1", "t", "y"))


def is_off(value: Any) -> bool:
    """Whether pydantic takes `value` for false."""
    return (
        value is False
        or (value == 0 and value is not None)
        or (isinstance(value, str) and value.lower() in ("false", "no", "off", "0", "f", "n"))
    )


def stage_of(zero: Config) -> int | None:
    """The ZeRO stage; None where that is no stage, or is for somebody to fill in."""
    stage = zero.value.get("stage", 0)
    return int(stage) if isinstance(stage, int | str) and not isinstance(stage, bool) and str(stage) in ("0", "1", "2", "3") else None


def offloads(zero: Config | None, name: str) -> bool:
    """Whether something is offloaded, also by the names that DeepSpeed had for it before."""
    old = {"offload_optimizer": "cpu_offload", "offload_param": "cpu_offload_param"}[name]
    return zero is not None and (zero.get(name, "device") in ("cpu", "nvme") or is_on(zero.value.get(old)))
