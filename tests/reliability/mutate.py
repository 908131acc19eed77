"""Makes a bad input of a good one: by its structure where it has one, else by its bytes."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

DEEP: Any = 1
for _ in range(200):
    DEEP = [DEEP]
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**30, -(10**30), 10**400, 0.0, -0.0, 0.5, 1e308, 1e-320, float("nan"), float("inf"), float("-inf"),
    "", "a", "auto", "none", "\ud800", "\x00", "\x1b[31m", "[/INST]", "\u202e", "::error::x", "9" * 400, "x" * 5000, "../../etc/passwd", "é",
    [], {}, [[]], {"": {}}, [None], [0, -1], [1.5, "a"], {"a": {"b": []}}, DEEP, list(range(300)),
)  # fmt: skip
SPLINTERS = (
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"9" * 500,
    b"null",
    b"\r", b"\n\n", b"\x1b[2J", b"[" * 3000, b'{"a":' * 2000, b"#", b"'", b"!!python/object:os.system", b"&a [*a]", b"{{", b"{% for a in b %}", b"\t",
    b"lambda: 0", b"**", b"if 1:\n", b"\xe2\x80\xae", b"%", b"\x80\x04\x95",
)  # fmt: skip
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
NUMBERS = (b"0", b"-1", b"1", b"1e309", b"-0.0", b"99999999999999999999", b"2147483648", b"0.1", b"NaN", b"1e-400", b"true", b'"7"', b"[]")


class Mutator:
    """Draws from one random source, so that a seed gives the same inputs again; `keys` are names that the programs know."""

    def __init__(self, random: Random, keys: list[str]) -> None:
        self.random = random
        self.keys = keys

    def mutate(self, name: str, data: bytes, other: bytes) -> bytes:
        """Another file of the name's kind; `other` is one that is known to be interesting, to take a part of."""
        structured = _BY_SUFFIX.get(name.rsplit(".", 1)[-1])
        if structured is not None and self.random.random() < 0.75:
            try:
                return structured(self, data)
            except Exception:  # noqa: BLE001
                pass  # it is not what its name says any more
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            data = self.random.choice(_BYTES)(self, data, other)
        return data[:200_000]

    def value(self, value: Any) -> Any:
        """A JSON value with one to three changes in it."""
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            value = self._change(value)
        return value

    def _change(self, value: Any) -> Any:
        """One change, at a place that every level is as likely to hold as the next."""
        if isinstance(value, dict) and value and self.random.random() < 0.85:
            key = self.random.choice(list(value))
            return self._in_dict(dict(value), key)
        if isinstance(value, list) and value and self.random.random() < 0.85:
            return self._in_list(list(value), self.random.randrange(len(value)))
        return self._instead(value)

    def _in_dict(self, value: dict[Any, Any], key: Any) -> dict[Any, Any]:
        what = self.random.random()
        if what < 0.1:
            del value[key]
        elif what < 0.3:
            value[self.random.choice(self.keys)] = self.random.choice(NASTY) if self.random.random() < 0.6 else value[key]
        elif what < 0.35:
            value[self.random.choice(self.keys)] = value.pop(key)
        else:
            value[key] = self._change(value[key])
        return value

    def _in_list(self, value: list[Any], index: int) -> list[Any]:
        what = self.random.random()
        if what < 0.1:
            del value[index]
        elif what < 0.2:
            value.insert(index, self.random.choice(NASTY))
        elif what < 0.25:
            value = value[: index + 1] * self.random.choice((2, 3, 50))
        else:
            value[index] = self._change(value[index])
        return value

    def _instead(self, value: Any) -> Any:
        what = self.random.random()
        if what < 0.1:
            return [value]
        if what < 0.15:
            return {self.random.choice(self.keys): value}
        if what < 0.25:
            return str(value)
        if what < 0.4 and isinstance(value, int | float) and not isinstance(value, bool):
            return self.random.choice((-value, value * 1000, value + 0.5, float(value) if abs(value) < 1e300 else value, value - 1))
        return self.random.choice(NASTY)


def _json(self: Mutator, data: bytes) -> bytes:
    text = json.dumps(self.value(json.loads(data)), indent=self.random.choice((None, None, 2)), ensure_ascii=self.random.random() < 0.8)
    if self.random.random() < 0.05:  # a key twice
        text = re.sub(r'("\w+"): ([^,{}\[\]]+),', r"\1: \2, \1: 7,", text, count=1)
    return text.encode("utf-8", "surrogatepass")


def _json_lines(self: Mutator, data: bytes) -> bytes:
    lines = data.splitlines()
    for _ in range(self.random.choice((1, 1, 3))):
        index = self.random.randrange(len(lines))
        what = self.random.random()
        if what < 0.1:
            lines.insert(index, self.random.choice(SPLINTERS))
        elif what < 0.15:
            lines[index : index + 1] = []
        else:
            lines[index] = _json(self, lines[index]).replace(b"\n", b" ")
    return b"\n".join(lines) + b"\n"


