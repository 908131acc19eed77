"""Tensors in a file of the user: safetensors, npy, npz or JSON; never a pickle.

The file is not trusted: its header is checked before an array is allocated.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import Refusal, read_bytes, shown_path

LIMIT = 512 * 2**20
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
SCALARS = ("max_length_q", "max_length_k")
# Fields that must hold numbers: anything else under these names is refused, not listed.
NUMBERS = (
    "attention_mask", "mask", "input_ids", "position_ids", "token_type_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "labels",
    "decoder_input_ids", "decoder_attention_mask", "inputs_embeds", "cu_seq_lens_q", "cu_seq_lens_k", *SCALARS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TensorFile:
    """The content of a tensor file: `tensors` by name ("" for the only one of a file without names), `others` are the fields that hold no numbers."""

    tensors: dict[str, NDArray[Any]]
    others: dict[str, str] = field(default_factory=dict)


def read_tensors(path: str) -> TensorFile:
    """Return the tensors of a safetensors, npy, npz or JSON file.

    Raises QuestionError if the file is missing, a pickle, of another format, cut short, or larger than 512 MiB.
    """
    shown = shown_path(path)
    if path.lower().endswith(_PICKLES):
        raise QuestionError(f"{shown}: a pickle can run code when it is read and is refused: save the tensors as safetensors, npz or JSON")
    data = read_bytes(path, LIMIT)
    if data is None:
        raise QuestionError(f"{shown}: no such file")
    if isinstance(data, Refusal):
        raise QuestionError(f"{shown} {data.reason}")
    if data[:2] == b"\x80\x02" or data[:2] in (b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise QuestionError(f"{shown}: a pickle can run code when it is read and is refused: save the tensors as safetensors, npz or JSON")
    try:
        if data[:6] == b"\x93NUMPY":
            return TensorFile({"": _npy(data, shown)})
        if data[:4] == b"PK\x03\x04":
            return TensorFile(_npz(data, shown))
        if path.endswith(".safetensors"):
            return TensorFile(_safetensors(data, path, shown))
        return _json(data, path, shown)
    except QuestionError:
        raise
    except Exception as error:  # noqa: BLE001 over a damaged file numpy and zipfile raise anything, tokenize.TokenError among it
        reason = str(error).split("\n", 1)[0][:120] or type(error).__name__
        raise QuestionError(f"{shown}: not a readable tensor file: {reason}") from None


def _npy(data: bytes, shown: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    if dtype.hasobject:
        raise QuestionError(f"{shown}: an array of Python objects is a pickle, which can run code when it is read, and is refused")
    if math.prod(shape) * max(dtype.itemsize, 1) > LIMIT:
        raise QuestionError(f"{shown}: announces {math.prod(shape)} elements, at most {LIMIT} bytes are read")
    return np.load(io.BytesIO(data), allow_pickle=False)  # type: ignore[no-any-return]


def _npz(data: bytes, shown: str) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(name.endswith((".pkl", "data.pkl")) for name in archive.namelist()):
            raise QuestionError(f"{shown}: a torch file holds a pickle, which can run code when it is read, and is refused")
        members = archive.infolist()
        if sum(member.file_size for member in members) > LIMIT or len(members) > 1000:
            raise QuestionError(f"{shown}: unpacks to more than {LIMIT} bytes or 1000 members")
        for member in members:
            if member.filename.endswith(".npy"):
                out[member.filename.removesuffix(".npy")] = _npy(archive.read(member), shown)
    if not out:
        raise QuestionError(f"{shown}: no array in it, expected attention_mask, input_ids or position_ids")
    return out


def _safetensors(data: bytes, path: str, shown: str) -> dict[str, NDArray[Any]]:
    from llmdoctor.files.safetensors import read_header

    headers, problems = read_header(path)
    if problems:
        raise QuestionError(problems[0].message)
    start = 8 + int.from_bytes(data[:8], "little")
    out = {}
    for name, header in headers.items():
        if header.dtype not in _TYPES:
            if header.dtype == "BF16":
                out[name] = _bfloat16(data[start + header.begin : start + header.end]).reshape(header.shape)
                continue
            raise QuestionError(f"{shown}: tensor {name!r} is {header.dtype}, expected one of {', '.join((*_TYPES, 'BF16'))}")
        out[name] = np.frombuffer(data[start + header.begin : start + header.end], _TYPES[header.dtype]).reshape(header.shape)
    return out


def _bfloat16(data: bytes) -> NDArray[Any]:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def _json(data: bytes, path: str, shown: str) -> TensorFile:
    from llmdoctor.files.jsonfile import parse

    file = parse(data, path, shown)
    if file.value is None:
        reason = file.problems[0].message if file.problems else "null"
        raise QuestionError(reason if shown in reason else f"{shown}: {reason}")
    if not isinstance(file.value, dict):
        return TensorFile({"": _array(file.value, shown, "")})
    tensors: dict[str, NDArray[Any]] = {}
    others: dict[str, str] = {}
    for name, item in file.value.items():
        if name in NUMBERS or _numeric(item):
            tensors[name] = _array(item, shown, name)
        else:
            others[name] = "null" if item is None else f"{type(item).__name__}, not numbers"
    return TensorFile(tensors, others)


def _numeric(value: Any) -> bool:
    """Return whether `value` is a number, or a list whose first element is one, at any depth."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, bool | int | float)


def _array(value: Any, shown: str, name: str) -> NDArray[Any]:
    """Return a number or a nested list of numbers as an array. Raises QuestionError for a ragged or mixed list."""
    what = f"{shown}: {name}" if name else shown
    try:
        found = np.asarray(value)
        with np.errstate(over="ignore"):
            found = found.astype(np.float32) if found.dtype == np.float64 else found  # as torch.tensor() reads a list of floats
    except ValueError:
        raise QuestionError(f"{what}: rows of different lengths, expected a rectangle of numbers") from None
    if found.dtype.kind not in "biuf" or (found.ndim == 0 and name not in SCALARS):
        raise QuestionError(f"{what}: expected a list of lists of numbers, found {json.dumps(value)[:40]}")
    return found
