"""Repetition loops: a sequence whose tail repeats one unit up to its end.

A sequence of n units (token ids, or characters where there are no ids) loops with period p from position s when x[i] == x[i + p] for all
s <= i < n - p, n - s >= SPAN and n - s >= REPEATS * p, and 1 <= p <= PERIOD. The loop that is reported has the least such p, and for it the
least s.

The reason for these bounds: three full repeats, for a refrain or a sentence said twice is ordinary writing; at least 32 tokens, which is longer than
"ha ha ha", a row of dashes or the zeros of a small table; at most 256 tokens, which holds a paragraph that is written again and again and
leaves three of them inside an answer of 768. Numbers that count up do not repeat at all. A token is three to four characters in most
tokenizers, hence 96 and 1024 characters.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

ID_BYTES = 4  # token ids are held as int32 in native order


@dataclass(frozen=True, slots=True)
class LoopBounds:
    """What counts as a loop, in units: the longest `period`, the shortest `span` from start to end, and the fewest `repeats`."""

    period: int
    span: int
    repeats: int

    @property
    def probe(self) -> int:
        """How many units at the end must stand one period earlier too, whatever the period is."""
        return min(max(self.span - period, (self.repeats - 1) * period) for period in range(1, self.span + 1))


TOKENS = LoopBounds(256, 32, 3)
CHARACTERS = LoopBounds(1024, 96, 3)
_PROBES = {bounds: bounds.probe for bounds in (TOKENS, CHARACTERS)}


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop over positions [start, end) of its sequence, in units."""

    period: int
    start: int
    end: int

    @property
    def repeats(self) -> float:
        """How often the unit stands there, the last time perhaps in part."""
        return (self.end - self.start) / self.period


def find_token_loop(ids: bytes, end: int) -> Loop | None:
    """The loop in which the first `end` of the int32 `ids` run out; None where they do not loop."""
    return _find(ids, end, TOKENS, ID_BYTES)


def find_text_loop(text: str, end: int) -> Loop | None:
    """The loop in which the first `end` characters of `text` run out; None where they do not loop."""
    return _find(text, end, CHARACTERS, 1)


def _find(units: bytes | str, end: int, bounds: LoopBounds, width: int) -> Loop | None:
    """Where the last units stood before, the nearest place first: each is a period to try.

    `width` is the length of one unit in `units`. Only PERIOD units before the end are searched, so the time does not grow with the length.
    """
    if end < bounds.span:
        return None
    probe = _PROBES[bounds]
    wanted = units[(end - probe) * width : end * width]
    lowest = max(end - probe - bounds.period, 0) * width
    highest = (end - 1) * width
    while (at := units.rfind(wanted, lowest, highest)) >= 0:  # type: ignore[arg-type]
        period = end - probe - at // width
        need = max(bounds.span, bounds.repeats * period) - period
        if at % width == 0 and period + need <= end and _repeats(units, end, period, need, width):
            return Loop(period, _start(units, end, period, width), end)
        highest = at + probe * width - 1
    return None


def _repeats(units: bytes | str, end: int, period: int, count: int, width: int) -> bool:
    """Whether the last `count` units before `end` equal those one period earlier."""
    return units[(end - count) * width : end * width] == units[(end - period - count) * width : (end - period) * width]


def _start(units: bytes | str, end: int, period: int, width: int) -> int:
    """The first position from which all units up to `end` equal those one period later: where fewer repeat, more do not."""
    counts = range(1, end - period + 1)
    longest = bisect_left(counts, True, key=lambda count: not _repeats(units, end, period, count, width))
    return end - period - longest
