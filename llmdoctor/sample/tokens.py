"""The tokens of a generation, and the files that hold them: a JSON list, .npy, JSON lines with token_ids, or what the logits' file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.arrays import read_npy
from llmdoctor.files.opening import Refusal, read_bytes

_LIMIT = 256 << 20
_KEYS = ("token_ids", "tokens", "output_token_ids", "output_ids", "sequence", "ids")


def read_tokens(path: str, sequence: int | None = None) -> list[int]:
    """One sequence of token ids. Raises QuestionError."""
    if path.endswith(".npy"):
        return from_array(read_npy(path), path, sequence)
    return _ids(read_values(path, "token ids, or JSON lines with token_ids"), path, sequence)


def read_sequences(path: str) -> list[list[int]]:
    """Return every sequence of token ids of a file: an array [batch, steps], a list of lists, JSON lines. Raises QuestionError."""
    if path.endswith(".npy"):
        array = read_npy(path)
        count = len(array) if array.ndim == 2 else 1
        return [from_array(array, path, index if array.ndim == 2 else None) for index in range(count)]
    value = read_values(path, "token ids, or JSON lines with token_ids")
    many = isinstance(value, list) and bool(value) and isinstance(value[0], list | dict)
    return [_ids(item, path, None) for item in value] if many else [_ids(value, path, None)]


def read_values(path: str, what: str) -> Any:
    """A file's JSON value, or a list of its lines' values. Raises QuestionError, which says that a JSON list of `what` was expected."""
    data = read_bytes(path, _LIMIT)
    if data is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(data, Refusal):
        raise QuestionError(f"{path} {data.reason}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        try:
            return [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise QuestionError(f"{path}: expected a JSON list of {what}") from None


def from_array(array: NDArray[Any], path: str, sequence: int | None) -> list[int]:
    """Token ids [steps] or [batch, steps]."""
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise QuestionError(f"{path}: holds {array.dtype} of {array.ndim} dimensions, expected integer token ids [steps]")
    if array.ndim == 2:
        array = array[_pick(len(array), sequence, path)]
    return [int(token) for token in array]


def beside(others: Mapping[str, NDArray[Any]], path: str, sequence: int | None) -> tuple[str, list[int]]:
    """The tokens that the logits' own file holds, and their name there; ("", []) where it holds none."""
    name = next((name for name in (*_KEYS, "sequences") if name in others), None)
    return ("", []) if name is None else (name, from_array(np.asarray(others[name]), f"{path}: {name}", sequence))


def _ids(value: Any, path: str, sequence: int | None) -> list[int]:
    if isinstance(value, dict):
        key = next((key for key in _KEYS if isinstance(value.get(key), list)), None)
        if key is None:
            raise QuestionError(f"{path}: no token_ids in it, found {', '.join(list(value)[:6]) or 'nothing'}")
        return _ids(value[key], path, sequence)
    if not isinstance(value, list) or not value:
        raise QuestionError(f"{path}: expected a JSON list of token ids")
    if isinstance(value[0], list | dict):
        return _ids(value[_pick(len(value), sequence, path)], path, sequence)
    if not all(isinstance(token, int) and not isinstance(token, bool) and abs(token) < 2**62 for token in value):
        odd = next(token for token in value if not isinstance(token, int) or isinstance(token, bool) or abs(token) >= 2**62)
        raise QuestionError(f"{path}: {str(odd)[:40]!r} is not a token id, expected integers")
    return list(value)


def _pick(count: int, sequence: int | None, path: str) -> int:
    if sequence is None and count != 1:
        raise QuestionError(f"{path}: holds {count} sequences: which one? --sequence 0 to {count - 1}")
    if not 0 <= (sequence or 0) < count:
        raise QuestionError(f"{path}: --sequence {sequence}: expected 0 to {count - 1}")
    return sequence or 0
