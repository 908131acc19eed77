"""What all sequences come to, in memory that does not grow with their number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from llmdoctor.files.jsonstream import decode_line
from llmdoctor.gencfg.runaway.end_marks import EndMark
from llmdoctor.gencfg.runaway.loops import Loop, find_text_loop
from llmdoctor.gencfg.runaway.observe import Observation
from llmdoctor.requests.sequences import Columns, OutputSequence, Unusable
from llmdoctor.requests.shapes import sequences_of

CountUnit = Literal["token", "character"]
EXAMPLES = 5
STOPPED = ("eos", "stop")
_DISTINCT = 100_000
_SHOWN = 160  # characters of a loop's text that are kept; a screen shows fewer
_FEW = 3
_LEAST_LIMIT = 16  # vLLM's max_tokens; shorter answers of one length are labels or digits
_SHARE = 20  # rows at the greatest length must be one in so many to be taken for the limit


@dataclass(slots=True)
class Spread:
    """A median over counts of values; beyond a hundred thousand distinct ones new ones fall to the nearest power of two below."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, value: int) -> None:
        """Count one value."""
        if len(self.counts) >= _DISTINCT and value not in self.counts:
            value = 1 << (value.bit_length() - 1) if value > 0 else 0
        self.counts[value] += 1

    def median(self) -> int:
        """The lower median; 0 of nothing."""
        half = (sum(self.counts.values()) + 1) // 2
        for value in sorted(self.counts):
            half -= self.counts[value]
            if half <= 0:
                return value
        return 0


@dataclass(slots=True)
class PassedMark:
    """The sequences that produced one terminator and went on, in units.

    `stopped` of them stopped at a terminator in the end. `examples` are the first: the line and the position.
    """

    mark: EndMark
    unit: CountUnit
    count: int = 0
    stopped: int = 0
    wasted: int = 0
    length: int = 0
    positions: Spread = field(default_factory=Spread)
    examples: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class LoopGroup:
    """The sequences that run out in a loop of one period; `unit_ids` or `unit_text` is what the first of them repeats.

    `stopped` of them stopped by themselves all the same. `examples` are the first: the line, the start, the repeats.
    """

    period: int
    unit: CountUnit
    count: int = 0
    stopped: int = 0
    starts: Spread = field(default_factory=Spread)
    repeats: Spread = field(default_factory=Spread)
    examples: list[tuple[int, int, float]] = field(default_factory=list)
    unit_ids: tuple[int, ...] | None = None
    unit_text: str | None = None


