"""How trainers put several documents into one sequence."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict, deque
from collections.abc import Sequence as Many

from llmdoctor.labels.types import IGNORED, Sequence, joined

BATCH = 1000  # rows that datasets.map hands over at once (datasets, batch_size): packing never looks further


def best_fit_decreasing(rows: Many[Sequence], length: int, *, split: bool = False, drop_empty: bool = True) -> list[Sequence]:
    """Return TRL's "bfd" (longer documents are cut) or "bfd_split" packing (longer ones are split), batch by batch of 1,000 rows.

    Source: trl 0.24.0 and 1.0.0 data_utils.py `_pack_bfd`: longest first, each into the bin with the least space that suffices, the oldest of
    several.
    """
    out: list[Sequence] = []
    for start in range(0, len(rows), BATCH):
        batch = [row for row in rows[start : start + BATCH] if row.ids or not drop_empty]
        pieces = [piece for row in batch for piece in _pieces(row, length, split)]
        out += [joined(items) for items in _bins(pieces, length)]
    return out


def _pieces(row: Sequence, length: int, split: bool) -> list[Sequence]:
    if not split:
        return [row.part(0, length)]
    return [row.part(start, start + length) for start in range(0, len(row.ids), length)]


def _bins(pieces: list[Sequence], length: int) -> list[list[Sequence]]:
    order = sorted(range(len(pieces)), key=lambda number: -len(pieces[number].ids))  # stable, as pyarrow's sort_indices is
    spaces: list[int] = []  # the distinct free spaces below `length`, ascending
    by_space: dict[int, deque[int]] = defaultdict(deque)
    bins: list[list[Sequence]] = []
    for number in order:
        size = len(pieces[number].ids)
        at = bisect_left(spaces, size)
        if at < len(spaces) and spaces[at] < length:
            space = spaces[at]
            chosen = by_space[space].popleft()
            if not by_space[space]:
                spaces.pop(at)
        else:
            space, chosen = length, len(bins)
            bins.append([])
        bins[chosen].append(pieces[number])
        left = space - size
        if left > 0 and not by_space[left]:
            insort(spaces, left)
        by_space[left].append(chosen)
    return bins


def wrapped(rows: Many[Sequence], length: int) -> list[Sequence]:
    """Return TRL's "wrapped" packing: all tokens in a row, cut every `length` (trl 0.24.0 and 1.0.0 data_utils.py `_pack_wrapped`)."""
    out: list[Sequence] = []
    for start in range(0, len(rows), BATCH):
        whole = joined(list(rows[start : start + BATCH]))
        pieces = [whole.part(place, place + length) for place in range(0, len(whole.ids), length)]
        out += [_without_cut(piece) for piece in pieces]
    return out


def _without_cut(piece: Sequence) -> Sequence:
    piece.truncated = False  # what one sequence loses the next one holds
    return piece


def greedy_knapsack(lengths: Many[int], capacity: int) -> list[list[int]]:
    """Return LLaMA-Factory's knapsacks of lengths: each takes the largest that fits until none does (0.9.5 processor_utils.py:44)."""
    left = sorted(lengths)
    knapsacks = []
    while left:
        taken, room = [], capacity
        while (at := bisect_right(left, room) - 1) >= 0:
            room -= left[at]
            taken.append(left.pop(at))
        knapsacks.append(taken)
        if not taken:
            break
    return knapsacks


def split_across(rows: Many[Sequence], length: int, pad: int, *, split: bool) -> list[Sequence]:
    """Return torchtune's packs of exactly `length` tokens, the last filled up with `pad` (0.6.1 datasets/_packed.py).

    `split` lets a document go on in the next pack; without it the document moves there whole.
    """
    packs: list[Sequence] = []
    current = joined([])
    for row in rows:
        before = len(current.ids)
        current = joined([current, row])
        while len(current.ids) > length:
            edge = length if split else before
            packs.append(current.part(0, edge))
            current = current.part(edge, len(current.ids))
            before = 0 if split else before - edge
            if edge == 0:
                break
    packs += [current] if current.ids else []
    return [_filled(_without_cut(pack), length, pad) for pack in packs]


def _filled(pack: Sequence, length: int, pad: int) -> Sequence:
    missing = length - len(pack.ids)
    if missing > 0:
        filler = Sequence([pad] * missing, [IGNORED] * missing, ["padding"] * missing, ["padding"] * missing)
        return joined([pack, filler])
    return pack
