"""The recorder without the launcher: a context manager over the code of one's own process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmdoctor.attach.records import Memory, PartFile, Record, Sink, encode, rank
from llmdoctor.attach.session import Session
from llmdoctor.core.report import Report
from llmdoctor.gencfg.trace.counts import count_records
from llmdoctor.gencfg.trace.recorder import attach
from llmdoctor.gencfg.trace.run import make_parts, run_record, write_merged
from llmdoctor.gencfg.trace.trace import report_on
from llmdoctor.gencfg.trace.trace_file import TraceFile, joined


class EndCounts:
    """How the sequences since the last take() ended: a Sink beside the one that keeps the records."""

    def __init__(self) -> None:
        self._sequences = self._past_terminator = self._at_limit = 0

    def write(self, record: Record) -> None:
        """Count the sequences of a generate() that has ended."""
        for sequence in record.get("sequences") or () if record.get("kind") in ("end", "generate") else ():
            self._sequences += 1
            self._past_terminator += sequence.get("passed_terminator_at") is not None
            self._at_limit += sequence.get("stop_reason") == "length"

    def take(self) -> dict[str, float]:
        """Return the number of sequences and the shares of them, and start to count again; empty if no sequence has ended."""
        total, past, limit = self._sequences, self._past_terminator, self._at_limit
        self._sequences = self._past_terminator = self._at_limit = 0
        return {"sequences": float(total), "past_terminator_share": past / total, "at_limit_share": limit / total} if total else {}


class _Both:
    """A Sink that passes each record to two others."""

    def __init__(self, first: Sink, second: Sink) -> None:
        self._sinks = (first, second)

    def write(self, record: Record) -> None:
        for sink in self._sinks:
            sink.write(record)


class Recording:
    """What has been recorded so far: records in memory, or in `path` once the block has ended. `counts` sees each record, too."""

    def __init__(self, path: Path | None, *, overwrite: bool = False, counts: EndCounts | None = None) -> None:
        self.path = path
        self.judged = False  # whether somebody has asked for the complaint already
        self._memory = Memory()
        self._parts = None if path is None else make_parts(path, overwrite=overwrite)
        self._run = run_record(sys.argv)
        self._session = Session(self._sink() if counts is None else _Both(self._sink(), counts))
        self._recorder = attach(self._session)
        self._session.hook.install()

    def _sink(self) -> Sink:
        return self._memory if self._parts is None else PartFile(str(self._parts))

    @property
    def records(self) -> list[Record]:
        """The records in memory, as a trace file holds them; empty where they go to a file."""
        return list(joined(self._memory.records))

    def report(self) -> Report:
        """The same answer as `llmdoctor gencfg trace --summary`."""
        return report_on(self._reading())

    def complaint(self) -> str | None:
        """One paragraph on the first call site whose generate() cannot stop; None where every call can, or none was made."""
        for site in count_records(self._reading().records()).sites.values():
            if site.never_stops:
                return site.complaint()
        return None

    def _reading(self) -> TraceFile:
        if self.path is not None:
            return TraceFile(str(self.path))
        return TraceFile("this process", lines=[encode(record) for record in (self._run, *self._memory.records)])

    def close(self) -> None:
        """Undo every patch, and write the file where one was asked for. May be called twice."""
        self._session.detach()
        if self.path is not None and self._parts is not None:
            write_merged(self.path, self._parts, self._run)
            self._parts = None


@contextmanager
def recording(path: str | Path | None = None, *, overwrite: bool = False) -> Iterator[Recording]:
    """Record loads, changes of generation configs and every generate() in this process while the block runs.

        with recording("run.jsonl"):
            model.generate(...)

    With `path` the trace is written there as the block ends (on ranks other than 0 to `run-rank1.jsonl` beside it), else its records stay in
    memory. transformers may have been imported before. Afterwards transformers is exactly as it was. Raises QuestionError if `path`
    cannot be written, or exists and `overwrite` is false.
    """
    found = Recording(None if path is None else rank_path(Path(path)), overwrite=overwrite)
    try:
        yield found
    finally:
        found.close()


def rank_path(path: Path) -> Path:
    """`path` for this process: run.jsonl on rank 0, run-rank3.jsonl on rank 3."""
    return path if rank() == 0 else path.with_name(f"{path.stem}-rank{rank()}{path.suffix}")
