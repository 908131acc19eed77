"""Rows of a dataset: JSON lines, a JSON list, parquet, or a folder that datasets' save_to_disk wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.files.jsonfile import read_optional
from llmdoctor.files.opening import Refusal, open_inside, shown_path
from llmdoctor.files.parquet import ParquetTable
from llmdoctor.labels.types import Row

LINE_LIMIT = 64 * 2**20  # bytes of one row
LIST_LIMIT = 512 * 2**20  # bytes of a JSON list


def read_rows(path: str) -> Iterator[Row]:
    """Return the rows of a dataset, one at a time. Raises QuestionError for what is not a table of rows, with the line."""
    if os.path.isdir(path):
        yield from _saved(path)
        return
    with open(_opened(path), "rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == b"PAR1":
            yield from _parquet(file, path)
        elif head.lstrip()[:1] == b"[":
            yield from _list(file.read(LIST_LIMIT + 1), path)
        else:
            yield from _lines(file, path)


def _opened(path: str) -> int:
    opened = open_inside(path, None)
    if opened is None or isinstance(opened, Refusal):
        raise QuestionError(f"{path}: no such file" if opened is None else f"{shown_path(path)} {opened.reason}")
    return opened


def _saved(folder: str) -> Iterator[Row]:
    """Return the rows of a folder that datasets' save_to_disk wrote: state.json names its Arrow files in order (datasets 5.2.0 arrow_dataset.py)."""
    splits = read_optional(f"{folder}/dataset_dict.json", folder)
    names = splits.value.get("splits") if splits is not None and isinstance(splits.value, dict) else None
    if isinstance(names, list) and names:
        raise QuestionError(f"{folder}: a dataset with the splits {', '.join(map(str, names[:5]))}: name one, such as {folder}/{names[0]}")
    state = read_optional(f"{folder}/state.json", folder)
    files = state.value.get("_data_files") if state is not None and isinstance(state.value, dict) else None
    if not isinstance(files, list):
        raise QuestionError(f"{folder}: a directory that datasets' save_to_disk did not write (no state.json); name a file of rows in it")
    number = 0
    for entry in files:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or os.path.basename(name) != name:
            raise QuestionError(f"{folder}/state.json: expected the names of files in this folder, found {str(name)[:60]}")
        with open(_opened(f"{folder}/{name}"), "rb") as file:
            for value in _arrow(file, f"{folder}/{name}"):
                yield Row(number, value)
                number += 1


def _arrow(file: Any, path: str) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError:
        raise MissingExtra("reading a datasets folder", "pyarrow", "tables") from None
    try:
        for batch in ipc.open_stream(file):
            for start in range(0, batch.num_rows, 256):
                yield from batch.slice(start, 256).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: a text that is not UTF-8
        raise QuestionError(f"{path}: not a whole Arrow file: {' '.join(str(error).split())[:200]}") from None


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
    table = ParquetTable(file, path, "labels")
    for number, value in enumerate(table.read(table.columns)):
        yield Row(number, value)


def _columns(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise QuestionError(f"{where}: expected an object with the columns of a row, found {type(value).__name__}")
    return value
