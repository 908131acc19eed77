"""Which keys a query sees, without a square: one interval of keys a query, less the keys that are masked for everybody.

Every mask transformers 5.23 builds from its own mask functions (masking_utils.py: causal, sliding window, chunk, packed documents, image
blocks, and the padding of the 2-D mask) lets a query see one contiguous run of keys, from which masked keys are missing. So a mask of
S x S is two integers a query and one bit a key, and everything asked of it is answered by prefix sums over the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Visible:
    """The keys each query sees: those k with lo <= k < hi that are in `keys`.

    `lo`, `hi` are int64 [R, Q] with 0 <= lo, hi <= kv_len (hi <= lo: none); `keys` is bool [R, kv_len], None for all of them; `dense`,
    bool [R, Q, kv_len], replaces all three where a user's own 4-D mask says what no interval can. Row r stands for `repeat` rows of the
    batch (R is 1 where all rows are alike).
    """

    kv_len: int
    lo: Ints
    hi: Ints
    keys: Bools | None = None
    repeat: int = 1
    dense: Bools | None = None

    @property
    def rows(self) -> int:
        """Rows held, R."""
        return int(self.lo.shape[0])

    @property
    def q_len(self) -> int:
        """Queries a row."""
        return int(self.lo.shape[1])

    def prefix(self, row: int) -> Ints:
        """int64 [kv_len + 1]: how many of the first k keys of a row are not masked for everybody."""
        out = np.zeros(self.kv_len + 1, np.int64)
        if self.keys is None:
            return np.arange(self.kv_len + 1, dtype=np.int64)
        np.cumsum(self.keys[row], out=out[1:])
        return out

    def seen(self, row: int) -> Ints:
        """int64 [Q]: how many keys each query of a row sees."""
        if self.dense is not None:
            return np.asarray(self.dense[row].sum(axis=-1), np.int64)
        low, high = self.lo[row], np.maximum(self.hi[row], self.lo[row])
        if self.keys is None:
            return np.asarray(high - low)
        prefix = self.prefix(row)
        return np.asarray(prefix[high] - prefix[low])

    def count(self) -> int:
        """Visible pairs, summed over the batch, of one head."""
        return int(sum(int(self.seen(row).sum()) for row in range(self.rows))) * self.repeat

    def total(self) -> int:
        """All pairs: batch x Q x kv_len."""
        return self.rows * self.repeat * self.q_len * self.kv_len

    def dead(self, row: int) -> Ints:
        """The queries of a row that see no key at all."""
        return np.flatnonzero(self.seen(row) == 0)

    def runs(self, row: int, query: int) -> list[tuple[int, int]]:
        """The runs [start, end) of keys that one query sees."""
        if self.dense is not None:
            line = self.dense[row, query]
        else:
            low, high = int(self.lo[row, query]), int(self.hi[row, query])
            if high <= low:
                return []
            if self.keys is None:
                return [(low, high)]
            line = self.keys[row, low:high]
            return [(low + start, low + end) for start, end in runs_of(line)]
        return runs_of(line)

    def square(self, row: int) -> Bools:
        """bool [Q, kv_len], for a picture or a test; the caller has made sure that it fits."""
        if self.dense is not None:
            return np.asarray(self.dense[row])
        at = np.arange(self.kv_len)
        inside = (at >= self.lo[row][:, None]) & (at < self.hi[row][:, None])
        return np.asarray(inside if self.keys is None else inside & self.keys[row])


def runs_of(line: Bools) -> list[tuple[int, int]]:
    """The runs [start, end) of True in a line of booleans."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], line, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """How many blocks of `size` x `size` of the batch are empty, partly visible and fully visible."""

    size: int
    empty: int
    partial: int
    full: int


def count_blocks(visible: Visible, size: int = 128) -> BlockCounts:
    """The kinds of all blocks, exactly, in O(S log size): neither pairs nor blocks are visited one by one."""
    full = busy = 0
    for row in range(visible.rows):
        if visible.dense is not None:
            some, every = _dense_blocks(visible.dense[row], size)
        else:
            some, every = _row_blocks(visible, row, size)
        busy += some
        full += every
    blocks = visible.rows * -(-visible.q_len // size) * -(-visible.kv_len // size)
    repeat = visible.repeat
    return BlockCounts(size, (blocks - busy) * repeat, (busy - full) * repeat, full * repeat)


def _row_blocks(visible: Visible, row: int, size: int) -> tuple[int, int]:
    """Of one row: blocks with any visible pair, and blocks with every pair visible."""
    kv_len, count = visible.kv_len, -(-visible.kv_len // size)
    prefix = visible.prefix(row)
    edges = np.minimum(np.arange(count + 1) * size, kv_len)
    held = np.diff(prefix[edges])
    any_before = np.concatenate(([0], np.cumsum(held > 0)))  # key blocks with a real key, and key blocks of real keys only
    all_before = np.concatenate(([0], np.cumsum(held == np.diff(edges))))
    low, high = trimmed(visible, row)
    bands = -(-visible.q_len // size)
    pad = bands * size - visible.q_len
    none = high <= low
    # A query outside the last band's end counts as absent: its interval is empty for "any" and everything for "every".
    first = np.pad(np.where(none, kv_len, low), (0, pad), constant_values=kv_len).reshape(bands, size)
    last = np.pad(np.where(none, 0, high), (0, pad), constant_values=0).reshape(bands, size)
    busy = _busy(first, last, any_before, size)
    from_ = np.pad(np.where(none, kv_len, visible.lo[row]), (0, pad), constant_values=0).reshape(bands, size).max(axis=1)
    to = np.pad(np.where(none, 0, visible.hi[row]), (0, pad), constant_values=kv_len).reshape(bands, size).min(axis=1)
    start, end = -(-from_ // size), np.where(to >= kv_len, count, to // size)
    full = np.where(end > start, all_before[np.minimum(end, count)] - all_before[np.minimum(start, count)], 0)
    return busy, int(full.sum())


def trimmed(visible: Visible, row: int) -> tuple[Ints, Ints]:
    """Each query's interval without the masked keys at its two ends."""
    low, high = visible.lo[row], visible.hi[row]
    if visible.keys is None:
        return low, high
    kv_len, real = visible.kv_len, visible.keys[row]
    at = np.arange(kv_len, dtype=np.int64)
    after = np.minimum.accumulate(np.where(real, at, kv_len)[::-1])[::-1]
    before = np.maximum.accumulate(np.where(real, at + 1, 0))
    return np.append(after, kv_len)[np.clip(low, 0, kv_len)], np.concatenate(([0], before))[np.clip(high, 0, kv_len)]


