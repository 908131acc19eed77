"""The slow pass over a JSON text: the line of every value, and what is odd or wrong, with its JSON pointer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from llmdoctor.core.rule import Rule
from llmdoctor.core.text import shown
from llmdoctor.files.rules import BEYOND_LIMITS, DUPLICATE_KEY, LONE_SURROGATE, NOT_A_NUMBER, UNREADABLE

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"true|false|null|NaN|-?Infinity")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder()
MAX_DIGITS = 300  # of an integer: a longer one is too large for a float
MAX_CHARACTERS = 400  # of any number
MAX_VALUES = 500_000  # some seconds; the largest shard indices have a third of it
MAX_ODDITIES = 20
MAX_POINTER = 256  # characters; below a longer one no lines are kept: a pointer of megabytes for each of a million values is memory's end


class Unreadable(Exception):
    """The text is not JSON here, or passes a limit: the rule, the pointer so far, the line."""

    def __init__(self, message: str, pointer: str, line: int, rule: Rule = UNREADABLE) -> None:
        super().__init__(message)
        self.pointer, self.line, self.rule = pointer[:MAX_POINTER], line, rule


@dataclass(slots=True)
class Scan:
    """`lines`: JSON pointer to line, from 1. `oddities`: (rule, message, pointer, line)."""

    lines: dict[str, int] = field(default_factory=dict)
    oddities: list[tuple[Rule, str, str, int]] = field(default_factory=list)


def scan(text: str, max_depth: int) -> Scan:
    """Walk `text` once.

    Raises Unreadable at the first place where it is not JSON, is nested deeper than `max_depth`, or has more than MAX_VALUES values.
    """
    walker = _Walker(text, max_depth)
    walker.seen.lines[""] = walker.line_at(walker.skip(0))
    walker.value(0, "", 0)
    end = walker.skip(walker.at)
    if end < len(text):
        raise Unreadable("something follows after the end of the JSON value", "", walker.line_at(end))
    return walker.seen


class _Walker:
    """One pass; `at` is the offset behind what was read last."""

    def __init__(self, text: str, max_depth: int) -> None:
        self.text, self.max_depth, self.at = text, max_depth, 0
        self.seen = Scan()
        self._line, self._counted, self._values = 1, 0, 0

    def line_at(self, offset: int) -> int:
        """The line of `offset`; offsets come in rising order but for errors."""
        if offset < self._counted:
            return self.text.count("\n", 0, offset) + 1
        self._line += self.text.count("\n", self._counted, offset)
        self._counted = offset
        return self._line

    def skip(self, offset: int) -> int:
        match = _SPACE.match(self.text, offset)
        return match.end() if match else offset

    def value(self, offset: int, pointer: str, depth: int) -> None:
        """Read the value at or after `offset`."""
        start = self.skip(offset)
        self._values += 1
        if self._values > MAX_VALUES:
            raise Unreadable(f"more than {MAX_VALUES} values", pointer, self.line_at(start), BEYOND_LIMITS)
        first = self.text[start : start + 1]
        if depth > self.max_depth and first in ("{", "["):
            raise Unreadable(f"nested deeper than {self.max_depth} levels", pointer, self.line_at(start), BEYOND_LIMITS)
        if first == "{":
            self._object(start, pointer, depth)
        elif first == "[":
            self._array(start, pointer, depth)
        elif first == '"':
            self._string(start, pointer)
        else:
            self._scalar(start, pointer)

    def _object(self, start: int, pointer: str, depth: int) -> None:
        keys: dict[str, int] = {}
        offset = self.skip(start + 1)
        if self.text[offset : offset + 1] == "}":
            self.at = offset + 1
            return
        while True:
            if self.text[offset : offset + 1] != '"':
                raise self._wrong(offset, pointer, "a key in double quotes")
            key = self._string(offset, pointer)
            line = self.line_at(offset)
            below = _below(pointer, key)
            if key in keys:
                self._odd(
                    DUPLICATE_KEY,
                    f"the key {shown(key)} is set twice, on lines {keys[key]} and {line}: Python takes the last one",
                    below,
                    line,
                )
            keys[key] = line
            self._keep(below, line)
            colon = self.skip(self.at)
            if self.text[colon : colon + 1] != ":":
                raise self._wrong(colon, below, "':' after the key")
            self.value(colon + 1, below, depth + 1)
            offset = self.skip(self.at)
            mark = self.text[offset : offset + 1]
            if mark == "}":
                self.at = offset + 1
                return
            if mark != ",":
                raise self._wrong(offset, below, "',' or '}'")
            offset = self.skip(offset + 1)

    def _array(self, start: int, pointer: str, depth: int) -> None:
        offset = self.skip(start + 1)
        if self.text[offset : offset + 1] == "]":
            self.at = offset + 1
            return
        index = 0
        while True:
            below = _below(pointer, str(index))
            self._keep(below, self.line_at(self.skip(offset)))
            self.value(offset, below, depth + 1)
            offset = self.skip(self.at)
            mark = self.text[offset : offset + 1]
            if mark == "]":
                self.at = offset + 1
                return
            if mark != ",":
                raise self._wrong(offset, pointer, "',' or ']'")
            offset, index = offset + 1, index + 1

    def _string(self, start: int, pointer: str) -> str:
        try:
            # Python's own: a regular expression takes 100 bytes of memory for each character of a 16 MiB string.
            decoded, self.at = _DECODER.raw_decode(self.text, start)
        except ValueError:
            raise self._wrong(start, pointer, "a string that ends, without raw control characters") from None
        value: str = decoded
        if _SURROGATE.search(value):
            self._odd(LONE_SURROGATE, "a lone surrogate, which no UTF-8 text can hold", pointer, self.line_at(start))
        return value

    def _scalar(self, start: int, pointer: str) -> None:
        match = _WORD.match(self.text, start) or _NUMBER.match(self.text, start)
        if match is None or not match.group():
            raise self._wrong(start, pointer, "a value")
        word, line = match.group(), self.line_at(start)
        most = MAX_DIGITS if word.lstrip("-").isdigit() else MAX_CHARACTERS
        if len(word) > most:
            raise Unreadable(f"a number of {len(word)} characters, at most {most} are read", pointer, line, BEYOND_LIMITS)
        if word[-1] in "Ny":
            self._odd(NOT_A_NUMBER, f"{word} is not JSON, though Python's json takes it", pointer, line)
        elif word[-1].isdigit() and not word.lstrip("-").isdigit() and float(word) in (float("inf"), float("-inf")):
            self._odd(NOT_A_NUMBER, f"{word if len(word) < 40 else word[:36] + ' ...'} overflows to infinity", pointer, line)
        self.at = match.end()

    def _keep(self, pointer: str, line: int) -> None:
        if len(pointer) <= MAX_POINTER:
            self.seen.lines[pointer] = line

    def _odd(self, rule: Rule, message: str, pointer: str, line: int) -> None:
        """Keep what is odd, the first MAX_ODDITIES of a file."""
        if len(self.seen.oddities) < MAX_ODDITIES:
            self.seen.oddities.append((rule, message, pointer[:MAX_POINTER], line))

    def _wrong(self, offset: int, pointer: str, expected: str) -> Unreadable:
        found = self.text[offset : offset + 12]
        what = f"found {found!r}" if found else "the file ends"
        return Unreadable(f"not JSON: expected {expected}, {what}", pointer, self.line_at(offset))


def _below(pointer: str, key: str) -> str:
    """Return the pointer of a member; a pointer beyond MAX_POINTER characters is not extended."""
    return pointer if len(pointer) > MAX_POINTER else f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
