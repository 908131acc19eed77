"""safetensors headers, without a tensor: is the file what its header describes (format: safetensors 0.8, `tensor.rs`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.text import is_id, shown
from llmdoctor.files.jsonfile import JsonFile, parse
from llmdoctor.files.opening import Refusal, open_inside, shown_path
from llmdoctor.files.rules import LFS_POINTER, SAFETENSORS_HEADER, SHARD_INDEX

HEADER_LIMIT = 100_000_000  # the library's MAX_HEADER_SIZE
# Bits of one element.
DTYPES = {
    **dict.fromkeys(("F4", "U4", "I4"), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
SHARD = re.compile(r".*\.safetensors")
MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor's entry: dtype, shape, and its bytes [begin, end) behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: str, root: str | None = None) -> tuple[dict[str, TensorHeader], tuple[Finding, ...]]:
    """The tensors of a file by name, and what is wrong with its header (DIR006); never raises."""
    place = shown_path(path)
    opened = open_inside(path, root)
    if isinstance(opened, Refusal):
        return {}, (opened.finding(place),)
    if opened is None:
        return {}, (_problem(place, "there is no such file"),)
    try:
        size = os.fstat(opened).st_size
        with os.fdopen(opened, "rb", closefd=False) as file:
            header = _read(file, size)
    except OSError as error:
        header = f"cannot be read: {error.strerror}"
    finally:
        os.close(opened)
    if header == _POINTER:
        return {}, (LFS_POINTER.at(Location(place), f"{place} is a git-lfs pointer, not the file itself"),)
    if isinstance(header, str):
        return {}, (_problem(place, header),)
    tensors, wrongs = _parse(header, path, size - 8 - len(header))
    return tensors, tuple(_problem(place, text, pointer) for text, pointer in wrongs)


_POINTER = "a git-lfs pointer"


def _read(file: BinaryIO, size: int) -> bytes | str:
    """The header's JSON, or what is wrong with its length."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    wrong = _wrong_length(size, length)
    if wrong is None:
        return file.read(length)
    return _POINTER if (start + file.read(32)).startswith(b"version https://git-lfs") else wrong


def _parse(header: bytes, path: str, room: int) -> tuple[dict[str, TensorHeader], list[tuple[str, str | None]]]:
    """The tensors, and what is wrong with them by JSON pointer; `room` is the bytes behind the header."""
    parsed = parse(header, path, "the header")
    problems = [(problem.message, problem.location.pointer if problem.location else None) for problem in parsed.problems]
    if not isinstance(parsed.value, dict):
        return {}, problems or [("the header is not a JSON object", None)]
    tensors, wrongs = _tensors(parsed.value, room)
    return tensors, [*problems, *wrongs]


Header = tuple[dict[str, TensorHeader], tuple[Finding, ...]]


def check_index(index: JsonFile, root: str, headers: Mapping[str, Header] | None = None) -> Iterator[Finding]:
    """What is wrong with model.safetensors.index.json (DIR007): shards that leave the directory, are missing, or hold other tensors.

    `headers` are what read_header() has returned for shards already, by name.
    """
    known = dict(headers or {})
    mapping = index.value.get("weight_map") if isinstance(index.value, dict) else None
    if not isinstance(mapping, dict):
        yield _index_problem(index, "has no weight_map object", "/weight_map")
        return
    shards: dict[str, list[str]] = {}
    for tensor, shard in mapping.items():
        shards.setdefault(shard if isinstance(shard, str) else "", []).append(tensor)
    wrongs = (wrong for shard, tensors in shards.items() if (wrong := _wrong_shard(shard, tensors, root, known)) is not None)
    for message, tensor in islice(wrongs, MAX_PROBLEMS):
        yield _index_problem(index, message, f"/weight_map/{tensor.replace('~', '~0').replace('/', '~1')}")
    unlisted = [(shard, tensor) for shard in shards for tensor in known.get(shard, ({},))[0] if tensor not in mapping]
    if unlisted:
        (shard, tensor), count = unlisted[0], len(unlisted)
        message = f"does not list {shown(tensor)} of {shown(shard)}" + (f", and {count - 1} more tensors" if count > 1 else "")
        yield _index_problem(index, f"{message}: a reader that uses the index does not load them", "/weight_map", Severity.INFO)