def _busy(first: Ints, last: Ints, any_before: Ints, size: int) -> int:
    """Key blocks with a visible pair, over all bands of queries: the union of each band's intervals, counted in blocks."""
    order = np.argsort(first, axis=1, kind="stable")
    low, high = np.take_along_axis(first, order, axis=1), np.take_along_axis(last, order, axis=1)
    start, end = low // size, -(-high // size)  # in blocks; trimmed ends are real keys, so both end blocks are busy
    reached = np.maximum.accumulate(np.where(high > low, end, 0), axis=1)
    covered = np.concatenate((np.zeros((len(low), 1), np.int64), reached[:, :-1]), axis=1)
    start = np.maximum(start, covered)
    fresh = (high > low) & (end > start)
    return int(
        np.where(fresh, any_before[np.minimum(end, len(any_before) - 1)] - any_before[np.minimum(start, len(any_before) - 1)], 0).sum()
    )


def _dense_blocks(mask: Bools, size: int) -> tuple[int, int]:
    rows, columns = -(-mask.shape[0] // size) * size, -(-mask.shape[1] // size) * size
    some = np.zeros((rows, columns), np.bool_)
    every = np.ones((rows, columns), np.bool_)
    some[: mask.shape[0], : mask.shape[1]] = mask
    every[: mask.shape[0], : mask.shape[1]] = mask
    shape = (rows // size, size, columns // size, size)
    return int(some.reshape(shape).any(axis=(1, 3)).sum()), int(every.reshape(shape).all(axis=(1, 3)).sum())


def density(visible: Visible, row: int, bands: int, columns: int) -> tuple[Ints, Ints]:
    """(visible pairs, all pairs), both int64 [bands, columns], of a coarse grid laid over one row's Q x kv_len."""
    q_edges = np.linspace(0, visible.q_len, bands + 1).astype(np.int64)
    k_edges = np.linspace(0, visible.kv_len, columns + 1).astype(np.int64)
    size = np.diff(q_edges)[:, None] * np.diff(k_edges)[None, :]
    if visible.dense is not None:
        lines = np.add.reduceat(visible.dense[row].astype(np.int64), k_edges[:-1], axis=1)
        return np.add.reduceat(lines, q_edges[:-1], axis=0), size
    prefix = visible.prefix(row)
    out = np.zeros((bands, columns), np.int64)
    low, high = visible.lo[row], np.maximum(visible.hi[row], visible.lo[row])
    for column in range(columns):
        left, right = k_edges[column], k_edges[column + 1]
        pairs = prefix[np.clip(high, left, right)] - prefix[np.clip(low, left, right)]
        out[:, column] = np.add.reduceat(pairs, q_edges[:-1])
    return out, size


def as_ints(value: Any) -> Ints:
    """`value` as an int64 array."""
    return np.asarray(value, dtype=np.int64)
