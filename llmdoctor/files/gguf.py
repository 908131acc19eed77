"""The metadata of a GGUF file: the key-value pairs at its beginning, without the tensors (ggml docs/gguf.md, versions 2 and 3)."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

from llmdoctor.files.opening import open_inside

METADATA_LIMIT = 2**26  # bytes that the key-value pairs may take; a vocabulary of 256,000 tokens takes 10 MB
_VALUES = 2**21  # numbers and texts in all; a vocabulary of 256,000 tokens with its scores, types and merges has about 1.3 million
_PAIRS, _DEPTH = 2**16, 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class GgufError(ValueError):
    """The file is not GGUF, or its metadata breaks the format; the message is one clause."""


def read_metadata(path: str) -> dict[str, Any]:
    """Return the metadata of the GGUF file at `path` by key: numbers, texts, booleans and lists of them.

    Raises GgufError if the file is no GGUF, if its metadata is broken or too large, or if it cannot be opened as a regular file.
    """
    opened = open_inside(path, None)
    if not isinstance(opened, int):
        raise GgufError("no such file" if opened is None else opened.reason)
    with os.fdopen(opened, "rb") as file:
        if file.read(4) != b"GGUF":
            raise GgufError("not a GGUF file: it does not begin with GGUF")
        return _GgufReader(file).pairs()


class _GgufReader:
    """Reads values one after another, up to a number of bytes and of values in all."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = METADATA_LIMIT
        self._values = _VALUES

    def pairs(self) -> dict[str, Any]:
        """Return the key-value pairs behind the first four bytes."""
        (version,) = self._unpack("I")
        if version not in (2, 3):
            raise GgufError(f"GGUF version {version}, expected 2 or 3")
        _, count = self._unpack("QQ")
        if count > _PAIRS:
            raise GgufError(f"{count} metadata keys, at most {_PAIRS} are read")
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self._text()
            (kind,) = self._unpack("I")
            found[key] = self._value(kind, 0)
        return found

    def _take(self, size: int) -> bytes:
        if size > self._bytes:
            raise GgufError(f"metadata of more than {METADATA_LIMIT} bytes")
        self._bytes -= size
        data = self._file.read(size)
        if len(data) < size:
            raise GgufError("the metadata ends too early")
        return data

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))

    def _text(self) -> str:
        (length,) = self._unpack("Q")
        return self._take(length).decode("utf-8", "replace")

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self._unpack(_SCALARS[kind])[0]
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY or depth >= _DEPTH:
            raise GgufError(f"a value of the unknown type {kind}")
        inner, length = self._unpack("IQ")
        self._values -= length
        if self._values < 0:
            raise GgufError(f"metadata of more than {_VALUES} values")
        if inner in _SCALARS:
            return list(self._unpack(f"{length}{_SCALARS[inner]}"))
        return [self._value(inner, depth + 1) for _ in range(length)]
