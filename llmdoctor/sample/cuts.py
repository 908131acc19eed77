"""Cuts of a distribution at a rank, a mass or a distance, found without sorting more than the head of the row.

Every cut is float32 as the engines compute it; where an engine's own order of additions decides (llama.cpp, SGLang), it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.sample.types import Floats, Ids, LogitRow

Ties = Literal["all", "low", "high"]
_SMALL = 2048


@dataclass(frozen=True, slots=True)
class Head:
    """The largest logits of a row: their places `at` [m], ascending, and `order` [m], the same logits descending. No other is as large."""

    at: Ids
    order: Floats


def head(x: Floats, count: int) -> Head:
    """At least the `count` largest of `x`, and every one that equals the last.

    The count-th largest of the blocks' maxima is a lower bound of the count-th largest value: one pass over the row, and a short sort.
    """
    n = len(x)
    width = 64 if count * 128 <= n else 16
    blocks = n // width
    if n <= _SMALL or count * 2 > blocks:
        return Head(np.arange(n), np.sort(x)[::-1])
    maxima = x[: blocks * width].reshape(width, blocks).max(axis=0)  # a block is every blocks-th token: numpy's fast direction
    at = np.flatnonzero(x >= np.partition(maxima, blocks - count)[blocks - count])
    return Head(at, np.sort(x[at])[::-1])


def prefix(row: LogitRow, top: Head, count: int, ties: Ties) -> LogitRow:
    """The `count` largest of a row, all in its head; of several equal ones at the cut all, those with low or with high ids."""
    if count >= len(row.x):
        return row
    edge = top.order[count - 1]
    x = row.x[top.at]
    mask = x >= edge
    if ties != "all":
        equal = np.flatnonzero(x == edge)
        wanted = count - int(np.count_nonzero(top.order > edge))
        mask[equal[wanted:] if ties == "low" else equal[: len(equal) - wanted]] = False
    return row.pick(top.at[mask])


def top_k(row: LogitRow, k: int, ties: Ties) -> LogitRow:
    """The k largest logits."""
    return row if k >= len(row.x) else prefix(row, head(row.x, k), k, ties)


def top_p_ascending(row: LogitRow, p: float) -> LogitRow:
    """transformers, vLLM, TGI: sorted ascending, a token goes where the cumulative mass up to and with it is at most 1 - p.

    torch adds float32 probabilities in double precision on a CPU and rounds each sum to float32.
    """
    e, total = row.weights()
    limit = np.float32(1 - p)
    for count in (512, 4096, len(e)):
        found = head(row.x, min(count, len(e)))
        weights = np.exp(found.order - found.order[0])
        mass = np.cumsum(weights, dtype=np.float64)
        if len(weights) == len(e) or mass[-1] > p * total:
            break
    below = ((total - mass + weights) / total).astype(np.float32)  # cumulative mass up to and with the token
    return prefix(row, found, max(1, int(np.count_nonzero(below > limit))), "high")


def joint(row: LogitRow, k: int | None, p: float, min_p: float) -> LogitRow:
    """SGLang's torch path: sorted descending, k and p both on the untruncated distribution, then min_p on what is left."""
    order = np.sort(row.weights()[0])[::-1]
    probs = order / np.float32(order.sum(dtype=np.float64))
    mass = np.cumsum(probs, dtype=np.float64).astype(np.float32)
    kept = int(np.count_nonzero(mass - probs <= np.float32(p)))
    kept = min(kept, len(probs) if k is None else k)
    if min_p > 0:
        kept = min(kept, int(np.count_nonzero(probs >= probs[0] * np.float32(min_p))))
    return prefix(row, head(row.x, len(row.x)), max(1, kept), "low")


def top_p_descending(row: LogitRow, p: float) -> LogitRow:
    """llama.cpp: sorted descending, up to the token with which a float32 running sum reaches p."""
    e, _ = row.weights()
    total = np.add.accumulate(e)[-1]
    top = head(row.x, len(row.x))
    mass = np.add.accumulate(np.exp(top.order - top.order[0]) / total)
    reached = np.flatnonzero(mass >= np.float32(p))
    return row if not len(reached) else prefix(row, top, int(reached[0]) + 1, "low")


