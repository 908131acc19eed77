"""Rows of a dataset file: JSON lines, a JSON list, or parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.files.opening import Refusal, open_inside, shown_path
from llmdoctor.labels.types import Row

LINE_LIMIT = 64 * 2**20  # bytes of one row
LIST_LIMIT = 512 * 2**20  # bytes of a JSON list


def read_rows(path: str) -> Iterator[Row]:
    """Return the rows of a file, one at a time. Raises QuestionError for what is not a table of rows, with the line."""
    opened = open_inside(path, None)
    if opened is None or isinstance(opened, Refusal):
        raise QuestionError(f"{path}: no such file" if opened is None else f"{shown_path(path)} {opened.reason}")
    with open(opened, "rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == b"PAR1":
            yield from _parquet(file, path)
        elif head.lstrip()[:1] == b"[":
            yield from _list(file.read(LIST_LIMIT + 1), path)
        else:
            yield from _lines(file, path)


def _lines(file: Any, path: str) -> Iterator[Row]:
    import msgspec

    decode = msgspec.json.Decoder().decode
    number = 0
    for line_number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        if len(line) > LINE_LIMIT:
            raise QuestionError(f"{path}:{line_number}: the line has more than {LINE_LIMIT // 2**20} MiB")
        if not line.strip():
            continue
        try:
            value = decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError):
            value = _slowly(line, path, line_number)
        yield Row(number, value if isinstance(value, dict) else _columns(value, f"{path}:{line_number}"))
        number += 1


def _slowly(line: bytes, path: str, number: int) -> Any:
    """Return what only Python's json reads (NaN), or raise QuestionError with its reason."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{path}:{number}: not JSON: {error}") from None


def _list(data: bytes, path: str) -> Iterator[Row]:
    if len(data) > LIST_LIMIT:
        raise QuestionError(f"{path}: a JSON list of more than {LIST_LIMIT // 2**20} MiB: write it as JSON lines")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{path}: not JSON: {error}") from None
    for number, value in enumerate(values):
        yield Row(number, _columns(value, f"{path}: item {number}"))


def _parquet(file: Any, path: str) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("reading a parquet dataset", "pyarrow", "tables") from None
    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=256):
            for value in batch.to_pylist():
                yield Row(number, value)
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise QuestionError(f"{path}: not a whole parquet file: {' '.join(str(error).split())[:200]}") from None


def _columns(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise QuestionError(f"{where}: expected an object with the columns of a row, found {type(value).__name__}")
    return value
