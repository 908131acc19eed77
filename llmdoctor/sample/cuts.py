"""Cuts of a distribution at a rank, a mass or a distance, found without sorting more than the head of the row.

Every cut is float32 as the engines compute it; where an engine's own order of additions decides (llama.cpp, SGLang), it is kept.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from llmdoctor.sample.model import Floats, Row

Ties = Literal["all", "low", "high"]
_BLOCK, _SMALL = 64, 2048


def head(x: Floats, count: int) -> Floats:
    """At least the `count` largest of `x`, descending, and with every value all that equal it.

    The count-th largest of the blocks' maxima is a lower bound of the count-th largest value: one pass, and a short sort.
    """
    n = len(x)
    blocks = n // _BLOCK
    if n <= _SMALL or count * 4 > blocks:
        if n <= _SMALL or count * 6 > n:
            return np.sort(x)[::-1]
        bound = np.partition(x, n - count)[n - count]
    else:
        maxima = x[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        bound = np.partition(maxima, blocks - count)[blocks - count]
    return np.sort(x[x >= bound])[::-1]


def prefix(row: Row, order: Floats, count: int, ties: Ties) -> Row:
    """The `count` largest of a row whose head, descending, is `order`; of several equal ones at the cut all, those with low or high ids."""
    if count >= len(row.x):
        return row
    edge = order[count - 1]
    over = int(np.searchsorted(-order, -edge, "left"))
    mask = row.x >= edge
    if ties != "all" and (len(order) <= count or order[count] == edge):
        equal = np.flatnonzero(row.x == edge)
        wanted = count - over
        mask[equal[wanted:] if ties == "low" else equal[: len(equal) - wanted]] = False
    return row.keep(mask)


def top_k(row: Row, k: int, ties: Ties) -> Row:
    """The k largest logits."""
    if k >= len(row.x):
        return row
    return prefix(row, head(row.x, k), k, ties)


def top_p_ascending(row: Row, p: float) -> Row:
    """transformers, vLLM, TGI: sorted ascending, a token goes where the cumulative mass up to and with it is at most 1 - p.

    torch adds float32 probabilities in double precision on a CPU and rounds each sum to float32.
    """
    e, total = row.weights()
    top = row.x.max()
    limit = np.float32(1 - p)
    order: Floats = row.x
    for count in (256, 4096, len(e)):
        order = head(row.x, count)
        mass = np.cumsum(np.exp(order - top), dtype=np.float64)
        if len(order) == len(e) or mass[-1] > p * total:
            break
    below = ((total - mass + np.exp(order - top)) / total).astype(np.float32)  # cumulative mass up to and with the token
    return prefix(row, order, max(1, int(np.count_nonzero(below > limit))), "high")


def joint(row: Row, k: int | None, p: float, min_p: float) -> Row:
    """SGLang's torch path: sorted descending, k and p both on the untruncated distribution, then min_p on what is left."""
    e, total = row.weights()
    order = np.sort(e)[::-1]
    probs = order / np.float32(total)
    mass = np.cumsum(probs, dtype=np.float64).astype(np.float32)
    kept = int(np.count_nonzero(mass - probs <= np.float32(p)))
    kept = min(kept, len(probs) if k is None else k)
    if min_p > 0:
        kept = min(kept, int(np.count_nonzero(probs >= probs[0] * np.float32(min_p))))
    return prefix(row, np.sort(row.x)[::-1], max(1, kept), "low")


def top_p_descending(row: Row, p: float) -> Row:
    """llama.cpp: sorted descending, up to the token with which a float32 running sum reaches p."""
    e, _ = row.weights()
    total = np.add.accumulate(e)[-1]
    order = np.sort(row.x)[::-1]
    mass = np.add.accumulate(np.exp(order - order[0]) / total)
    reached = np.flatnonzero(mass >= np.float32(p))
    return row if not len(reached) else prefix(row, order, int(reached[0]) + 1, "low")


def min_p_probs(row: Row, p: float) -> Row:
    """transformers, vLLM: probabilities of at least p times the largest."""
    e, total = row.weights()
    probs = e / np.float32(total)
    return row.keep(probs >= np.float32(p) * probs.max())


def min_p_logits(row: Row, p: float) -> Row:
    """llama.cpp: logits of at least max + log p; the largest always stays."""
    top = row.x.max()
    kept = row.keep(row.x >= np.float32(top + np.float32(np.log(p))))
    return kept if len(kept.x) else row.keep(row.x == top)


def typical(row: Row, mass: float) -> Row:
    """transformers, TGI: the tokens whose surprise is nearest to the entropy; all that are as near as the last one stay."""
    e, total = row.weights()
    log_p = row.x - row.x.max() - np.float32(np.log(total))
    probs = e / np.float32(total)
    far = np.abs(-log_p + (probs * log_p).sum())
    at = np.argsort(far, kind="stable")
    cumulated = np.cumsum(probs[at], dtype=np.float64).astype(np.float32)
    last = min(int(np.count_nonzero(cumulated < np.float32(mass))), len(at) - 1)
    return row.keep(far <= far[at[last]])


def typical_exact(row: Row, mass: float) -> Row:
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


def top_h(row: Row, share: float) -> Row:
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


def floor(row: Row, least: float) -> Row:
    """Probabilities of at least `least`; the largest always stay (transformers' epsilon and eta)."""
    e, total = row.weights()
    return row.keep((e / np.float32(total) >= np.float32(least)) | (row.x == row.x.max()))


def eta(row: Row, epsilon: float) -> Row:
    """transformers: the floor is min(epsilon, sqrt(epsilon) exp(-entropy))."""
    e, total = row.weights()
    entropy = np.log(total) - float((e * (row.x - row.x.max())).sum(dtype=np.float64)) / total
    return floor(row, min(epsilon, float(np.sqrt(epsilon) * np.exp(-entropy))))


def greedy(row: Row) -> Row:
    """The largest, of several equal ones the one with the lowest id."""
    mask = np.zeros(len(row.x), bool)
    mask[int(row.x.argmax())] = True
    return row.keep(mask)
