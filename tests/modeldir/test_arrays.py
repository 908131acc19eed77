"""The one reader of arrays: what it reads is what numpy and safetensors wrote, and sizes are judged before anything is allocated."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.files import arrays
from llmdoctor.files.arrays import read_arrays

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def safetensors(dtype: str, array: np.ndarray[Any, Any]) -> bytes:
    header = json.dumps({"a": {"dtype": dtype, "shape": list(array.shape), "data_offsets": [0, array.nbytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + array.tobytes()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "a.npz", a=ROWS)
    np.savez_compressed(tmp_path / "b.npz", a=ROWS)
    (tmp_path / "a.safetensors").write_bytes(safetensors("F32", ROWS))
    for name, key in (("a.npy", ""), ("a.npz", "a"), ("b.npz", "a"), ("a.safetensors", "a")):
        assert np.array_equal(read_arrays(str(tmp_path / name)).arrays[key], ROWS)
    bits = (ROWS.view(np.uint32) >> 16).astype(np.uint16)
    (tmp_path / "b.safetensors").write_bytes(safetensors("BF16", bits))
    assert np.array_equal(read_arrays(str(tmp_path / "b.safetensors")).floats("a"), ROWS)
    (tmp_path / "c.safetensors").write_bytes(safetensors("F8_E4M3", np.zeros(3, np.uint8)))
    assert read_arrays(str(tmp_path / "c.safetensors")).unread == {"a": "F8_E4M3"}
    (tmp_path / "a.json").write_text("[[1, 2]]")
    assert read_arrays(str(tmp_path / "a.json")).value == [[1, 2]]


def test_a_small_archive_does_not_become_a_large_array(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**28,)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w", force_zip64=True) as file:
        file.write(header.getvalue())
        for _ in range(1024):
            file.write(bytes(2**20))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**21
    tracemalloc.start()
    try:
        with pytest.raises(QuestionError, match="unpacks to more than 512 MiB"):
            read_arrays(str(tmp_path / "bomb.npz"))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_an_archive_that_is_not_compressed_may_be_as_large_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", a=ROWS)
    monkeypatch.setattr(arrays, "UNPACKED_LIMIT", 10)
    assert np.array_equal(read_arrays(str(tmp_path / "a.npz")).arrays["a"], ROWS)


def test_a_header_that_announces_more_than_there_is(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    (tmp_path / "a.npy").write_bytes(out.getvalue() + bytes(64))
    with pytest.raises(QuestionError, match="cut short"):
        read_arrays(str(tmp_path / "a.npy"))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", out.getvalue() + bytes(64))
    with pytest.raises(QuestionError, match="cut short"):
        read_arrays(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.json", "a.pt"])
@pytest.mark.timeout(10)
def test_a_fifo_and_a_folder_are_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(QuestionError, match="is a FIFO, not a file"):
        read_arrays(str(tmp_path / name))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(QuestionError, match="is a directory, not a file"):
        read_arrays(str(tmp_path / name))
