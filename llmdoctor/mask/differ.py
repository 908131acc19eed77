"""Whether two backends let the same queries see the same keys. Padding queries are left out: what they see changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmdoctor.mask.intervals import Bools, Ints, Visible, trimmed
from llmdoctor.mask.types import ForwardInputs, LayerMask


@dataclass(frozen=True, slots=True)
class MaskDifference:
    """How many real queries see other keys, and the first of them: its row, its place, and the runs it sees under each."""

    queries: int
    row: int
    query: int
    left: tuple[tuple[int, int], ...]
    right: tuple[tuple[int, int], ...]


def real_queries(inputs: ForwardInputs, group: LayerMask) -> Bools:
    """Return bool [B, Q]: the queries of a group of layers that are tokens, not padding."""
    own = inputs.decoder_ids is not None and group.type != "encoder"
    mask = inputs.decoder_mask if own or group.type == "cross" else inputs.mask_2d
    if mask is None or mask.shape[1] < group.q_len:
        return np.ones((inputs.batch, group.q_len), np.bool_)
    return np.asarray(mask[:, -group.q_len :] != 0, np.bool_)


def difference(left: Visible, right: Visible, real: Bools) -> MaskDifference | None:
    """Return where two masks over the same queries differ; None if they do not. Masks over different numbers of keys are compared key by key."""
    count, first = 0, None
    batch = left.rows * left.repeat
    for row in range(batch):
        one, other = min(row, left.rows - 1), min(row, right.rows - 1)
        unlike = _unlike(left, one, right, other) & real[row]
        found = int(unlike.sum())
        if found and first is None:
            query = int(np.flatnonzero(unlike)[0])
            first = (row, query, tuple(left.runs(one, query)), tuple(right.runs(other, query)))
        count += found
        if left.rows == right.rows == 1 and row == 0 and real.all():
            count *= batch
            break
    return None if first is None else MaskDifference(count, *first)


def _unlike(left: Visible, one: int, right: Visible, other: int) -> Bools:
    """bool [Q]: queries of a row that see other keys."""
    if left.dense is not None or right.dense is not None:
        return _dense(left, one, right, other)
    ends = []
    for visible, row in ((left, one), (right, other)):
        low, high = trimmed(visible, row)
        seen = visible.seen(row)
        ends.append((np.where(seen > 0, low, -1), np.where(seen > 0, high, -1), seen))
    (low, high, seen), (low2, high2, seen_right) = ends
    return np.asarray(
        (low != low2) | (high != high2) | (seen != seen_right) | _other_keys(left, one, right=right, other=other, low=low, high=high)
    )


def _other_keys(left: Visible, one: int, *, right: Visible, other: int, low: Ints, high: Ints) -> Bools:
    """bool [Q]: whether the two masks hide other keys between the first key and the last that a query of the left row sees."""
    size = min(left.kv_len, right.kv_len)
    first = np.ones(size, np.bool_) if left.keys is None else left.keys[one][:size]
    second = np.ones(size, np.bool_) if right.keys is None else right.keys[other][:size]
    apart = np.concatenate(([0], np.cumsum(first != second)))
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    return np.asarray(apart[high] > apart[low])


def _dense(left: Visible, one: int, right: Visible, other: int) -> Bools:
    first, second = left.square(one), right.square(other)
    width = max(first.shape[1], second.shape[1])
    pads = [np.pad(item, ((0, 0), (0, width - item.shape[1]))) for item in (first, second)]
    return np.asarray((pads[0] != pads[1]).any(axis=1))
