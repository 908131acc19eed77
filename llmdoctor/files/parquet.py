"""Parquet tables, row by row in batches, so that memory does not grow with the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BufferedReader
from typing import Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.core.processes import memory_limit
from llmdoctor.core.text import clean
from llmdoctor.files.opening import open_inside, shown_path

_BATCH = 256  # rows at a time, fewer of large rows
_ROWS_BYTES = 2**25  # that a batch takes by the footer's sizes
_EXPANDED = 2**28, 1000  # bytes of rows, and how many times the size of the file, beyond which it is not read on
_MEMORY = 2**29  # bytes that a batch may take in fact: a few bytes of a compressed file can stand for gigabytes


class ParquetTable:
    """An open parquet file: the names of its columns and the number of its rows."""

    def __init__(self, file: BufferedReader, shown_name: str, command: str) -> None:
        """Read the footer of `file`. Raises MissingExtra, for `command`, without pyarrow, and QuestionError if the file is not whole."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise MissingExtra(f"{command} on a parquet file", "pyarrow", "tables") from None
        self._shown_name = shown_name
        # pyarrow raises OSError for damaged data too, and UnicodeDecodeError for a column whose name is not UTF-8.
        self._errors = (pyarrow.ArrowException, OSError, ValueError)
        self._table: Any = self._read(lambda: parquet.ParquetFile(file, buffer_size=2**20, memory_map=False))
        self.columns: list[str] = self._read(lambda: [str(name) for name in self._table.schema_arrow.names])
        self.rows: int = self._table.metadata.num_rows
        self._size = os.fstat(file.fileno()).st_size

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield each row with the values of `columns`.

        Raises QuestionError for damaged data, and for a small file whose rows (a dictionary, runs) come to gigabytes.
        """
        size = sum(self._table.metadata.row_group(number).total_byte_size for number in range(self._table.num_row_groups))
        rows = max(1, min(_BATCH, _ROWS_BYTES * self.rows // max(1, size)))
        total = 0
        batches = iter(self._table.iter_batches(batch_size=rows, columns=list(columns), use_threads=False))
        while True:
            batch = self._read(lambda: next(batches, None))
            if batch is None:
                return
            total += self._read(partial(_bytes, batch))
            if total > max(_EXPANDED[0], _EXPANDED[1] * self._size):
                raise QuestionError(
                    f"{self._shown_name}: its rows hold over {total // 2**20:,} MiB, more than {_EXPANDED[1]:,} times the size of the file: "
                    "texts that are repeated so often are not read on; write each of them once"
                )
            yield from self._read(batch.to_pylist)

    def _read(self, step: Callable[[], Any]) -> Any:
        try:
            with memory_limit(_MEMORY):
                return step()
        except MemoryError:
            raise QuestionError(f"{self._shown_name}: a row of it takes more than {_MEMORY // 2**20} MiB of memory") from None
        except self._errors as error:
            reason = clean(" ".join(str(error).split()))[:200]
            raise QuestionError(f"{self._shown_name}: cannot be read as parquet: {reason}") from None


def _bytes(batch: Any) -> int:
    """Return the size of a batch, the texts of a dictionary counted as often as they stand in a row."""
    return sum(
        int(column.dictionary_decode().nbytes if hasattr(column, "dictionary_decode") else column.nbytes) for column in batch.columns
    )


def read_columns(path: str, command: str) -> dict[str, list[Any]]:
    """Return every column of a parquet file by name. Raises MissingExtra, for `command`, without pyarrow, and QuestionError."""
    opened = open_inside(path, None)
    if not isinstance(opened, int):
        raise QuestionError(f"{path}: no such file" if opened is None else f"{shown_path(path)} {opened.reason}")
    with os.fdopen(opened, "rb") as file:
        table = ParquetTable(file, shown_path(path), command)
        out: dict[str, list[Any]] = {name: [] for name in table.columns}
        for row in table.read(table.columns):
            for name, value in row.items():
                out[name].append(value)
    return out
