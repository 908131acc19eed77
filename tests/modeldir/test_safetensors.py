"""safetensors headers, with the real library as a second opinion."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.files.jsonfile import read_json_file
from llmdoctor.files.safetensors import check_index, read_header

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def wrong(path: Path) -> tuple[Finding, ...]:
    return read_header(str(path), str(path.parent))[1]


def library_refuses(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            list(file.keys())
    except (SafetensorError, OSError):
        return True
    return False


@QUICK
@given(
    shapes=st.dictionaries(st.text(min_size=1, max_size=6), st.lists(st.integers(0, 4), max_size=3), max_size=4), note=st.text(max_size=5)
)
def test_what_the_library_writes_is_accepted(shapes: dict[str, list[int]], note: str, tmp_path: Path) -> None:
    dtypes = (np.float32, np.int8, np.float16, np.bool_)
    tensors = {name: np.zeros(shape, dtypes[index % 4]) for index, (name, shape) in enumerate(shapes.items())}
    tensors.pop("__metadata__", None)
    save_file(tensors, tmp_path / "m.safetensors", {"note": note})
    found, problems = read_header(str(tmp_path / "m.safetensors"), str(tmp_path))
    assert problems == ()
    assert {name: list(header.shape) for name, header in found.items()} == {name: list(tensor.shape) for name, tensor in tensors.items()}


GOOD = {"a": entry(0, 8), "b": entry(8, 16)}
REFUSED: dict[str, tuple[Any, bytes]] = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12),
    "the same bytes twice": ({"a": entry(0, 8), "b": entry(0, 8)}, b"\0" * 8),
    "hole": ({"a": entry(0, 8), "b": entry(12, 20)}, b"\0" * 20),
    "hole at the start": ({"a": entry(4, 8)}, b"\0" * 8),
    "data left over": (GOOD, b"\0" * 20),
    "data cut short": (GOOD, b"\0" * 12),
    "size does not fit the shape": ({"a": entry(0, 8, [3])}, b"\0" * 8),
    "unknown dtype": ({"a": entry(0, 8, dtype="F33")}, b"\0" * 8),
    "ends before it begins": ({"a": entry(8, 0, [2])}, b"\0" * 8),
    "overflowing shape": ({"a": entry(0, 0, [2**32, 2**32, 2])}, b""),
    "overflow before a zero": ({"a": entry(0, 0, [2**63, 4, 0])}, b""),
    "negative extent": ({"a": entry(0, 8, [-2])}, b"\0" * 8),
    "fractional extent": ({"a": {**entry(0, 8), "shape": [2.0]}}, b"\0" * 8),
    "true is no extent": ({"a": {**entry(0, 4), "shape": [True]}}, b"\0" * 4),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    "three offsets": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, b"\0" * 8),
    "a tensor that is a list": ({"a": [1]}, b""),
    "metadata that is not text": ({"__metadata__": {"a": 1}}, b""),
    "header that is a list": ([], b""),
    "header that is no JSON": (b'{"a": ', b""),
    "header that is not UTF-8": (b'{"\xff": 1}', b""),
    "half a byte": ({"a": entry(0, 1, [1], "F4")}, b"\0"),
}


@pytest.mark.parametrize(("header", "data"), REFUSED.values(), ids=REFUSED)
def test_what_the_library_refuses_is_found(header: Any, data: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", header, data)
    assert library_refuses(path)
    problems = wrong(path)
    assert {problem.code for problem in problems} == {"DIR006"}
    assert all(len(problem.message) < 400 for problem in problems)


ACCEPTED: dict[str, tuple[Any, bytes]] = {
    "two tensors": (GOOD, b"\0" * 16),
    "any order": ({"b": entry(8, 16), "a": entry(0, 8)}, b"\0" * 16),
    "no tensor": ({}, b""),
    "an empty tensor between": ({"a": entry(0, 8), "e": entry(8, 8, [0, 7]), "b": entry(8, 16)}, b"\0" * 16),
    "scalar": ({"a": entry(0, 4, [])}, b"\0" * 4),
    "a space first": (b" {}", b""),
    "padding": (json.dumps(GOOD).encode() + b"   ", b"\0" * 16),
    "four bits": ({"a": entry(0, 1, [2], "F4")}, b"\0"),
}


@pytest.mark.parametrize(("header", "data"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_library_accepts_is_accepted(header: Any, data: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", header, data)
    assert not library_refuses(path)
    assert wrong(path) == ()


extents = st.integers(0, 9) | st.sampled_from([2**31, 2**32, 2**62, 2**64 - 1, 2**64, 10**100])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "F4", "X"]),
        "shape": st.lists(extents, max_size=3),
        "data_offsets": st.tuples(extents, extents),
    }
)


@QUICK
@given(header=st.dictionaries(st.sampled_from("abc"), entries, max_size=3), size=st.integers(0, 40))
def test_random_headers_get_the_librarys_verdict(header: dict[str, Any], size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", header, b"\0" * size)
    assert bool(wrong(path)) == library_refuses(path)


@QUICK
@given(at=st.integers(0, 160), byte=st.integers(0, 255))
def test_one_changed_byte_gets_the_librarys_verdict(at: int, byte: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", GOOD, b"\0" * 16)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data)
    if library_refuses(path):
        assert wrong(path)


LENGTHS = {
    "announces too much": 10_000,
    "announces 2**63": 2**63,
    "announces 2**64 - 1": 2**64 - 1,
    "announces nothing": 0,
    "beyond the cap": 100_000_001,
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_the_length_of_the_header(length: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", GOOD, b"\0" * 16, length)
    assert library_refuses(path)
    assert [problem.code for problem in wrong(path)] == ["DIR006"]


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_tiny_files(size: int, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\x09" * size)
    assert [problem.code for problem in wrong(tmp_path / "m.safetensors")] == ["DIR006"]


def test_a_duplicate_name(tmp_path: Path) -> None:
    text = f'{{"a": {json.dumps(entry(0, 8))}, "a": {json.dumps(entry(0, 8))}}}'.encode()
    (problem,) = wrong(write(tmp_path / "m.safetensors", text, b"\0" * 8))
    assert problem.code == "DIR006"
    assert "twice" in problem.message


@pytest.mark.timeout(10)
@pytest.mark.parametrize("shape", [[10**399], [2**62] * 100_000, [0] * 100_000], ids=["one huge extent", "many huge extents", "many zeros"])
def test_huge_shapes_end_soon(shape: list[int], tmp_path: Path) -> None:
    problems = wrong(write(tmp_path / "m.safetensors", {"a": entry(0, 8, shape)}, b"\0" * 8))
    assert [problem.code for problem in problems] == ["DIR006"]
    assert len(problems[0].message) < 400


def test_a_thousand_wrong_tensors_are_told_by_the_first(tmp_path: Path) -> None:
    header = {f"t{index}": entry(0, 8, [3]) for index in range(1000)}
    assert 1 < len(wrong(write(tmp_path / "m.safetensors", header, b"\0" * 8))) <= 20


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (problem,) = wrong(tmp_path / "m.safetensors")
    assert (problem.code, problem.fix) == ("DIR013", "git lfs pull")


def index(tmp_path: Path, weight_map: Any) -> Iterator[Finding]:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}, indent=1))
    file = read_json_file(str(tmp_path / "model.safetensors.index.json"), str(tmp_path))
    return check_index(file, str(tmp_path))


@pytest.mark.parametrize(
    "shard", ["../m.safetensors", "/etc/m.safetensors", "sub/../../m.safetensors", "m.bin", "", 7, "a\0.safetensors", "missing.safetensors"]
)
def test_a_shard_that_is_not_here(shard: Any, tmp_path: Path) -> None:
    write(tmp_path / "m.safetensors", GOOD, b"\0" * 16)
    (problem,) = index(tmp_path, {"a": "m.safetensors", "x": shard, "b": "m.safetensors"})
    assert problem.location is not None
    assert (problem.code, problem.location.pointer, problem.location.line) == ("DIR007", "/weight_map/x", 4)


def test_a_shard_through_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "home").mkdir()
    write(tmp_path / "out" / "m.safetensors", GOOD, b"\0" * 16)
    (tmp_path / "home" / "sub").symlink_to("../out")
    assert [problem.code for problem in index(tmp_path / "home", {"a": "sub/m.safetensors"})] == ["DIR007"]


def test_a_tensor_that_its_shard_does_not_hold(tmp_path: Path) -> None:
    write(tmp_path / "m.safetensors", GOOD, b"\0" * 16)
    (problem,) = index(tmp_path, {"a": "m.safetensors", "b": "m.safetensors", "lm_head/weight": "m.safetensors"})
    assert problem.location is not None
    assert problem.location.pointer == "/weight_map/lm_head~1weight"
    assert list(index(tmp_path, {"a": "m.safetensors", "b": "m.safetensors"})) == []


def test_a_tensor_that_the_index_does_not_list(tmp_path: Path) -> None:
    write(tmp_path / "m.safetensors", GOOD, b"\0" * 16)
    (problem,) = index(tmp_path, {"a": "m.safetensors"})
    assert (problem.code, problem.severity) == ("DIR007", Severity.INFO)
    assert "does not list 'b' of 'm.safetensors'" in problem.message


def test_an_index_without_a_map(tmp_path: Path) -> None:
    assert [problem.code for problem in index(tmp_path, [1])] == ["DIR007"]


def test_many_missing_shards_are_told_by_the_first(tmp_path: Path) -> None:
    assert len(list(index(tmp_path, {f"t{number}": f"m{number}.safetensors" for number in range(1000)}))) <= 20
