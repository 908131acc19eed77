"""The one sanitiser: text from data is made harmless before it reaches a terminal, a log or a CI runner."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

# C0 and C1 controls, DEL, format characters (bidi overrides, zero-width, BOM, tags), line separators, lone surrogates, noncharacters
# (XML cannot hold U+FFFE and U+FFFF).
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
# GitHub's runner trims leading white space before it looks for "::", and finds "##[" anywhere (ActionCommand.cs).
_COMMAND = re.compile(r"^((?:\x1b\[[0-9;]*m|\s)*):(?=:)", re.MULTILINE)

_LONG = re.compile(r"\S{301,}")  # longer than the longest file name

JsonValue = None | bool | int | float | str | list[Any] | dict[str, Any]


def clean(text: str) -> str:
    """Return `text` on one line, with every control, escape and bidi character shown as an escape (`\\x1b`, `\\u202e`)."""
    return _UNSAFE.sub(_shown, text)


def clean_lines(text: str) -> str:
    """Return `text` with its line breaks and with every other unsafe character shown as an escape."""
    return "\n".join(clean(line) for line in text.split("\n"))


def shortened(text: str) -> str:
    """Return `text` with the middle of every word of over 300 characters left out: an argument that a message repeats."""
    return _LONG.sub(lambda word: f"{word[0][:200]}[...]{word[0][-60:]}", text)


def defuse(rendered: str) -> str:
    """Return whole output without anything that a CI runner would take for a command: no line starts with `::`, none has `##[`.

    Colour codes that the renderer has written may precede the colons.
    """
    return _COMMAND.sub(r"\1: ", rendered).replace("##[", "# #[")


def plain(value: Any) -> JsonValue:
    """Return `value` as strict JSON can hold it: tuples as lists, not-finite floats as the strings "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def shown(value: Any, limit: int = 60) -> str:
    """Return `value` as a person reads it in a cell: None, 0.7, [1, 2], 'text'; longer than `limit` characters is shortened."""
    text = clean(repr(value) if not isinstance(value, float) else f"{value:g}" if abs(value) < 1e15 else repr(value))
    if isinstance(value, float) and text.lstrip("-").isdigit():
        text += ".0"
    return text if len(text) <= limit else text[: limit - 4] + " ..."


_UNITS = {
    **{name: 10**power for name, power in (("KB", 3), ("MB", 6), ("GB", 9), ("TB", 12))},
    **{name: 2**power for prefix, power in (("K", 10), ("M", 20), ("G", 30), ("T", 40)) for name in (prefix, f"{prefix}IB")},
    "B": 1,
}


def size_of(text: str) -> int | None:
    """Return the bytes of a size such as "24GiB", "24GB" or "24G" (GiB); None for anything else, a bare number included."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        return None
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def plural(count: int, noun: str) -> str:
    """Return count and noun: 1 error, 2 errors, 2 processes, 1,000 directories, 2 batches of requests."""
    if count == 1:
        return f"1 {noun}"
    noun, of, rest = noun.partition(" of ")
    many = (
        noun
        if noun.endswith("ments")
        else f"{noun}es"
        if noun.endswith(("ss", "ch"))
        else f"{noun[:-1]}ies"
        if noun.endswith("ry")
        else f"{noun}s"
    )
    return f"{count:,} {many}{of}{rest}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: "a", "a and b", "a, b and c"; "" for none."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def is_id(value: Any) -> bool:
    """Return whether `value` can be a token id: an int, but not True or False, which Python counts among them."""
    return isinstance(value, int) and not isinstance(value, bool)
