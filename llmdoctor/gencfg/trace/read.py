"""Reads a trace: JSON lines, one record each, possibly cut off, possibly still in one file a process."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdoctor.attach.records import Record, merge
from llmdoctor.core.errors import QuestionError

SCHEMA = "llmdoctor.trace/1"
PARTS = ".parts"
KINDS = frozenset({"run", "load", "mutation", "import", "generate", "vllm", "fault"})


@dataclass(slots=True)
class Reading:
    """A trace being read. After records() has ended, `run` is the record of the whole run (None where the trace was cut before it was
    merged), `unreadable` the lines that are no records, and `parts` whether one file a process was read. `lines` stand in for the file."""

    path: str
    run: Record | None = None
    unreadable: list[int] = field(default_factory=list)
    parts: bool = False
    lines: Sequence[bytes] | None = None

    def records(self) -> Iterator[Record]:
        """Every record, in the order of time; a generate() without a number is given the next one as "call".

        Raises QuestionError where there is no such file, or nothing in it is a record.
        """
        found, calls = False, 0
        for number, line in enumerate(self._lines(), 1):
            record = _record(line)
            if record is None:
                self.unreadable.append(number)
                continue
            found = True
            if record["kind"] == "run":
                self._check(record, number)
                self.run = record
            elif record["kind"] == "generate":
                calls += 1
                record["call"] = calls
            yield record
        if not found:
            where = f"{self.path}:{self.unreadable[0]}: not a trace" if self.unreadable else f"{self.path}: an empty trace"
            raise QuestionError(f'{where}, expected lines such as {{"kind": "generate", ...}}, as `llmdoctor gencfg trace -o` writes them')

    def _lines(self) -> Iterator[bytes]:
        if self.lines is not None:
            yield from self.lines
            return
        try:
            kind = os.stat(self.path).st_mode
        except OSError as error:
            parts = parts_of(self.path)
            if parts is None:
                raise QuestionError(f"{self.path}: {error.strerror or error}") from None
            self.parts = True
            yield from merge(parts.glob("*.jsonl"))
            return
        if not stat.S_ISREG(kind):
            raise QuestionError(f"{self.path}: not a regular file, expected a trace")
        try:
            with open(self.path, "rb") as file:
                yield from file
        except OSError as error:
            raise QuestionError(f"{self.path}: {error.strerror or error}") from None

    def _check(self, record: Record, number: int) -> None:
        schema = record.get("schema")
        if schema != SCHEMA:
            raise QuestionError(
                f"{self.path}:{number}: written as {schema!r}, this llmdoctor reads {SCHEMA}; use the version that wrote it"
            )


@contextmanager
def as_written(record: Record) -> Iterator[None]:
    """Whatever goes wrong in the block for the parts of `record` becomes one sentence: they are not what the recorder writes."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        kind = record.get("kind")
        raise QuestionError(f'a "{kind}" record of the trace is not as llmdoctor writes it: {type(error).__name__}: {error}') from None


def _record(line: bytes) -> Record | None:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kind = value.get("kind") if isinstance(value, dict) else None
    return value if isinstance(kind, str) and kind in KINDS else None


def parts_of(path: str) -> Path | None:
    """The newest folder of unmerged files that a run with -o `path` has left behind; None where there is none."""
    target = Path(path)
    found = [folder for folder in target.parent.glob(f"{target.name}.*{PARTS}") if folder.is_dir()]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)
