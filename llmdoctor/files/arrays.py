"""Arrays in files: npy, npz, safetensors and JSON. The one reader of these formats: never unpickled, sizes are judged before anything is allocated.

Arrays of npy and safetensors files are memory-mapped, so that a file larger than the memory can be read in parts.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.jsonfile import parse
from llmdoctor.files.opening import Refusal, open_inside, read_bytes, shown_path
from llmdoctor.files.safetensors import read_header

JSON_LIMIT = 512 * 2**20  # bytes
UNPACKED_LIMIT, MAX_MEMBERS = 512 * 2**20, 1000  # of an npz file; one that is not compressed may be larger
BFLOAT16 = "bfloat16"
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
REFUSED_PICKLE = "a pickle can run code when it is read, so it is never loaded: save the arrays as safetensors, npz, npy or JSON"
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ArrayFile:
    """The arrays of a file by name ("" in a file of one array without a name).

    `brain` names the arrays that are bfloat16, which numpy lacks: they are held as their bits (uint16). `unread` maps the tensors of a dtype
    that numpy has no type for to that dtype. A JSON file has no arrays but its `value`.
    """

    path: str
    format: Literal["npy", "npz", "safetensors", "json"]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    brain: frozenset[str] = frozenset()
    unread: dict[str, str] = field(default_factory=dict)
    value: Any = None

    def floats(self, name: str) -> NDArray[Any]:
        """Return the array `name`, bfloat16 as float32."""
        array = self.arrays[name]
        return from_brain(array) if name in self.brain else array


def from_brain(bits: NDArray[Any]) -> NDArray[np.float32]:
    """Return bfloat16 numbers, given as uint16 bits of any shape, as float32."""
    values: NDArray[np.float32] = (bits.astype(np.uint32) << 16).view(np.float32)
    return values


def read_arrays(path: str) -> ArrayFile:
    """Read an npy, npz, safetensors or JSON file, distinguished by its content and, for safetensors, by its ending.

    Raises QuestionError if it is missing, not a regular file, a pickle, of another format, damaged or too large.
    """
    shown = shown_path(path)
    opened = open_inside(path, None)
    if opened is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(opened, Refusal):
        raise QuestionError(f"{shown} {opened.reason}")
    with os.fdopen(opened, "rb") as file:
        magic = file.read(8)
    if magic[:6] == b"\x93NUMPY":
        return ArrayFile(path, "npy", {"": read_npy(path)})
    if magic[:4] == b"PK\x03\x04":
        return ArrayFile(path, "npz", _npz(path, shown))
    if path.endswith(".safetensors"):
        return _safetensors(path)
    if path.lower().endswith(PICKLES) or magic[:1] == b"\x80":
        raise QuestionError(f"{shown}: {REFUSED_PICKLE}")
    return ArrayFile(path, "json", value=_json(path, shown))


def read_npy(path: str) -> NDArray[Any]:
    """Return the array of a .npy file, memory-mapped. Raises QuestionError."""
    shown = shown_path(path)
    opened = open_inside(path, None)
    if not isinstance(opened, int):
        raise QuestionError(f"{path}: no such file" if opened is None else f"{shown} {opened.reason}")
    with os.fdopen(opened, "rb") as file:
        try:
            shape, dtype, offset = _header(file, shown)
            if os.fstat(file.fileno()).st_size < offset + math.prod(shape) * dtype.itemsize:
                raise ValueError("the file is cut short")
            array: NDArray[Any] = np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
        except QuestionError:
            raise
        except Exception as error:  # noqa: BLE001 numpy's header parser raises a dozen kinds, tokenize.TokenError among them
            raise QuestionError(f"{shown}: {_reason(error)}, expected a whole .npy file of numbers") from None
    return array


def _header(file: Any, shown: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return the shape, the dtype and the offset of the data of an open .npy file."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    if dtype.hasobject:
        raise QuestionError(f"{shown}: an array of Python objects is a pickle; {REFUSED_PICKLE}")
    return shape, dtype, file.tell()


def _npz(path: str, shown: str) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.filename.endswith(".pkl") for member in members):
                raise QuestionError(f"{shown}: a file of torch.save; {REFUSED_PICKLE}")
            most = max(UNPACKED_LIMIT, os.path.getsize(path))
            if sum(member.file_size for member in members) > most or len(members) > MAX_MEMBERS:
                raise QuestionError(f"{shown}: unpacks to more than {most >> 20} MiB or {MAX_MEMBERS} members")
            for member in members:
                if member.filename.endswith(".npy"):
                    with archive.open(member) as inside:
                        data = inside.read(member.file_size + 1)
                    out[member.filename.removesuffix(".npy")] = _npy_bytes(data, shown)
    except QuestionError:
        raise
    except Exception as error:  # noqa: BLE001 zipfile, zlib, lzma and numpy raise a dozen kinds on a damaged archive
        raise QuestionError(f"{shown}: {_reason(error)}, expected a whole .npz file of numbers") from None
    if not out:
        raise QuestionError(f"{shown}: holds no array, expected a .npz file of numpy.savez")
    return out


def _npy_bytes(data: bytes, shown: str) -> NDArray[Any]:
    shape, dtype, offset = _header(io.BytesIO(data), shown)
    if offset + math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError("an array that is cut short")
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _safetensors(path: str) -> ArrayFile:
    headers, problems = read_header(path)
    if problems:
        raise QuestionError(problems[0].message)
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    arrays: dict[str, NDArray[Any]] = {}
    for name, header in headers.items():
        kind = _DTYPES.get(header.dtype)
        if kind is not None:
            empty = 0 in header.shape
            arrays[name] = np.zeros(header.shape, kind) if empty else np.memmap(path, kind, "r", start + header.begin, header.shape)
    brain = frozenset(name for name in arrays if headers[name].dtype == "BF16")
    unread = {name: header.dtype for name, header in headers.items() if name not in arrays}
    return ArrayFile(path, "safetensors", arrays, brain, unread)


def _json(path: str, shown: str) -> Any:
    data = read_bytes(path, JSON_LIMIT)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{shown} {data.reason if data else 'is gone'}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        problem = next(iter(parse(data, path, shown).problems), None)
        reason = "" if problem is None else f" ({problem.message.removeprefix(f'{shown}: ')})"
        raise QuestionError(f"{shown}: not one of .npy, .npz, .safetensors or a JSON list of numbers{reason}") from None


def _reason(error: Exception) -> str:
    return str(error).split("\n")[0][:120] or type(error).__name__