@dataclass(slots=True)
class OutputCounts:
    """Counts over the sequences of a file.

    `given` is the limit for rows that name none. `units` are the tokens (or characters, where there are no ids) of all sequences without
    padding, `wasted` those behind a passed terminator. `stops` are the lengths, in tokens, of the sequences that stopped, `open_lengths` of
    those of which nothing says how they ended. `first_length` is the line of the first that ended by length, `marked` are the texts in which
    a terminator stands, `fronted` the rows with padding or a prompt in front.
    """

    given: int | None = None
    sequences: int = 0
    empty: int = 0
    padded: int = 0
    padding_assumed: int = 0
    fronted: int = 0
    with_ids: int = 0
    reported: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    wasted: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    limits: Spread = field(default_factory=Spread)
    stops: Spread = field(default_factory=Spread)
    marked: int = 0
    open_lengths: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    first_length: int | None = None
    passed: dict[tuple[str, CountUnit], PassedMark] = field(default_factory=dict)
    loops: dict[tuple[int, CountUnit], LoopGroup] = field(default_factory=dict)

    def add(self, row: OutputSequence, observed: Observation) -> None:
        """Count one sequence."""
        unit: CountUnit = "character" if row.ids is None else "token"
        self.sequences += 1
        self.empty += observed.length == 0
        self.padded += observed.padded
        self.padding_assumed += observed.assumed
        if row.engine:
            self.engines[row.engine] += 1
        self.fronted += observed.start > 0
        self.with_ids += row.ids is not None
        self.reported += row.reported is not None
        self.ended[observed.ended] += 1
        self.units[unit] += observed.length
        if observed.ended == "length" and self.first_length is None:
            self.first_length = row.line
        if row.limit is not None:
            self.limits.add(row.limit)
        self.marked += row.ids is None and (observed.passed is not None or observed.length < len(row.text or "") - observed.start)
        size = row.tokens if row.ids is None else observed.length
        if size is not None:
            self._size(size, observed)
        if observed.passed is not None:
            self._pass(row, observed, observed.passed, unit)
        if observed.loop is not None:
            self._loop(row, observed, observed.loop, unit)

    def _size(self, size: int, observed: Observation) -> None:
        self.longest = max(self.longest, size)
        if observed.ended in STOPPED:
            self.stops.add(size)
        if observed.ended == "unknown" and (size in self.open_lengths or len(self.open_lengths) < _DISTINCT or size >= self.longest):
            self.open_lengths[size] += 1

    def _pass(self, row: OutputSequence, observed: Observation, mark: EndMark, unit: CountUnit) -> None:
        entry = self.passed.setdefault((mark.name, unit), PassedMark(mark, unit))
        entry.count += 1
        entry.stopped += observed.ended in STOPPED
        entry.wasted += observed.wasted
        entry.length += observed.length
        entry.positions.add(observed.at)
        self.wasted[unit] += observed.wasted
        if len(entry.examples) < EXAMPLES:
            entry.examples.append((row.line, observed.at))

    def _loop(self, row: OutputSequence, observed: Observation, loop: Loop, unit: CountUnit) -> None:
        entry = self.loops.setdefault((loop.period, unit), LoopGroup(loop.period, unit))
        if not entry.count:
            entry.unit_ids, entry.unit_text = _repeated(row, loop, observed.start)
        entry.count += 1
        entry.stopped += observed.ended in STOPPED
        entry.starts.add(loop.start)
        entry.repeats.add(int(loop.repeats))
        if len(entry.examples) < EXAMPLES:
            entry.examples.append((row.line, loop.start, round(loop.repeats, 1)))

    def infer_length(self) -> str | None:
        """Move the rows that stand at the greatest length, and of which nothing says how they ended, to "length".

        Done if three or more do, and one in twenty, and if the length is no less than the least default limit of an engine. Returns what was
        inferred; None if nothing was.
        """
        count = self.open_lengths.get(self.longest, 0)
        if self.longest < _LEAST_LIMIT or count < _FEW or count * _SHARE < self.sequences:
            return None
        self.ended["length"] += count
        self.ended["unknown"] -= count
        del self.open_lengths[self.longest]
        return f"{count:,} of {self.sequences:,} sequences have exactly {self.longest:,} tokens and none has more"

    def by_passed(self) -> list[PassedMark]:
        """The passed terminators, the most frequent first."""
        return sorted(self.passed.values(), key=lambda entry: (-entry.count, entry.mark.name))

    def by_loop(self) -> list[LoopGroup]:
        """The loops, the most frequent first."""
        return sorted(self.loops.values(), key=lambda entry: (-entry.count, entry.period))

    @property
    def limit(self) -> int | None:
        """The limit of tokens that the rows name, the median where they differ; else the one that the user gave."""
        return self.limits.median() or self.given

    @property
    def unit(self) -> CountUnit:
        """What the shares count: tokens where there are any ids."""
        return "token" if self.units["token"] else "character"

    @property
    def wasted_share(self) -> float:
        """How much of everything stands behind a terminator, from 0 to 1."""
        return self.wasted[self.unit] / self.units[self.unit] if self.units[self.unit] else 0.0

    @property
    def passing(self) -> int:
        """How many sequences passed a terminator."""
        return sum(entry.count for entry in self.passed.values())

    @property
    def looping(self) -> int:
        """How many sequences run out in a loop."""
        return sum(entry.count for entry in self.loops.values())


def _repeated(row: OutputSequence, loop: Loop, start: int) -> tuple[tuple[int, ...] | None, str | None]:
    """What a loop repeats: its ids, where there are any, and its text, where the record has one that loops too."""
    if row.ids is None:
        return None, (row.text or "")[start + loop.start : start + loop.start + min(loop.period, _SHOWN)]
    ids = memoryview(row.ids).cast("i")[start + loop.start : start + loop.start + min(loop.period, _SHOWN)]
    return tuple(ids), _spoken(row)


def _spoken(row: OutputSequence) -> str | None:
    text = row.text
    if text is None and row.raw is not None:
        try:
            text = next((other.text for other in sequences_of(decode_line(row.raw), row.line, Columns()) if other.text), None)
        except Unusable:
            return None
    loop = find_text_loop(text, len(text)) if text else None
    return None if loop is None or text is None else text[loop.start : loop.start + min(loop.period, _SHOWN)]
