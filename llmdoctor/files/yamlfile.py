"""YAML as the JSON it could have been written as: events only, no object is ever made of a tag, bounded, with the line of every value.

PyYAML's events are read, not its objects: a tag (`!!python/object`) is ignored and its node read as what it looks like. An alias stands for
what its anchor holds, and counts as many values as that has, so that a few lines cannot stand for a billion values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.finding import Location
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.files.rules import UNREADABLE

YAML_LIMIT = 256 * 2**10  # bytes; libyaml reads them in .1 s, PyYAML's own scanner in 2 s
MAX_VALUES, MAX_DEPTH, MAX_POINTER = 50_000, 50, 256


class _Refused(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def parse_yaml(data: bytes, path: str, name: str) -> JsonFile:
    """The first document in `data`; never raises. What is no YAML, or is too deep or too much, has the value None and a problem that says why."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = yaml.parse(data, loader)
        reader = _Reader(events, yaml)
        value = reader.document()
    except _Refused as error:
        return _unreadable(path, name, str(error), error.line)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        return _unreadable(path, name, error.problem or "not understood", line)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return _unreadable(path, name, " ".join(str(error).split())[:200], None)
    return JsonFile(path, name, value, (), "", {"": 1, **reader.lines})


def _unreadable(path: str, name: str, reason: str, line: int | None) -> JsonFile:
    return JsonFile(path, name, None, (UNREADABLE.at(Location(name, None, line), f"{name}: not YAML: {reason}"),))


@dataclass(slots=True)
class _Reader:
    """Builds one document from parser events; `sizes` holds what an anchor stands for and how many values that is."""

    events: Iterator[Any]
    yaml: Any
    lines: dict[str, int] = field(default_factory=dict)
    values: int = 0
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    resolver: Any = None
    constructor: Any = None

    def document(self) -> Any:
        self.resolver, self.constructor = self.yaml.resolver.Resolver(), self.yaml.constructor.SafeConstructor()
        for event in self.events:
            if isinstance(event, self.yaml.DocumentStartEvent):
                return self.node(next(self.events), "", 0)
        return None

    def node(self, event: Any, pointer: str, depth: int) -> Any:
        line = event.start_mark.line + 1
        before = self.values
        self._count(1, line)
        if isinstance(event, self.yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _Refused(f"*{event.anchor} stands for nothing, or for itself", line)
            value, size = self.anchors[event.anchor]
            self._count(size - 1, line)
            return value
        if depth > MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels", line)
        if isinstance(event, self.yaml.MappingStartEvent):
            value = self._mapping(pointer, depth)
        elif isinstance(event, self.yaml.SequenceStartEvent):
            value = self._sequence(pointer, depth)
        else:
            value = self._scalar(event)
        if event.anchor:
            self.anchors[event.anchor] = value, self.values - before
        return value

    def _count(self, more: int, line: int) -> None:
        self.values += more
        if self.values > MAX_VALUES:
            raise _Refused(f"more than {MAX_VALUES} values, aliases counted", line)

    def _mapping(self, pointer: str, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, self.yaml.MappingEndEvent):
                return {**merged, **out}
            line = event.start_mark.line + 1
            key = self.node(event, pointer, depth + 1)
            name = key if isinstance(key, str) else _spelled(key)
            below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"[: MAX_POINTER + 1]
            if len(below) <= MAX_POINTER:
                self.lines[below] = line
            value = self.node(next(self.events), below, depth + 1)
            if name == "<<":
                for each in value if isinstance(value, list) else [value]:
                    merged.update({} if not isinstance(each, dict) else {key: item for key, item in each.items() if key not in merged})
            else:
                out[name] = value
        return out

    def _sequence(self, pointer: str, depth: int) -> list[Any]:
        out: list[Any] = []
        for event in self.events:
            if isinstance(event, self.yaml.SequenceEndEvent):
                break
            below = f"{pointer}/{len(out)}"[: MAX_POINTER + 1]
            if len(below) <= MAX_POINTER:
                self.lines[below] = event.start_mark.line + 1
            out.append(self.node(event, below, depth + 1))
        return out

    def _scalar(self, event: Any) -> Any:
        """By YAML 1.1's rules, as safe_load has them (yes is true, 5e8 a text); dates stay texts."""
        node = self.yaml.ScalarNode(None, event.value)
        tag = self.resolver.resolve(self.yaml.ScalarNode, event.value, event.implicit) if event.tag in (None, "!") else event.tag
        node.tag = tag
        short = tag.rpartition(":")[2]
        make = getattr(self.constructor, f"construct_yaml_{short}", None) if short in ("null", "bool", "int", "float") else None
        if make is None:
            return event.value
        try:
            return make(node)
        except (ValueError, KeyError, IndexError):
            return event.value


def _spelled(key: Any) -> str:
    """A key that is no text: `on: 1` has the key true."""
    return "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)[:200]
