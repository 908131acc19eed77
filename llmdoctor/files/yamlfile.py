"""YAML as JSON values: events only, no object is ever made of a tag, bounded, with the line of every value.

PyYAML's events are read, not its objects: a tag (`!!python/object`) is ignored and its node is read as what it looks like. An alias has the
value of its anchor and counts as many values as that has, so that a few lines cannot mean a billion values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.finding import Location
from llmdoctor.files.jsonfile import MAX_BITS, JsonFile
from llmdoctor.files.positions import MAX_CHARACTERS, MAX_DIGITS
from llmdoctor.files.rules import UNREADABLE

YAML_LIMIT = 256 * 2**10  # bytes; libyaml reads them in .1 s, PyYAML's own scanner in 2 s
MAX_VALUES, MAX_DEPTH, MAX_POINTER = 50_000, 50, 256


class _Refused(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def parse_yaml(data: bytes, path: str, name: str) -> JsonFile:
    """Read the first document in `data`; never raises. What is not YAML, or passes a limit, has the value None and a problem with the reason."""
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
    return JsonFile(path=path, shown_name=name, value=value, problems=(), text="", _lines={"": 1, **reader.lines})


def _unreadable(path: str, name: str, reason: str, line: int | None) -> JsonFile:
    return JsonFile(path, name, None, (UNREADABLE.at(Location(name, None, line), f"{name}: not YAML: {reason}"),))


@dataclass(slots=True)
class _Reader:
    """Builds one document from parser events; `anchors` maps a name to its value and to the number of values in it."""

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
                raise _Refused(f"the alias *{event.anchor} names no anchor, or is inside it", line)
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
        """Return a scalar by the rules of YAML 1.1, as safe_load does (yes is true, 5e8 is a text); dates stay texts."""
        node = self.yaml.ScalarNode(None, event.value)
        tag = self.resolver.resolve(self.yaml.ScalarNode, event.value, event.implicit) if event.tag in (None, "!") else event.tag
        node.tag = tag
        short = tag.rpartition(":")[2]
        make = getattr(self.constructor, f"construct_yaml_{short}", None) if short in ("null", "bool", "int", "float") else None
        if make is None:
            return event.value
        if len(event.value) > MAX_CHARACTERS and short in ("int", "float"):
            raise _Refused(f"a number of {len(event.value)} characters, at most {MAX_CHARACTERS} are read", event.start_mark.line + 1)
        try:
            value = make(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            return event.value
        if isinstance(value, int) and value.bit_length() > MAX_BITS:  # hexadecimal or in base 60 (1:30)
            raise _Refused(f"a number of more than {MAX_DIGITS} digits", event.start_mark.line + 1)
        return value


def _spelled(key: Any) -> str:
    """Return a key that is not a text as a text: `on: 1` has the key true."""
    return "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)[:200]
