"""A parquet table of recorded outputs, in batches: TRL's completions_00010.parquet and whatever else has such columns.

trl 1.0.0 GRPO and RLOO write step, prompt, completion, one column a reward, advantage (grpo_trainer.py:2504); the completion is decoded
without special tokens (:1947), so a terminator that was passed cannot be seen in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.requests.prompts import PROMPTS
from llmdoctor.requests.rows import COUNTS, HOLDERS, IDS, LIMITS, REASONS, TEXTS, Row

if TYPE_CHECKING:
    from llmdoctor.requests.reading import Reading

_BATCH = 256


def read_table(file: BufferedReader, reading: Reading) -> Iterator[Row]:
    """Every sequence of the table; a row's number counts from 1.

    Raises MissingExtra without pyarrow, QuestionError where the file is no whole parquet file or no column fits.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("gencfg runaway on a parquet file", "pyarrow", "tables") from None
    try:
        table: Any = parquet.ParquetFile(file)
        names = [str(name) for name in table.schema_arrow.names]
        reading.word = "row"
        reading.names, reading.size = tuple(names), table.metadata.num_rows
        yield from _batches(table, names, reading)
    except (pyarrow.ArrowException, OSError) as error:  # it raises OSError for damaged data too
        said = " ".join(str(error).split())[:200]
        raise QuestionError(f"{reading.shown_name}: cannot be read as parquet: {said}") from None


def _batches(table: Any, names: list[str], reading: Reading) -> Iterator[Row]:
    columns = reading.columns
    known = {*IDS, *TEXTS, *REASONS, *LIMITS, *COUNTS, *HOLDERS, *PROMPTS, "choices", "body", columns.ids, columns.text}
    wanted = [name for name in names if name in known]
    if not any(name in wanted for name in (*columns.id_names, *columns.text_names, "choices", "body")):
        return  # the report says which columns there are
    number = 0
    for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
        for value in batch.to_pylist():
            number += 1
            yield from reading.rows(value, number)
        reading.at = number
