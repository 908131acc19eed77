"""Reads a trace: JSON lines, one record each, possibly cut off, possibly still in one file a process."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdoctor.attach.records import Record, merge
from llmdoctor.core.errors import QuestionError
from llmdoctor.files.jsonfile import MAX_DEPTH, is_too_deep
from llmdoctor.files.jsonstream import read_lines
from llmdoctor.files.opening import open_inside

SCHEMA = "llmdoctor.trace/1"
PARTS = ".parts"
LINE_LIMIT = 64 * 2**20  # bytes of one record
KINDS = frozenset({"run", "load", "mutation", "import", "generate", "start", "end", "vllm", "fault"})


@dataclass(slots=True)
class TraceFile:
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
        found = False
        for record in joined(self._whole()):
            found = True
            yield record
        if not found:
            where = f"{self.path}:{self.unreadable[0]}: not a trace" if self.unreadable else f"{self.path}: an empty trace"
            raise QuestionError(f'{where}, expected lines such as {{"kind": "generate", ...}}, as `llmdoctor gencfg trace -o` writes them')

    def _whole(self) -> Iterator[Record]:
        for number, line in enumerate(self._lines(), 1):
            record = _record(line)
            if record is None:
                self.unreadable.append(number)
                continue
            if record["kind"] == "run":
                self._check(record, number)
                self.run = record
            yield record

    def _lines(self) -> Iterator[bytes]:
        if self.lines is not None:
            yield from self.lines
            return
        parts = parts_of(self.path)
        try:
            found = os.stat(self.path)
        except (OSError, ValueError) as error:
            if parts is None:
                raise QuestionError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from None
        else:
            if parts is not None and parts.stat().st_mtime < found.st_mtime:
                parts = None  # of an earlier run that was cut off
        if parts is not None:
            self.parts = True
            yield from merge(parts.glob("*.jsonl"))
            return
        opened = open_inside(self.path, None)
        if not isinstance(opened, int):
            raise QuestionError(f"{self.path}: {'no such file' if opened is None else f'{opened.reason}, expected a trace'}")
        with os.fdopen(opened, "rb") as file:
            try:
                if file.peek(1)[:1] not in (b"{", b""):  # soon, as one long line can have gigabytes
                    raise QuestionError(f"{self.path}: expected a trace, one JSON object a line")
                for _, line in read_lines(file, LINE_LIMIT):
                    yield b"" if line is None else line  # what is longer than any record counts as unreadable
            except OSError as error:
                raise QuestionError(f"{self.path}: {error.strerror or error}") from None

    def _check(self, record: Record, number: int) -> None:
        schema = record.get("schema")
        if schema != SCHEMA:
            raise QuestionError(
                f"{self.path}:{number}: written as {schema!r}, this llmdoctor reads {SCHEMA}; use the version that wrote it"
            )


def joined(records: Iterable[Record]) -> Iterator[Record]:
    """Records in the order of time, each generate() in one: its "start", written as decoding began, with its "end". One that has no end when the
    records are over was still running, which "unfinished" says. Each is numbered in "call", in the order in which they ended."""
    started: dict[tuple[Any, Any], Record] = {}
    calls = itertools.count(1)
    for record in records:
        kind, key = record.get("kind"), (str(record.get("pid")), str(record.get("number")))
        if kind == "start":
            started[key] = record
        elif kind == "end":
            yield {**started.pop(key, {}), **record, "kind": "generate", "call": next(calls)}
        elif kind == "generate":
            yield {**record, "call": next(calls)}
        else:
            yield record
    for record in started.values():
        yield {**record, "kind": "generate", "call": next(calls), "sequences": [], "error": None, "unfinished": True}


@contextmanager
def as_written(record: Record) -> Iterator[None]:
    """Whatever goes wrong in the block for the parts of `record` becomes one sentence: they are not what the recorder writes."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        kind = record.get("kind")
        raise QuestionError(f'a "{kind}" record of the trace is not as llmdoctor writes it: {type(error).__name__}: {error}') from None


def _record(line: bytes) -> Record | None:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and is_too_deep(value):
        return None
    kind = value.get("kind") if isinstance(value, dict) else None
    return value if isinstance(kind, str) and kind in KINDS else None


def parts_of(path: str) -> Path | None:
    """The newest folder of unmerged files that a run with -o `path` has left behind; None where there is none."""
    target = Path(path)
    found = [folder for folder in target.parent.glob(f"{target.name}.*{PARTS}") if folder.is_dir()]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)
