"""What all sequences come to, in memory that does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from llmdoctor.core.errors import QuestionError
from llmdoctor.gencfg.runaway.judge import Seen
from llmdoctor.gencfg.runaway.loops import find_text_loop
from llmdoctor.gencfg.runaway.marks import Mark
from llmdoctor.gencfg.runaway.outputs import decode_line
from llmdoctor.gencfg.runaway.rows import Columns, Row, Unusable, rows_of

Unit = Literal["token", "character"]
EXAMPLES = 5
_DISTINCT = 100_000
_SHOWN = 160  # characters of a loop's text that are kept; a screen shows fewer
_FEW = 3
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
class Passed:
    """The sequences that produced a terminator and went on."""

    mark: Mark
    unit: Unit
    count: int = 0
    wasted: int = 0
    length: int = 0
    positions: Spread = field(default_factory=Spread)
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Looped:
    """The sequences that run out in a loop of one period; `example` is the unit of the first
    of them, its ids or its text, and `spoken` the text beside its ids."""

    period: int
    unit: Unit
    example: tuple[int, ...] | str = ()
    count: int = 0
    stopped: int = 0
    looping: int = 0
    starts: Spread = field(default_factory=Spread)
    repeats: Spread = field(default_factory=Spread)
    lines: list[int] = field(default_factory=list)
    spoken: str | None = None


@dataclass(slots=True)
class Tally:
    """Counts over the sequences of a file.

    `units` are the tokens (or characters, where there are no ids) of all sequences without padding, `wasted` those behind a passed
    terminator. `open_lengths` are the token counts of the rows of which nothing says how they ended.
    """

    sequences: int = 0
    empty: int = 0
    padded: int = 0
    with_ids: int = 0
    with_limit: int = 0
    told: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    characters: int = 0
    wasted: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    open_lengths: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    passed: dict[tuple[str, Unit], Passed] = field(default_factory=dict)
    loops: dict[tuple[int, Unit], Looped] = field(default_factory=dict)
    ran_on_loops: int = 0

    def add(self, row: Row, seen: Seen) -> None:
        """Count one sequence."""
        unit: Unit = "character" if row.ids is None else "token"
        self.sequences += 1
        self.empty += seen.length == 0
        self.padded += seen.padded
        self.with_ids += row.ids is not None
        self.with_limit += row.limit is not None
        self.told += row.said is not None
        self.ended[seen.ended] += 1
        self.units[unit] += seen.length
        size = row.tokens
        if size is not None:
            self.tokens += seen.length if row.ids is not None else size
            self.longest = max(self.longest, size)
            if seen.ended == "unknown" and (size in self.open_lengths or len(self.open_lengths) < _DISTINCT or size >= self.longest):
                self.open_lengths[size] += 1
        if seen.passed is not None:
            self._pass(row, seen, seen.passed, unit)
        if seen.loop is not None:
            self._loop(row, seen, unit)

    def _pass(self, row: Row, seen: Seen, mark: Mark, unit: Unit) -> None:
        entry = self.passed.setdefault((mark.name, unit), Passed(mark, unit))
        entry.count += 1
        entry.wasted += seen.wasted
        entry.length += seen.length
        entry.positions.add(seen.at)
        self.wasted[unit] += seen.wasted
        if len(entry.lines) < EXAMPLES:
            entry.lines.append(row.line)

    def _loop(self, row: Row, seen: Seen, unit: Unit) -> None:
        loop = seen.loop
        assert loop is not None  # noqa: S101 for the type checker; the caller looked
        entry = self.loops.setdefault((loop.period, unit), Looped(loop.period, unit))
        if not entry.count:
            entry.example = _unit(row, loop.start, min(loop.period, _SHOWN))
            entry.spoken = _spoken(row)
        entry.count += 1
        entry.stopped += seen.ended in ("eos", "stop")
        self.ran_on_loops += seen.ended not in ("eos", "stop")
        entry.looping += loop.end - loop.start
        entry.starts.add(loop.start)
        entry.repeats.add(int(loop.repeats))
        if len(entry.lines) < EXAMPLES:
            entry.lines.append(row.line)

    def infer_length(self) -> str | None:
        """Move the rows that stand at the greatest length, and of which nothing says how they ended, to "length".

        Done where three or more do, and one in twenty. Returns what was inferred; None where nothing was.
        """
        count = self.open_lengths.get(self.longest, 0)
        if self.longest < 2 or count < _FEW or count * _SHARE < self.sequences:
            return None
        self.ended["length"] += count
        self.ended["unknown"] -= count
        del self.open_lengths[self.longest]
        return f"{count:,} of {self.sequences:,} sequences have exactly {self.longest:,} tokens and none has more"

    def by_passed(self) -> list[Passed]:
        """The passed terminators, the most frequent first."""
        return sorted(self.passed.values(), key=lambda entry: (-entry.count, entry.mark.name))

    def by_loop(self) -> list[Looped]:
        """The loops, the most frequent first."""
        return sorted(self.loops.values(), key=lambda entry: (-entry.count, entry.period))

    @property
    def passing(self) -> int:
        """How many sequences passed a terminator."""
        return sum(entry.count for entry in self.passed.values())

    @property
    def looping(self) -> int:
        """How many sequences run out in a loop."""
        return sum(entry.count for entry in self.loops.values())


def _unit(row: Row, start: int, count: int) -> tuple[int, ...] | str:
    """The first `count` units of a loop."""
    if row.ids is None:
        return (row.text or "")[start : start + count]
    return tuple(_numbers(row.ids[4 * start : 4 * (start + count)]))


def _numbers(ids: bytes) -> Iterator[int]:
    return iter(memoryview(ids).cast("i"))


def _spoken(row: Row) -> str | None:
    """What a loop of ids says, where the record has its text too and that loops as well."""
    if row.ids is None:
        return None
    text = row.text
    if text is None and row.raw is not None:
        try:
            text = next((other.text for other in rows_of(decode_line(row.raw), row.line, Columns()) if other.text), None)
        except (Unusable, QuestionError):
            return None
    loop = find_text_loop(text, len(text)) if text else None
    return None if loop is None or text is None else text[loop.start : loop.start + min(loop.period, _SHOWN)]
