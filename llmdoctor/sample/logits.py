"""Recorded logits in a file of arrays, a JSON list, or numbers on the command line, read in chunks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.arrays import BFLOAT16, ArrayFile, from_brain, read_arrays
from llmdoctor.sample.types import Floats

CHUNK = 16 << 20  # bytes of logits held at a time
_Opened: TypeAlias = tuple[NDArray[Any], str, dict[str, NDArray[Any]], str]  # the logits, their dtype, the other arrays, the name
_RAW, _SCORES = ("logits", "output_logits"), ("scores", "processed_logits", "output_scores")
_NAMES = (*_RAW, *_SCORES)


@dataclass(frozen=True, slots=True)
class Logits:
    """Logits [steps, V] on disk or in memory. `dtype` is what they were recorded in; bfloat16 is held as its bits.

    `scores`: whether their name says that the settings are applied already (generate()'s output_scores); None where nothing says it.
    """

    path: str
    array: NDArray[Any]
    dtype: str
    others: dict[str, NDArray[Any]]  # what else the file holds: tokens, beam_indices, ...
    scores: bool | None = None

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return int(self.array.shape[0])

    @property
    def vocab(self) -> int:
        """Tokens in each step."""
        return int(self.array.shape[-1])

    def first(self, count: int) -> Logits:
        """The first `count` steps."""
        return replace(self, array=self.array[:count])

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """(first step, logits [n, V] float32), checked: no NaN, no +inf, no row of -inf alone. Raises QuestionError."""
        rows = max(1, CHUNK // max(1, 4 * self.vocab))
        for start in range(0, self.steps, rows):
            yield start, self.rows(start, start + rows)

    def rows(self, start: int, stop: int) -> Floats:
        """Steps [start, stop) as float32 [n, V], checked."""
        part = self.array[start:stop]
        if self.dtype == BFLOAT16 and part.dtype.kind == "u":
            values: Floats = from_brain(part)
        else:
            with np.errstate(over="ignore"):
                values = np.asarray(part, dtype=np.float32)
        self._check(values, start)
        return values

    def _check(self, values: Floats, start: int) -> None:
        tops = values.max(axis=1)
        if np.isfinite(tops).all():
            return
        at = int(np.flatnonzero(~np.isfinite(tops))[0])
        where = f"{self.path}: step {start + at}"
        if np.isnan(tops[at]):
            raise QuestionError(f"{where}, token {int(np.isnan(values[at]).argmax())} is NaN, expected finite logits or -inf")
        if tops[at] > 0:
            raise QuestionError(f"{where}, token {int(values[at].argmax())} is +inf, expected finite logits or -inf")
        raise QuestionError(f"{where} holds nothing but -inf: no token could be drawn")


def open_logits(path: str, sequence: int | None = None, batch: bool = False) -> Logits:
    """Return the logits in a file: [V], [steps, V], [steps, 1, V], or [steps, batch, V] with `sequence`.

    With `batch` an array [steps, batch, V] of several sequences is returned as it is.

    Raises QuestionError: no such file, not one of the formats, truncated, pickled, of another shape or type.
    """
    array, dtype, others, name = _open(path)
    if array.ndim == 1:
        array = array[None]
    elif array.ndim == 3 and not (batch and sequence is None and array.shape[1] > 1 and 0 not in array.shape):
        count = array.shape[1]
        if sequence is None and count != 1:
            raise QuestionError(f"{path}: logits of {count} sequences [{_shape(array)}]: which one? --sequence 0 to {count - 1}")
        if not 0 <= (sequence or 0) < count:
            raise QuestionError(f"{path}: --sequence {sequence}: expected 0 to {count - 1}")
        array = array[:, sequence or 0]
    if array.ndim not in (2, 3 if batch else 2) or 0 in array.shape:
        raise QuestionError(f"{path}: shape [{_shape(array)}], expected logits [steps, V] or [steps, batch, V]")
    return Logits(path, array, dtype, others, None if name not in _NAMES else name in _SCORES)


def open_recording(path: str) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The logits of a file in the shape they were recorded, and the other arrays beside them. Raises QuestionError."""
    array, dtype, others, _ = _open(path)
    if dtype == BFLOAT16:
        array = from_brain(array)
    return array, others


def parse_logits(text: str) -> Logits:
    """A file's name, or numbers themselves: 4,3,2.5 or [4, 3, 2.5]."""
    head = text.strip().lower()
    if not os.path.lexists(text) and head and (head[0] in "[-+.0123456789" or (head.startswith(("nan", "inf")) and "," in head)):
        body = text.strip().removeprefix("[").removesuffix("]")
        try:
            values = np.array([float(part) for part in body.split(",")], np.float32)
        except ValueError:
            raise QuestionError(f"{text[:60]}: no such file, and not a list of numbers such as 4,3,2.5") from None
        return Logits("the numbers", values[None], "float32", {})
    return open_logits(text)


def _open(path: str) -> _Opened:
    file = read_arrays(path)
    if file.format == "json":
        return _from_json(file.value, path)
    name = _name_of(file)
    others = {other: array for other, array in file.arrays.items() if other != name}
    dtype = BFLOAT16 if name in file.brain else _float(path, file.arrays[name])
    return file.arrays[name], dtype, others, name


def _name_of(file: ArrayFile) -> str:
    """Return the name of the array with the logits: a known name, the only one of a safetensors file, or the only one of floats."""
    known = next((name for name in ("", *_NAMES) if name in file.arrays), None)
    if known is not None:
        return known
    if file.format == "safetensors" and len(file.arrays) == 1:
        return next(iter(file.arrays))
    floats = [name for name, array in file.arrays.items() if array.dtype.kind == "f" and array.ndim >= 2]
    if len(floats) != 1:
        held = ", ".join(sorted(file.arrays)[:8]) or "nothing"
        raise QuestionError(f"{file.path}: holds {held}, expected an array named logits or scores")
    return floats[0]


def _from_json(value: Any, path: str) -> _Opened:
    rows = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    if not all(isinstance(row, list) and row and all(_is_number(item) for item in row) for row in rows):
        raise QuestionError(f"{path}: expected a JSON list of numbers, or a list of such lists")
    if len({len(row) for row in rows}) > 1:
        step = next(index for index, row in enumerate(rows) if len(row) != len(rows[0]))
        raise QuestionError(f"{path}: step {step} holds {len(rows[step])} logits, step 0 {len(rows[0])}: V must not differ between steps")
    try:
        with np.errstate(over="ignore"):  # what is too large for it becomes inf, and is refused as that
            return np.array(rows, np.float32), "float32", {}, ""
    except OverflowError:
        raise QuestionError(f"{path}: a number is too large for a float") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(path: str, array: NDArray[Any]) -> str:
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise QuestionError(f"{path}: holds {array.dtype}, expected float16, float32 or float64 logits")
    return str(array.dtype.name)


def _shape(array: NDArray[Any]) -> str:
    return ", ".join(map(str, array.shape))
