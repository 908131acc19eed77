"""Counts over a trace, per call site, in one pass and bounded memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.attach.records import Record
from llmdoctor.gencfg.causes import Cause, cause_of, passed_cause
from llmdoctor.gencfg.trace.sides import INTERRUPTS, answer_of
from llmdoctor.gencfg.trace.trace_file import as_written
from llmdoctor.gencfg.types import Resolution

_KEPT = 1000
# What decides whether a call can stop; calls alike in all of it are judged once.
_DECIDING = (
    "effective",
    "model_config",
    "kwargs",
    "user_config",
    "custom",
    "vocab_size",
    "prompt_length",
    "transformers",
    "error",
    "model_seen",
    "own",
    "batch",
    "wrapper",
)


@dataclass(slots=True)
class CallSite:
    """The generate() calls of one line of code.

    Token counts are of new tokens; `positions` counts the positions, from 1, at which the first passed terminator stood; `wasted` are the
    tokens behind those. `unfinished` calls were interrupted, or still running when their process ended. `bad` is the first call that cannot
    stop or that failed, `passing` the first that stops at some ids and ran past another terminator, with that one's id, `first` the first.
    `own` calls went to a generate() that replaces the one of transformers; `criteria` are the classes of the StoppingCriteria passed.
    """

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
    unfinished: int = 0
    failed: int = 0
    own: int = 0
    criteria: set[str] = field(default_factory=set)
    first: Resolution | None = None
    bad: Resolution | None = None
    passing: tuple[Resolution, int] | None = None
    last: Record | None = None

    def add(self, record: Record, answer: Resolution) -> None:
        """One more call."""
        self.calls += 1
        self.first, self.last = self.first or answer, record
        effective = answer.effective
        self.own += isinstance(record.get("own"), str)
        self._custom(record.get("custom"))
        error = record.get("error")
        if record.get("unfinished") is True or (isinstance(error, dict) and error.get("type") in INTERRUPTS):
            self.unfinished += 1
        if effective.error is not None:
            self.failed += 1
        elif effective.stop.never_stops:
            self.never_stops += 1
        if self.bad is None and (effective.error is not None or effective.stop.never_stops):
            self.bad = answer
        if effective.stop.limit is not None:
            self.limits[effective.stop.limit] += 1
        for sequence in _objects(record.get("sequences")) if not isinstance(record.get("own"), str) else ():
            token = self._sequence(sequence, record.get("terminators"))
            if token is not None and self.passing is None and effective.stop.eos_token_id and not effective.stop.never_stops:
                self.passing = answer, token

    def _custom(self, custom: Any) -> None:
        """Keep the names of the StoppingCriteria that were passed."""
        names = custom.get("stopping_criteria") if isinstance(custom, dict) else None
        if isinstance(names, list) and len(self.criteria) < _KEPT:
            self.criteria.update(map(str, names))

    def _sequence(self, sequence: Record, terminators: Any) -> int | None:
        """Count one sequence; the id of the terminator that it passed."""
        new, at = _count(sequence.get("new_tokens")), sequence.get("passed_terminator_at")
        self.sequences += 1
        self.tokens += new
        self.ended_by[str(sequence.get("stop_reason"))] += 1
        if not isinstance(at, int) or not 0 <= at < new:
            return None
        token = sequence.get("passed_terminator")
        text = terminators.get(str(token)) if isinstance(terminators, dict) else None
        self.passed[text if isinstance(text, str) else str(token)] += 1
        self.positions[at + 1] += 1
        self.wasted += new - at - 1
        return token if isinstance(token, int) else None

    @property
    def stopped(self) -> int:
        """Sequences that something ended before the limit."""
        return self.sequences - self.ended_by["length"]

    def cause(self) -> Cause | None:
        """Why its calls do not stop, or ran past a terminator; None where neither is so."""
        if self.bad is not None and (found := cause_of(self.bad)) is not None:
            return found
        return None if self.passing is None else passed_cause(*self.passing)

    def complaint(self) -> str:
        """One paragraph on why these calls cannot stop."""
        cause = self.cause()
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
class TraceCounts:
    """The whole trace. `mutations`, `imports` and `loads` hold up to 1000 records each, `vllm` those of rollouts that did not go through
    generate()."""

    sites: dict[tuple[Any, ...], CallSite] = field(default_factory=dict)
    ranks: set[int] = field(default_factory=set)
    processes: set[Any] = field(default_factory=set)
    mutations: list[Record] = field(default_factory=list)
    imports: list[Record] = field(default_factory=list)
    loads: list[Record] = field(default_factory=list)
    vllm: list[Record] = field(default_factory=list)
    faults: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    tracer_seconds: float = 0.0
    _judged: dict[str, Resolution] = field(default_factory=dict)

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
        key = (record.get("file"), record.get("line"), own_caller(str(record.get("source")), stack))
        if key not in self.sites:
            line = record.get("line")
            file = record.get("file")
            self.sites[key] = CallSite(
                str(record.get("source")), file if isinstance(file, str) else None, line if isinstance(line, int) else None, stack
            )
        self.seconds += _seconds(record.get("seconds"))
        self.tracer_seconds += _seconds(record.get("tracer_seconds"))
        self.sites[key].add(record, self._judge(record))

    def _judge(self, record: Record) -> Resolution:
        ends = sorted({str(each.get("stop_reason")) for each in _objects(record.get("sequences"))})
        key = json.dumps([ends, *(record.get(name) for name in _DECIDING)], sort_keys=True)
        if key not in self._judged:
            if len(self._judged) >= _KEPT:
                self._judged.clear()
            self._judged[key] = answer_of(record)
        return self._judged[key]


_LIBRARY = re.compile(r"\S+ (\S+ )?[^ ]+:\d+")


def own_caller(source: str, stack: Iterable[str]) -> str | None:
    """The user's own line behind a call that a package made, such as "train.py:31"; None where the call is the user's own."""
    if _LIBRARY.fullmatch(source) is None:
        return None
    return next((entry for entry in stack if _LIBRARY.fullmatch(entry) is None), None)


def count_records(records: Iterable[Record]) -> TraceCounts:
    """Add up every record.

    Raises QuestionError for a record whose parts cannot be what the recorder writes.
    """
    total = TraceCounts()
    for record in records:
        with as_written(record):
            total.add(record)
    return total


def _objects(value: Any) -> Iterator[Record]:
    yield from (entry for entry in (value if isinstance(value, list) else ()) if isinstance(entry, dict))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < 2**63 else 0.0
