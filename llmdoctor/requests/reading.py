"""What a reader of recorded outputs notices on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.requests.rows import Columns, Row, Unusable, is_ids, rows_of

KEPT = 5


@dataclass(slots=True)
class Reading:
    """What a reader notices on the way: records that were skipped, with the first few by line, and how far it is.

    `word` is what a record's number counts: lines, rows of a table, items of a list. `at` and `size` are in bytes of the file (rows of a
    table), for the progress alone.
    """

    shown_name: str
    columns: Columns = field(default_factory=Columns)
    records: int = 0
    skipped: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)
    names: tuple[str, ...] = ()
    form: str = ""
    word: str = "line"
    at: int = 0
    size: int = 0

    def skip(self, line: int, reason: str) -> None:
        """Count a record that holds no sequence."""
        self.skipped += 1
        if len(self.first) < KEPT:
            self.first.append((line, reason))

    def rows(self, value: Any, line: int) -> Iterator[Row]:
        """The sequences of one decoded value; none where it is skipped. Each item of a list is a record with a number of its own."""
        if isinstance(value, list) and not is_ids(value):
            self.word = "item"
            for item in value:
                yield from self._record(item, self.records + 1)
        else:
            yield from self._record(value, line)

    def _record(self, value: Any, line: int) -> Iterator[Row]:
        if isinstance(value, dict) and {"kind", "t"} <= value.keys() and ("pid" in value or "schema" in value):
            raise QuestionError(f"{self.shown_name}: a trace, not outputs: use `llmdoctor gencfg trace --summary {self.shown_name}`")
        self.records += 1
        try:
            yield from list(rows_of(value, line, self.columns))
        except Unusable as error:
            self.names = self.names or error.names
            self.skip(line, str(error))
        except RecursionError:
            self.skip(line, "an object that is nested too deeply")