def min_p_probs(row: LogitRow, p: float) -> LogitRow:
    """transformers, vLLM: probabilities of at least p times the largest."""
    e, total = row.weights()
    probs = e / np.float32(total)
    return row.keep(probs >= np.float32(p) * probs.max())


def min_p_logits(row: LogitRow, p: float) -> LogitRow:
    """llama.cpp: logits of at least max + log p; the largest always stays."""
    top = row.x.max()
    kept = row.keep(row.x >= np.float32(top + np.float32(np.log(p))))
    return kept if len(kept.x) else row.keep(row.x == top)


def typical(row: LogitRow, mass: float) -> LogitRow:
    """transformers, TGI: the tokens whose surprise is nearest to the entropy; all that are as near as the last one stay."""
    e, total = row.weights()
    log_p = row.x - row.x.max() - np.float32(np.log(total))
    probs = e / np.float32(total)
    far = np.abs(-log_p + (probs * log_p).sum())
    at = np.argsort(far, kind="stable")
    cumulated = np.cumsum(probs[at], dtype=np.float64).astype(np.float32)
    last = min(int(np.count_nonzero(cumulated < np.float32(mass))), len(at) - 1)
    return row.keep(far <= far[at[last]])


def typical_exact(row: LogitRow, mass: float) -> LogitRow:
    """llama.cpp: the same order, up to the token with which a float32 running sum exceeds the mass."""
    e, _ = row.weights()
    probs = e / np.add.accumulate(np.sort(e)[::-1])[-1]
    log_p = np.log(probs, where=probs > 0, out=np.zeros_like(probs))
    far = np.abs(-log_p + (probs * log_p).sum())
    at = np.argsort(far, kind="stable")
    over = np.flatnonzero(np.add.accumulate(probs[at]) > np.float32(mass))
    mask = np.zeros(len(at), bool)
    mask[at[: int(over[0]) + 1 if len(over) else len(at)]] = True
    return row.keep(mask)


def top_h(row: LogitRow, share: float) -> LogitRow:
    """transformers: of the 100 largest, those up to `share` of their entropy; ties at the 100th by low ids."""
    best = top_k(row, 100, "low")
    e, total = best.weights()
    probs = e / np.float32(total)
    at = np.argsort(-probs, kind="stable")
    terms = -probs[at] * np.log(probs[at], where=probs[at] > 0, out=np.zeros_like(probs))
    chosen = np.cumsum(terms, dtype=np.float64).astype(np.float32) <= terms.sum() * np.float32(share)
    chosen[0] = True
    mask = np.zeros(len(at), bool)
    mask[at[chosen]] = True
    return best.keep(mask)


def floor(row: LogitRow, least: float) -> LogitRow:
    """Probabilities of at least `least`; the largest always stay (transformers' epsilon and eta)."""
    e, total = row.weights()
    return row.keep((e / np.float32(total) >= np.float32(least)) | (row.x == row.x.max()))


def eta(row: LogitRow, epsilon: float) -> LogitRow:
    """transformers: the floor is min(epsilon, sqrt(epsilon) exp(-entropy))."""
    return floor(row, eta_floor(row, epsilon))


def eta_floor(row: LogitRow, epsilon: float) -> float:
    """The least probability that transformers' eta keeps in this row."""
    e, total = row.weights()
    entropy = np.log(total) - float((e * (row.x - row.x.max())).sum(dtype=np.float64)) / total
    return min(epsilon, float(np.sqrt(epsilon) * np.exp(-entropy)))


def greedy(row: LogitRow) -> LogitRow:
    """The largest, of several equal ones the one with the lowest id."""
    mask = np.zeros(len(row.x), bool)
    mask[int(row.x.argmax())] = True
    return row.keep(mask)
