"""Strict JSON with positions: one fast pass by the standard library, and a slow one only if there is something to report.

transformers reads its files with json.load, which accepts duplicate keys (the last one counts) and NaN: such a file is read here too, with a
problem for each. What json.load refuses is unreadable: `value` is then None, and the problem names the place.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from llmdoctor.core.edit import Edit
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.rule import Rule
from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.positions import MAX_CHARACTERS, MAX_DIGITS, Unreadable, scan
from llmdoctor.files.rules import DUPLICATE_KEY, LFS_POINTER, UNREADABLE

CONFIG_LIMIT = 16 * 2**20
MAX_DEPTH = 100
MAX_BITS = 996  # of an integer of MAX_DIGITS digits
_SURROGATE = re.compile("[\ud800-\udfff]")
_BOMS = (  # UTF-32's little-endian mark starts with UTF-16's
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A JSON file: its value (None if it cannot be read), what is wrong with it, and the line of anything in it."""

    path: str
    shown_name: str
    value: Any
    problems: tuple[Finding, ...] = ()
    text: str = field(default="", repr=False)
    _lines: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def line(self, pointer: str) -> int | None:
        """Return the line, from 1, of the key of the value at a JSON pointer (in an array, of its start); None if there is no such value."""
        if not self._lines and self.text:
            try:
                self._lines.update(scan(self.text, MAX_DEPTH).lines)
            except Unreadable:
                self._lines[""] = 1
        return self._lines.get(pointer)


def read_json_file(path: str, root: str | None = None, limit: int = CONFIG_LIMIT) -> JsonFile:
    """Read one JSON file that must exist. Raises QuestionError if it does not."""
    file = read_optional(path, root, limit)
    if file is None:
        raise QuestionError(f"{path}: no such file")
    return file


def read_optional(path: str, root: str | None = None, limit: int = CONFIG_LIMIT) -> JsonFile | None:
    """Read one JSON file; None if there is no such file."""
    data = read_bytes(path, limit, root)
    if data is None:
        return None
    name = shown_path(path)
    if isinstance(data, Refusal):
        return refused(data, path, name)
    return parse(data, path, name)


def refused(refusal: Refusal, path: str, name: str) -> JsonFile:
    """Return the unreadable JsonFile of a file that may not or cannot be read."""
    return JsonFile(path, name, None, (refusal.finding(name),))


def parse(data: bytes, path: str, name: str) -> JsonFile:
    """Read `data` as JSON; never raises."""
    text = _decode(data, name)
    if isinstance(text, Finding):
        return JsonFile(path, name, None, (text,))
    notes: list[str] = []
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs(notes), parse_constant=_constant(notes), parse_int=_integer, parse_float=_float(notes)
        )
    except (ValueError, RecursionError) as error:
        return JsonFile(path, name, None, (_explain(text, name, error),))
    if not notes and not _too_deep(text, value) and not ("\\u" in text and _has_surrogate(value)):
        return JsonFile(path, name, value, (), text)
    return _with_problems(path, name, value, text)


def _with_problems(path: str, name: str, value: Any, text: str) -> JsonFile:
    """Find what is odd in a file that can be read, by the slow pass."""
    try:
        seen = scan(text, MAX_DEPTH)
    except Unreadable as error:
        return JsonFile(path, name, None, (_problem(error.rule, name, f"{name}: {error}", error.pointer, error.line),))
    problems = [_problem(rule, name, f"{name}: {message}", pointer, line) for rule, message, pointer, line in seen.oddities]
    problems = [
        replace(one, edits=(Edit(name, _pointer(one), "last", safe=True),)) if one.code == DUPLICATE_KEY.code else one for one in problems
    ]
    return JsonFile(path=path, shown_name=name, value=value, problems=tuple(problems), text=text, _lines=dict(seen.lines))


def _pointer(problem: Finding) -> str:
    return "" if problem.location is None else problem.location.pointer or ""


def _explain(text: str, name: str, refused: Exception) -> Finding:
    """Return where and why `text` is not JSON, by the slow pass; for a text that is too long for it, in the words of `refused`."""
    line = refused.lineno if isinstance(refused, json.JSONDecodeError) else None
    if line is not None and len(text) > CONFIG_LIMIT:
        return _problem(UNREADABLE, name, f"{name}: not JSON: {refused}", None, line)
    try:
        scan(text, MAX_DEPTH)
    except Unreadable as error:
        return _problem(error.rule, name, f"{name}: {error}", error.pointer, error.line)
    return _problem(UNREADABLE, name, f"{name}: not JSON", None, 1)


def _decode(data: bytes, name: str) -> str | Finding:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _problem(UNREADABLE, name, f"{name} starts with a byte order mark of {encoding}, expected UTF-8 without a mark", None, 1)
    if data.startswith(b"version https://git-lfs"):
        return _problem(LFS_POINTER, name, f"{name} is a git-lfs pointer, not the file itself", None, 1)
    if not data.strip():
        return _problem(UNREADABLE, name, f"{name} is empty, expected a JSON object", None, 1)
    if b"\0" in data:
        kind = "UTF-16 or UTF-32 text" if data[:1] == b"\0" or data[1:2] == b"\0" else "binary data"
        return _problem(UNREADABLE, name, f"{name} holds {kind}, expected UTF-8 text", None, data[: data.index(b"\0")].count(b"\n") + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return _problem(UNREADABLE, name, f"{name}: byte {error.start} is not UTF-8 ({error.reason})", None, line)


def _problem(rule: Rule, name: str, message: str, pointer: str | None, line: int | None) -> Finding:
    return rule.at(Location(name, pointer, line), message)


def _pairs(notes: list[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            notes.append("duplicate")
        return value

    return build


def _constant(notes: list[str]) -> Callable[[str], float]:
    def build(text: str) -> float:
        notes.append(text)
        return float(text)

    return build


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(text)


def _float(notes: list[str]) -> Callable[[str], float]:
    def build(text: str) -> float:
        if len(text) > MAX_CHARACTERS:
            raise ValueError("too many digits")
        value = float(text)
        if math.isinf(value):
            notes.append(text)
        return value

    return build


def _too_deep(text: str, value: Any) -> bool:
    return text.count("[") + text.count("{") > MAX_DEPTH and is_too_deep(value)


def is_too_deep(value: Any) -> bool:
    """Return whether `value` is nested deeper than MAX_DEPTH levels: code that walks it would recurse too deeply."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def beyond_limits(value: Any) -> str | None:
    """Return why a value of another format passes the limits of JSON files (depth, digits of a number), as a clause; None if it does not."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(item, int) and item.bit_length() > MAX_BITS for item in level):
            return f"a number of more than {MAX_DIGITS} digits"
        level = [child for item in level if isinstance(item, dict | list) for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return None
    return f"nested deeper than {MAX_DEPTH} levels"


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogate(key) or _has_surrogate(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_surrogate, value))
