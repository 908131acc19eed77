"""Recorded logits: npy, npz, safetensors, a JSON list, or numbers on the command line. Memory-mapped, read in chunks, never unpickled."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import Refusal, open_inside, read_bytes
from llmdoctor.files.safetensors import read_header

Floats: TypeAlias = NDArray[np.float32]
CHUNK = 16 << 20  # bytes of logits held at a time
_JSON_LIMIT, _ZIP_LIMIT = 512 << 20, 64 << 30
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
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
        if self.dtype == "bfloat16" and part.dtype.kind == "u":
            values: Floats = (part.astype(np.uint32) << 16).view(np.float32)
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
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
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
    opened = open_inside(path, None)
    if opened is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(opened, Refusal):
        raise QuestionError(f"{path} {opened.reason}")
    with os.fdopen(opened, "rb") as file:
        magic = file.read(8)
    if magic[:6] == b"\x93NUMPY":
        array = load_array(path)
        return array, _float(path, array), {}, ""
    if magic[:4] == b"PK\x03\x04":
        return _npz(path)
    if magic[:1] == b"\x80" and not path.endswith(".safetensors"):
        raise QuestionError(f"{path}: a pickle, which is never loaded; save with numpy.save(..., allow_pickle=False) or safetensors")
    if path.endswith(".safetensors"):
        return _safetensors(path)
    return _json(path)


def load_array(path: str) -> NDArray[Any]:
    """One .npy file, memory-mapped. Raises QuestionError."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # noqa: BLE001 numpy's header parser raises a dozen kinds, tokenize's among them
        raise QuestionError(f"{path}: {_why(error)}, expected a whole .npy file of numbers") from None
    return array


def load_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Return every array of an .npz or .safetensors file by name; bfloat16 as float32. Raises QuestionError."""
    if not os.path.lexists(path):
        raise QuestionError(f"{path}: no such file")
    if not path.endswith(".safetensors"):
        return _npz_arrays(path)
    arrays, brains = _safetensors_arrays(path)
    return {name: (array.astype(np.uint32) << 16).view(np.float32) if name in brains else array for name, array in arrays.items()}


def _npz(path: str) -> _Opened:
    return _choose(path, _npz_arrays(path))


def _npz_arrays(path: str) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > _ZIP_LIMIT:
                raise QuestionError(f"{path}: unpacks to more than {_ZIP_LIMIT >> 30} GiB")
            if any(info.filename.endswith("data.pkl") for info in archive.infolist()):
                raise QuestionError(f"{path}: torch.save writes a pickle, which is never loaded; save with safetensors or numpy.save")
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except QuestionError:
        raise
    except Exception as error:  # noqa: BLE001 zipfile, zlib and numpy raise a dozen kinds on a damaged archive
        raise QuestionError(f"{path}: {_why(error)}, expected a whole .npz file of numbers") from None
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def _choose(path: str, arrays: dict[str, NDArray[Any]]) -> _Opened:
    name = next((name for name in _NAMES if name in arrays), None)
    if name is None:
        floats = [name for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim >= 2]
        if len(floats) != 1:
            raise QuestionError(f"{path}: holds {', '.join(sorted(arrays)[:8]) or 'nothing'}, expected an array named logits or scores")
        name = floats[0]
    array = arrays.pop(name)
    return array, _float(path, array), arrays, name


def _safetensors_arrays(path: str) -> tuple[dict[str, NDArray[Any]], set[str]]:
    """The tensors by name, and the names of those that are bfloat16, held as their bits."""
    headers, problems = read_header(path)
    if problems:
        raise QuestionError(problems[0].message)
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    arrays: dict[str, NDArray[Any]] = {}
    brains: set[str] = set()
    for header in headers.values():
        if header.dtype in _KINDS:
            kind = _KINDS[header.dtype]
            size = int(np.prod(header.shape, dtype=np.int64))
            empty = size == 0 or header.end - header.begin != size * np.dtype(kind).itemsize
            if not empty:
                arrays[header.name] = np.memmap(path, kind, "r", start + header.begin, header.shape)
                brains |= {header.name} if header.dtype == "BF16" else set()
    return arrays, brains


def _safetensors(path: str) -> _Opened:
    arrays, brains = _safetensors_arrays(path)
    named = next((name for name in _NAMES if name in arrays), None)
    if named is None and len(arrays) == 1:
        named = next(iter(arrays))
    if named is not None and named in brains:
        return arrays.pop(named), "bfloat16", arrays, named
    return _choose(path, arrays)


def _json(path: str) -> _Opened:
    data = read_bytes(path, _JSON_LIMIT)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path} {data.reason if data else 'is gone'}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise QuestionError(f"{path}: not one of .npy, .npz, .safetensors or a JSON list of numbers") from None
    rows = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    if not all(isinstance(row, list) and row and all(_is_number(item) for item in row) for row in rows):
        raise QuestionError(f"{path}: expected a JSON list of numbers, or a list of such lists")
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
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


def _why(error: Exception) -> str:
    text = str(error).split("\n")[0]
    if "allow_pickle" in text or "Object arrays" in text:
        return "an array of Python objects, which only a pickle could hold"
    return text[:120] or type(error).__name__
