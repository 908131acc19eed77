"""Small files that stand for much: each is refused or answered in a few hundred megabytes, at once."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_model


def run(*arguments: str, cwd: Path) -> tuple[int, str]:
    """The exit code and stderr of a command that may take 1.4 GB of address space (of which pyarrow maps 0.7 GB) and 20 s of a processor."""
    done = subprocess.run(
        ["bash", "-c", 'ulimit -t 20 -v 1400000; exec "$@"', "-", sys.executable, "-m", "llmdoctor", *arguments],
        cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "internal fault" not in done.stderr
    return done.returncode, done.stderr


def gguf(path: Path, *values: bytes, size: int = 0) -> None:
    """A GGUF file with one key, `a`; `size` makes it longer, without taking disk."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + b"".join(values))
    if size:
        os.truncate(path, size)


GGUF: dict[str, Callable[[Path], None]] = {
    "2**28 numbers": lambda path: gguf(path, struct.pack("<IIQ", 9, 0, 2**28), size=2**29),
    "2**26 empty texts": lambda path: gguf(path, struct.pack("<IIQ", 9, 8, 2**26), size=2**30),
    "a text of 2**40 bytes": lambda path: gguf(path, struct.pack("<IQ", 8, 2**40)),
    "a FIFO": os.mkfifo,
    "a directory": os.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", GGUF.values(), ids=GGUF)
def test_a_gguf_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x.gguf")
    (tmp_path / "Modelfile").write_text("FROM x.gguf\n")
    code, text = run("gencfg", "show", "x.gguf", cwd=tmp_path)
    assert code == 2
    assert text.startswith("llmdoctor: ")
    assert run("gencfg", "show", "Modelfile", cwd=tmp_path)[0] == (2 if (tmp_path / "x.gguf").is_file() else 0)


@pytest.mark.parametrize("column", ["list", "text", "no text"])
def test_a_parquet_file(column: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = {
        "list": lambda: pyarrow.DictionaryArray.from_arrays([0, 1], [[0] * 20_000_000, [1]]).dictionary_decode(),
        "text": lambda: pyarrow.array(["a" * 300_000_000, "b"]),
        "no text": lambda: pyarrow.array([b"\xff\xfe", b"b"]).view(pyarrow.string()),
    }
    parquet.write_table(
        pyarrow.table({"token_ids" if column == "list" else "text": values[column]()}), tmp_path / "x.parquet", compression="zstd"
    )
    write_model(tmp_path / "model")
    for command in (("gencfg", "runaway", "x.parquet"), ("labels", "audit", "model", "x.parquet")):
        code, text = run(*command, cwd=tmp_path)
        assert code == 2, text
        assert text.startswith("llmdoctor: ")


@pytest.mark.parametrize("decoded", [True, False])
def test_a_small_parquet_file_of_gigabytes(decoded: bool, tmp_path: Path) -> None:
    """Two kilobytes that stand for 1.2 GB, each row of them within every limit."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1_200, pyarrow.int32()), pyarrow.array(["a b " * 250_000]))
    parquet.write_table(
        pyarrow.table({"text": texts.dictionary_decode() if decoded else texts}), tmp_path / "x.parquet", compression="zstd"
    )
    write_model(tmp_path / "model")
    code, text = run("labels", "audit", "model", "x.parquet", cwd=tmp_path)
    assert code == 2, text
    assert text.startswith("llmdoctor: ")


def test_an_id_beyond_32_bits_names_no_token(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    file = json.loads((model / "tokenizer.json").read_text())
    file["added_tokens"][1]["id"] = 2**31
    (model / "tokenizer.json").write_text(json.dumps(file))
    (tmp_path / "outputs.jsonl").write_text('{"token_ids": [1, 2], "finish_reason": "stop"}\n' * 3)
    code, _ = run("gencfg", "runaway", "outputs.jsonl", "--model", "model", cwd=tmp_path)
    assert code in (0, 1)


def test_a_trace_of_one_line_without_end(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").touch()
    os.truncate(tmp_path / "run.jsonl", 2**36)
    for command in (["gencfg", "trace", "--summary"], ["gencfg", "show"], ["gencfg", "runaway"], ["mem", "measure", "--summary"], ["look"]):
        code, text = run(*command, "run.jsonl", cwd=tmp_path)
        assert code == 2 or command == ["look"], text


@pytest.mark.parametrize("part", ["for ", "for" + " " * 4000, "set a = b.content ", "for a in a" + "a" * 400 + " "])
def test_a_template_that_repeats_itself(part: str) -> None:
    from llmdoctor.labels.served import iterates_content

    start = time.process_time()
    assert not iterates_content(part * (2**19 // len(part)))
    assert time.process_time() - start < 1
