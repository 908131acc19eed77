"""Edits to a JSON text that leave every byte alone that they do not change: spacing, order, line ends, the way lists are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.edit import Edit

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Member:
    """The offsets in the text of a member of an object, or of an item of an array, whose `name` is its index."""

    name: str
    start: int
    value: int
    end: int


def rewrite(text: str, edits: tuple[Edit, ...]) -> tuple[str, tuple[Edit, ...]]:
    """`text`, which json.loads reads, with the edits made one after another, and those that found their place.

    An edit whose pointer leads nowhere is left out: an earlier one, or a person, has taken what it was about.
    """
    made = []
    for edit in edits:
        try:
            text = _rewritten(text, edit)
        except LookupError:
            continue
        made.append(edit)
    return text, tuple(made)


def _rewritten(text: str, edit: Edit) -> str:
    names = [name.replace("~1", "/").replace("~0", "~") for name in edit.pointer.split("/")[1:]]
    if not names:
        raise LookupError(edit.pointer)
    opening = _skip(text, 0)
    for name in names[:-1]:
        opening = _named(text, opening, name)[-1].value
    if edit.action == "set":
        return _set(text, opening, names, edit.value)
    same = _named(text, opening, names[-1])
    for member in reversed(same if edit.action == "remove" else same[:-1]):
        text = _without(text, opening, member.start)
    return text


def _named(text: str, opening: int, name: str) -> list[_Member]:
    """Return every member of that name; the last one counts. Raises LookupError if there is none."""
    found = [member for member in _members(text, opening) if member.name == name]
    if not found:
        raise LookupError(name)
    return found


def _set(text: str, opening: int, names: list[str], value: Any) -> str:
    members = list(_members(text, opening))
    same = [member for member in members if member.name == names[-1]]
    if same:
        old = same[-1]
        return text[: old.value] + _written(text, value, _indent(text, old.start), len(names), text[old.value : old.end]) + text[old.end :]
    if text[opening] != "{":
        raise LookupError(names[-1])
    key = json.dumps(names[-1], ensure_ascii=text.isascii())
    if not members:
        inside = opening + 1
        return f"{text[:inside]}{key}: {_written(text, value, None, len(names), '')}{text[_skip(text, inside) :]}"
    first, last = members[0], members[-1]
    lead = text[opening + 1 : first.start]
    colon = text[_DECODER.raw_decode(text, first.start)[1] : first.value]
    return (
        f"{text[: last.end]},{lead or ' '}{key}{colon}{_written(text, value, _indent(text, first.start), len(names), '')}{text[last.end :]}"
    )


def _without(text: str, opening: int, start: int) -> str:
    """`text` without the member that starts at `start`, and without the comma that parted it from its neighbour."""
    members = list(_members(text, opening))
    at = next(index for index, member in enumerate(members) if member.start == start)
    if at + 1 < len(members):
        return text[:start] + text[members[at + 1].start :]
    if at:
        return text[: members[at - 1].end] + text[members[at].end :]
    return text[: opening + 1] + text[_skip(text, members[at].end) :]


def _written(text: str, value: Any, indent: str | None, depth: int, old: str) -> str:
    """`value` as JSON in the manner of the file: a list over several lines where its lists are, on one where they are not."""
    compact = json.dumps(value, ensure_ascii=text.isascii())
    spread = "\n" in old if old.startswith(("[", "{")) else re.search(r"\[[ \t]*\r?\n", text) is not None
    if indent is None or not spread or not isinstance(value, list | dict):
        return compact
    unit = indent[: max(len(indent) // depth, 1)] or "  "
    lines = json.dumps(value, ensure_ascii=text.isascii(), indent=unit).split("\n")
    return ("\r\n" if "\r\n" in text else "\n").join([lines[0], *(indent + line for line in lines[1:])])


def _indent(text: str, start: int) -> str | None:
    """Return the blanks between the start of the line and `start`; None if anything else is between them."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return before if not before.strip() and start > len(before) else None


def _members(text: str, opening: int) -> Iterator[_Member]:
    """The members of the object, or the items of the array, that opens at `opening`. Raises LookupError for another value."""
    if text[opening : opening + 1] not in ("{", "["):
        raise LookupError(opening)
    named = text[opening] == "{"
    at, index = _skip(text, opening + 1), 0
    while text[at] not in "}]":
        start, name = at, str(index)
        if named:
            name, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        end = _DECODER.raw_decode(text, at)[1]
        yield _Member(name, start, at, end)
        at, index = _skip(text, end), index + 1
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, offset: int) -> int:
    match = _SPACE.match(text, offset)
    return match.end() if match else offset
