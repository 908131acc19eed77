"""The metadata of a GGUF file: the key-value pairs at its beginning, without the tensors (ggml docs/gguf.md, versions 2 and 3)."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

METADATA_LIMIT = 2**28  # bytes that the key-value pairs may take; a vocabulary of 256,000 tokens takes 10 MB
_PAIRS, _TEXT, _DEPTH = 2**16, 2**24, 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class GgufError(ValueError):
    """The file is not GGUF, or its metadata breaks the format; the message is one clause."""


def read_metadata(path: str) -> dict[str, Any]:
    """Return the metadata of the GGUF file at `path` by key: numbers, texts, booleans and lists of them.

    Raises GgufError if the file is no GGUF or its metadata is broken, and OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise GgufError("not a GGUF file: it does not begin with GGUF")
        (version,) = _unpack(file, "I")
        if version not in (2, 3):
            raise GgufError(f"GGUF version {version}, expected 2 or 3")
        _, count = _unpack(file, "QQ")
        if count > _PAIRS:
            raise GgufError(f"{count} metadata keys, at most {_PAIRS} are read")
        found: dict[str, Any] = {}
        for _ in range(count):
            key = _text(file)
            (kind,) = _unpack(file, "I")
            found[key] = _value(file, kind, 0)
            if file.tell() > METADATA_LIMIT:
                raise GgufError(f"metadata of more than {METADATA_LIMIT} bytes")
        return found


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    size = struct.calcsize(f"<{form}")
    data = file.read(size)
    if len(data) < size:
        raise GgufError("the metadata ends too early")
    return struct.unpack(f"<{form}", data)


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > _TEXT:
        raise GgufError(f"a text of {length} bytes, at most {_TEXT} are read")
    data = file.read(length)
    if len(data) < length:
        raise GgufError("the metadata ends too early")
    return data.decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int, depth: int) -> Any:
    if kind in _SCALARS:
        return _unpack(file, _SCALARS[kind])[0]
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY or depth >= _DEPTH:
        raise GgufError(f"a value of the unknown type {kind}")
    inner, length = _unpack(file, "IQ")
    if length > METADATA_LIMIT:
        raise GgufError(f"a list of {length} values, at most {METADATA_LIMIT} are read")
    if inner in _SCALARS:
        return list(_unpack(file, f"{length}{_SCALARS[inner]}"))
    return [_value(file, inner, depth + 1) for _ in range(length)]
