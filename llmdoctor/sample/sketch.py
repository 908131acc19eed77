"""A generation's logits, sorted and thinned: the 1,024 largest of each step exactly, the tail in blocks. What the estimates work on.

Every filter of every engine is a cut of the sorted order, so that the likelihood of any settings is one sum over a row's head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmdoctor.sample.arrays import Logits
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.model import Before, Doubles, Floats, Ids
from llmdoctor.sample.stages import run, without_filters
from llmdoctor.sample.tables import ENGINES

HEAD = 1024
_BLOCKS = 64
MOST = 2048  # steps: what is more is thinned evenly


@dataclass(frozen=True, slots=True)
class Sketch:
    """`v` logits [S, M] before the temperature, descending, `n` how many tokens each entry stands for, `at` the drawn token's entry [S].

    `steps` are the steps of the generation that the rows are; `x` the drawn token's logit [S].
    """

    v: Doubles
    n: Doubles
    at: Ids
    x: Doubles
    steps: Ids

    def starts(self) -> Ids:
        """For each entry the first one with the same logit [S, M]: equal logits have one rank."""
        at = np.arange(self.v.shape[1])
        new = np.ones(self.v.shape, bool)
        new[:, 1:] = self.v[:, 1:] != self.v[:, :-1]
        first: Ids = np.maximum.accumulate(np.where(new, at, 0), axis=1)
        return first

    def cut(self, engine: str, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None) -> tuple[Ids, Doubles]:
        """How many entries each step keeps [S], and the log of the sum of exp(v / T) over them [S]."""
        gap = self.v - self.v[:, :1]
        hot = self.n * np.exp(gap / temperature)
        kept = np.full(len(self.v), self.v.shape[1])
        count = np.cumsum(self.n, axis=1) - self.n
        basis = self.n * np.exp(gap) if engine == "llama.cpp" else hot
        scale = 1.0 if engine == "llama.cpp" else temperature
        near = None if not min_p else np.count_nonzero(gap >= scale * np.log(min_p), axis=1)
        if near is not None and engine == "vllm":
            kept = np.minimum(kept, near)
        if top_k:
            place = count if ENGINES[engine].ties == "low" else np.take_along_axis(count, self.starts(), axis=1)
            kept = np.minimum(kept, np.count_nonzero(place < top_k, axis=1))
        if top_p is not None and top_p < 1:
            mass = np.cumsum(basis, axis=1)
            whole = mass[:, -1] if engine == "sglang" else mass[np.arange(len(mass)), kept - 1]
            kept = np.minimum(kept, np.count_nonzero(mass - basis < top_p * whole[:, None], axis=1))
        if near is not None and engine != "vllm":
            kept = np.minimum(kept, near)
        kept = np.maximum(kept, 1)
        total = np.cumsum(hot, axis=1)[np.arange(len(hot)), kept - 1]
        return kept, np.log(total)

    def loglik(
        self, engine: str, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
    ) -> tuple[Doubles, NDArray[np.bool_]]:
        """log q of the drawn tokens [S] as if each were in the support, and whether it is [S]; equal logits at the edge count as in."""
        kept, z = self.cut(engine, temperature, top_k, top_p, min_p)
        edge = self.v[np.arange(len(kept)), kept - 1]
        return (self.x - self.v[:, 0]) / temperature - z, (self.at < kept) | (self.x >= edge)

    def thinned(self, most: int) -> Sketch:
        """At most `most` steps, evenly spaced."""
        if len(self.steps) <= most:
            return self
        pick = np.linspace(0, len(self.steps) - 1, most).astype(np.int64)
        return Sketch(self.v[pick], self.n[pick], self.at[pick], self.x[pick], self.steps[pick])


def make_sketch(
    logits: Logits,
    tokens: Sequence[int],
    claim: Claim,
    prompt: Sequence[int] = (),
    tick: Callable[[int, int], None] | None = None,
) -> Sketch:
    """The sketch of a generation after the claim's penalties and biases. Steps whose token has the logit -inf are left out."""
    open_claim = without_filters(claim.settings)
    values = {name: value for name, value in open_claim.named().items() if name not in ("temperature", "do_sample")}
    plain = type(open_claim)(**values)
    wanted = np.unique(np.linspace(0, logits.steps - 1, min(MOST, logits.steps)).astype(np.int64))
    sizes = _sizes(logits.vocab)
    v, x = np.full((len(wanted), len(sizes)), -np.inf), np.full(len(wanted), -np.inf)
    n, at = np.tile(sizes.astype(np.float64), (len(wanted), 1)), np.zeros(len(wanted), np.int64)
    place = 0
    for start, part in logits.chunks():
        inside = wanted[(wanted >= start) & (wanted < start + len(part))]
        for step in inside:
            row = part[step - start]
            if values:
                passed = run(claim.engine, plain, row, Before(tuple(prompt), tuple(tokens[:step])))[-1].row
                row = np.full(logits.vocab, -np.inf, np.float32)
                row[passed.tokens()] = passed.x
            x[place] = row[tokens[step]]
            order = np.sort(row)[::-1]
            v[place], n[place] = _thin(order, sizes)
            rank = int(np.searchsorted(-order, -row[tokens[step]], "left"))
            at[place] = int(np.searchsorted(np.cumsum(sizes), rank, "right"))
            place += 1
        if tick is not None:
            tick(min(start + len(part), logits.steps), logits.steps)
    good = np.isfinite(x)
    return Sketch(v[good], n[good], at[good], x[good], wanted[good])


def _sizes(vocab: int) -> Ids:
    """How many tokens each entry holds: one in the head, more and more in the tail's blocks."""
    if vocab <= HEAD + _BLOCKS:
        return np.ones(vocab, np.int64)
    edges = np.unique(np.geomspace(HEAD, vocab, _BLOCKS + 1).astype(np.int64))
    return np.concatenate([np.ones(HEAD, np.int64), np.diff(edges)])


def _thin(order: Floats, sizes: Ids) -> tuple[Doubles, Doubles]:
    """The entries' logits and counts: a block's logit is that of its mean weight, so that its mass at temperature 1 is exact."""
    if len(sizes) == len(order):
        return order.astype(np.float64), np.where(np.isfinite(order), 1.0, 0.0)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    top = float(order[0])
    sums = np.add.reduceat(np.exp(order.astype(np.float64) - top), starts)
    with np.errstate(divide="ignore"):
        values = top + np.log(sums / sizes)
    values = np.where(np.isfinite(values), values, -1e30)
    return values, np.where(values > -1e29, sizes, 0.0)
