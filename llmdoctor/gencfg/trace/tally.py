"""Adds up a trace, call site by call site, in one pass and bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.attach.records import Record
from llmdoctor.gencfg.causes import cause_of
from llmdoctor.gencfg.question import Answer
from llmdoctor.gencfg.trace.read import as_written
from llmdoctor.gencfg.trace.sides import answer_of

_KEPT = 1000
# What decides whether a call can stop; calls alike in all of it are judged once.
_DECIDING = ("effective", "model_config", "kwargs", "user_config", "custom", "vocab_size", "prompt_length", "transformers", "error")


@dataclass(slots=True)
class Site:
    """The generate() calls of one line of code. Token counts are of new tokens; `positions` counts the positions, from 1, at which the
    first passed terminator stood; `wasted` are the tokens behind those. `bad` is the first call that cannot stop or that failed."""

    source: str
    file: str | None
    line: int | None
    stack: tuple[str, ...]
    calls: int = 0
    sequences: int = 0
    tokens: int = 0
    wasted: int = 0
    ended_by: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    positions: Counter[int] = field(default_factory=Counter)
    limits: Counter[int] = field(default_factory=Counter)
    never_stops: int = 0
    failed: int = 0
    bad: Answer | None = None
    last: Record | None = None

    def add(self, record: Record, answer: Answer) -> None:
        """One more call."""
        self.calls += 1
        self.last = record
        effective = answer.effective
        if effective.error is not None:
            self.failed += 1
        elif effective.stop.never_stops:
            self.never_stops += 1
        if self.bad is None and (effective.error is not None or effective.stop.never_stops):
            self.bad = answer
        if effective.stop.limit is not None:
            self.limits[effective.stop.limit] += 1
        for sequence in _objects(record.get("sequences")):
            self._sequence(sequence, record.get("terminators"))

    def _sequence(self, sequence: Record, terminators: Any) -> None:
        new, at = _count(sequence.get("new_tokens")), sequence.get("passed_terminator_at")
        self.sequences += 1
        self.tokens += new
        self.ended_by[str(sequence.get("stop_reason"))] += 1
        if isinstance(at, int) and 0 <= at < new:
            token = str(sequence.get("passed_terminator"))
            text = terminators.get(token) if isinstance(terminators, dict) else None
            self.passed[token if not isinstance(text, str) else text] += 1
            self.positions[at + 1] += 1
            self.wasted += new - at - 1

    @property
    def stopped(self) -> int:
        """Sequences that something ended before the limit."""
        return self.sequences - self.ended_by["length"]

    def complaint(self) -> str:
        """One paragraph on why these calls cannot stop."""
        cause = None if self.bad is None else cause_of(self.bad)
        why = "" if cause is None else f": {cause.text}\nFIX\n{cause.fix}"
        return f"generate() at {self.source} cannot stop before its length limit{why}"

    def median_position(self) -> int | None:
        """The median position, from 1, of the first terminator that was passed; None where none was."""
        half, seen = (sum(self.positions.values()) + 1) // 2, 0
        for position in sorted(self.positions):
            seen += self.positions[position]
            if seen >= half:
                return position
        return None


@dataclass(slots=True)
class Tally:
    """The whole trace. `mutations`, `imports` and `loads` hold up to 1000 records each, `vllm` those of rollouts that did not go through
    generate()."""

    sites: dict[tuple[Any, ...], Site] = field(default_factory=dict)
    ranks: set[int] = field(default_factory=set)
    processes: set[Any] = field(default_factory=set)
    mutations: list[Record] = field(default_factory=list)
    imports: list[Record] = field(default_factory=list)
    loads: list[Record] = field(default_factory=list)
    vllm: list[Record] = field(default_factory=list)
    faults: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    tracer_seconds: float = 0.0
    _judged: dict[str, Answer] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How many generate() calls there were."""
        return sum(site.calls for site in self.sites.values())

    def overhead(self) -> float | None:
        """The recorder's own time as a share of the time in generate(); None without any call."""
        return self.tracer_seconds / self.seconds if self.seconds > 0 else None

    def add(self, record: Record) -> None:
        """One more record."""
        kind = record["kind"]
        if kind == "run":
            return
        self.ranks.add(_count(record.get("rank")))
        self.processes.add(record.get("pid"))
        if kind == "generate":
            self._generate(record)
        else:
            kept = {"mutation": self.mutations, "import": self.imports, "load": self.loads, "vllm": self.vllm, "fault": self.faults}[kind]
            if len(kept) < _KEPT:
                kept.append(record)

    def _generate(self, record: Record) -> None:
        stack = tuple(str(entry) for entry in record.get("stack") or ())
        key = (record.get("file"), record.get("line"), stack[-1:])
        if key not in self.sites:
            line = record.get("line")
            file = record.get("file")
            self.sites[key] = Site(
                str(record.get("source")), file if isinstance(file, str) else None, line if isinstance(line, int) else None, stack
            )
        self.seconds += _seconds(record.get("seconds"))
        self.tracer_seconds += _seconds(record.get("tracer_seconds"))
        self.sites[key].add(record, self._judge(record))

    def _judge(self, record: Record) -> Answer:
        key = json.dumps([record.get(name) for name in _DECIDING], sort_keys=True)
        if key not in self._judged:
            if len(self._judged) >= _KEPT:
                self._judged.clear()
            self._judged[key] = answer_of(record)
        return self._judged[key]


def tally(records: Iterable[Record]) -> Tally:
    """Add up every record.

    Raises QuestionError for a record whose parts cannot be what the recorder writes.
    """
    total = Tally()
    for record in records:
        with as_written(record):
            total.add(record)
    return total


def _objects(value: Any) -> Iterator[Record]:
    yield from (entry for entry in (value if isinstance(value, list) else ()) if isinstance(entry, dict))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0