def _safetensors(self: Mutator, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = _json(self, data[8 : 8 + size])
    said = len(header) if self.random.random() < 0.9 else self.random.choice((0, 1, len(header) - 1, 2**40, 2**64 - 1))
    return said.to_bytes(8, "little") + header + data[8 + size :]


def _npy(self: Mutator, data: bytes) -> bytes:
    with np.errstate(all="ignore"):
        array = self.random.choice(_ARRAYS)(self, np.load(io.BytesIO(data)))
    out = io.BytesIO()
    np.save(out, array)
    data = out.getvalue()
    if self.random.random() < 0.15:
        at = self.random.randrange(80)
        data = data[:at] + self.random.choice(NUMBERS) + data[at + 1 :]
    return data


def _cast(self: Mutator, array: Any) -> Any:
    return array.astype(self.random.choice(["f2", "f4", "f8", "i1", "i8", "u1", "?", "c8", "S3", ">f4", "U2"]))


def _spoil(self: Mutator, array: Any) -> Any:
    array = array.astype("f4")
    array.flat[self.random.randrange(array.size)] = self.random.choice((np.nan, np.inf, -np.inf, 6e4, -1e-7))
    return array


def _reshape(self: Mutator, array: Any) -> Any:
    return self.random.choice((array.ravel(), array[None], array[..., None], array[:0], array.T, array[::-1], array[..., :1]))


def _remake(self: Mutator, array: Any) -> Any:
    return np.zeros(self.random.choice(((), (0,), (1,), (1, 1), (2, 3, 4, 5), (1, 5000), (3, 1, 1, 1))), array.dtype)


def _scale(self: Mutator, array: Any) -> Any:
    return np.asfortranarray(array * array.dtype.type(self.random.choice((0, 1, 2, -1))))


def _pickle(self: Mutator, data: bytes) -> bytes:
    return pickle.dumps(self.value(pickle.loads(data)), protocol=self.random.choice((2, 4)))


def _lines(self: Mutator, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    for _ in range(self.random.choice((1, 1, 2, 4))):
        index, other = self.random.randrange(len(lines)), self.random.randrange(len(lines))
        what = self.random.random()
        if what < 0.2:
            del lines[index]
        elif what < 0.4:
            lines.insert(index, lines[other])
        elif what < 0.5:
            lines[index], lines[other] = lines[other], lines[index]
        elif what < 0.6:
            lines[index] = b"    " + lines[index]
        else:
            words = re.split(rb"(\W)", lines[index])
            words[self.random.randrange(len(words))] = self.random.choice(
                (*SPLINTERS, *NUMBERS, self.random.choice(self.keys).encode("utf-8", "replace"))
            )
            lines[index] = b"".join(words)
    return b"".join(lines)


def _cut(self: Mutator, data: bytes, other: bytes) -> bytes:
    return data[: self.random.randrange(len(data) + 1)]


def _flip(self: Mutator, data: bytes, other: bytes) -> bytes:
    if not data:
        return data
    at = self.random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << self.random.randrange(8))]) + data[at + 1 :]


def _drop(self: Mutator, data: bytes, other: bytes) -> bytes:
    at = self.random.randrange(len(data) + 1)
    return data[:at] + data[at + self.random.choice((1, 2, 8, 50)) :]


def _insert(self: Mutator, data: bytes, other: bytes) -> bytes:
    at = self.random.randrange(len(data) + 1)
    return data[:at] + self.random.choice(SPLINTERS) + data[at:]


def _repeat(self: Mutator, data: bytes, other: bytes) -> bytes:
    at = self.random.randrange(len(data) + 1)
    part = data[at : at + self.random.choice((1, 10, 200))]
    return data[:at] + part * self.random.choice((2, 10)) + data[at:]


def _splice(self: Mutator, data: bytes, other: bytes) -> bytes:
    return data[: self.random.randrange(len(data) + 1)] + other[self.random.randrange(len(other) + 1) :]


def _number(self: Mutator, data: bytes, other: bytes) -> bytes:
    found = list(NUMBER.finditer(data[:20_000]))
    if not found:
        return _insert(self, data, other)
    match = self.random.choice(found)
    return data[: match.start()] + self.random.choice(NUMBERS) + data[match.end() :]


_ARRAYS: tuple[Callable[[Mutator, Any], Any], ...] = (_cast, _spoil, _reshape, _remake, _scale)
_BYTES: tuple[Callable[[Mutator, bytes, bytes], bytes], ...] = (_cut, _flip, _drop, _insert, _repeat, _splice, _number, _number)
_BY_SUFFIX: dict[str, Callable[[Mutator, bytes], bytes]] = {
    "json": _json, "ipynb": _json, "jsonl": _json_lines, "safetensors": _safetensors, "npy": _npy, "pickle": _pickle, "py": _lines, "yaml": _lines,
    "toml": _lines, "jinja": _lines, "gitignore": _lines,
}  # fmt: skip