def _wrong_shard(shard: str, tensors: list[str], root: str, known: dict[str, Header]) -> tuple[str, str] | None:
    """What is wrong with one shard, and the tensor whose entry shows it; its header is added to `known`."""
    if not shard or os.path.isabs(shard) or ".." in shard.split("/") or "\0" in shard or not SHARD.fullmatch(shard):
        return f"names the shard {shown(shard)}, expected a .safetensors file inside the directory", tensors[0]
    if not os.path.lexists(os.path.join(root, shard)):
        return f"names {shown(shard)}, which is not here", tensors[0]
    held, problems = known[shard] = known.get(shard) or read_header(os.path.join(root, shard), root)
    if problems:
        return (f"names {shown(shard)}, which cannot be used: {problems[0].message}", tensors[0]) if "/" in shard else None
    lost = next((tensor for tensor in tensors if tensor not in held), None)
    return None if lost is None else (f"says that {shown(shard)} holds {shown(lost)}, which it does not", lost)


def _wrong_length(size: int, length: int) -> str | None:
    if size < 8:
        return f"has {size} bytes, a safetensors file has at least 8"
    if length > HEADER_LIMIT:
        return f"announces a header of {length} bytes, at most {HEADER_LIMIT} are allowed"
    if length > size - 8:
        return f"announces a header of {length} bytes, but only {size - 8} follow: it is cut short"
    return None


def _tensors(header: dict[str, Any], room: int) -> tuple[dict[str, TensorHeader], list[tuple[str, str | None]]]:
    tensors: dict[str, TensorHeader] = {}
    wrongs: list[tuple[str, str | None]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            if entry is not None and not (isinstance(entry, dict) and all(isinstance(text, str) for text in entry.values())):
                wrongs.append(("__metadata__ is not an object of texts", "/__metadata__"))
            continue
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        tensor, wrong = _tensor(name, entry, room)
        if tensor is not None:
            tensors[name] = tensor
        if wrong is not None:
            wrongs.append((f"tensor {shown(name)} {wrong}", pointer))
    if not wrongs:
        wrongs += _layout(tensors, room)
    return tensors, wrongs[:MAX_PROBLEMS]


def _tensor(name: str, entry: Any, room: int) -> tuple[TensorHeader | None, str | None]:
    malformed = _malformed(entry)
    if malformed is not None:
        return None, malformed
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    tensor = TensorHeader(name, dtype, tuple(shape), begin, end)
    bits = _bits(shape, DTYPES[dtype])
    if bits is None:
        return None, f"has the shape {shown(shape)}, whose size overflows 64 bits"
    if begin > end or end > room:
        return tensor, f"lies at [{begin}, {end}), outside the {room} bytes of data"
    if bits % 8 or bits // 8 != end - begin:
        return tensor, f"is {dtype} {shown(shape)}, which is {bits / 8:g} bytes, and has {end - begin}"
    return tensor, None


def _malformed(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "is not an object"
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"has the dtype {shown(dtype)}, which safetensors does not know"
    if not isinstance(shape, list) or not all(is_id(extent) and extent >= 0 for extent in shape):
        return "has a shape that is not a list of non-negative integers"
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_id(offset) and offset >= 0 for offset in offsets):
        return "has data_offsets that are not two non-negative integers"
    return None


def _bits(shape: list[int], each: int) -> int | None:
    """The tensor's size; None if a product overflows 64 bits on the way, which the library refuses even if a zero follows."""
    bits = 1
    for extent in (*shape, each):
        bits *= extent
        if bits >= 2**64 or extent >= 2**64:
            return None
    return bits


def _layout(tensors: dict[str, TensorHeader], room: int) -> list[tuple[str, str | None]]:
    """Tensors lie one behind the other: no overlap, no hole, nothing behind the last."""
    at = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != at:
            what = "overlaps the one before it" if tensor.begin < at else f"leaves a hole of {tensor.begin - at} bytes before it"
            return [(f"tensor {shown(tensor.name)} {what}", "/" + tensor.name)]
        at = tensor.end
    return [] if at == room else [(f"{room - at} bytes follow behind the last tensor", "")]


def _problem(file: str, message: str, pointer: str | None = None) -> Finding:
    return SAFETENSORS_HEADER.at(Location(file, pointer), f"{file}: {message}")


def _index_problem(index: JsonFile, message: str, pointer: str, severity: Severity | None = None) -> Finding:
    where = Location(index.shown_name, pointer, index.line(pointer))
    return SHARD_INDEX.at(where, f"{index.shown_name} {message}", severity=severity)
