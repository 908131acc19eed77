"""A generation's logits, sorted and thinned: the 1,024 largest of each step exactly, the tail in bins. What the estimates work on.

Every filter of every engine is a cut of the sorted order, so that the likelihood of any settings is one sum over a row's head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.sample.claim import Claim
from llmdoctor.sample.cuts import head
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.logits import Logits
from llmdoctor.sample.stages import run, without_filters
from llmdoctor.sample.types import Doubles, Floats, Ids, Sequences

HEAD = 1024
_BINS, _DEEPEST = 128, 24.0  # of the tail: how many, and how far below the head they reach, in nats
_ONE = Sequences()
MOST = 2048  # steps: what is more is thinned evenly


@dataclass(frozen=True, slots=True)
class Sketch:
    """`v` logits [S, M] before the temperature, descending, `n` how many tokens each entry represents, `at` the drawn token's entry [S].

    `steps` are the steps of the generation that the rows are; `x` the drawn token's logit [S].
    """

    v: Doubles
    n: Doubles
    at: Ids
    x: Doubles
    steps: Ids
    _cache: dict[float | str, Any] = field(default_factory=dict, compare=False, repr=False)

    def starts(self) -> Ids:
        """Return for each entry the first one with the same logit [S, M]: equal logits have one rank."""
        if "starts" not in self._cache:
            at = np.arange(self.v.shape[1])
            new = np.ones(self.v.shape, bool)
            new[:, 1:] = self.v[:, 1:] != self.v[:, :-1]
            self._cache["starts"] = np.maximum.accumulate(np.where(new, at, 0), axis=1)
        first: Ids = self._cache["starts"]
        return first

    def ranks(self) -> Doubles:
        """Return the number of tokens above each entry, equal logits having one rank [S, M]."""
        if "ranks" not in self._cache:
            count = np.cumsum(self.n, axis=1) - self.n
            self._cache["ranks"] = np.take_along_axis(count, self.starts(), axis=1)
        found: Doubles = self._cache["ranks"]
        return found

    def masses(self, scale: float) -> tuple[Doubles, Doubles]:
        """Return the sums [S, M] of exp((v - largest) / scale) up to each entry without it, and with it."""
        if scale not in self._cache:
            for old in [key for key in self._cache if not isinstance(key, str)][:-2]:
                del self._cache[old]
            weights = self.n * np.exp((self.v - self.v[:, :1]) / scale)
            upto = np.cumsum(weights, axis=1)
            self._cache[scale] = (upto - weights, upto)
        found: tuple[Doubles, Doubles] = self._cache[scale]
        return found

    def basis(self, engine: SamplingEngine, temperature: float, top_k: int | None, min_p: float | None) -> tuple[Doubles, Ids, Doubles]:
        """Return what top_p works on: the mass before each entry [S, M] not yet divided, the entries kept so far [S], the whole mass [S]."""
        scale = temperature if engine.cuts_after_temperature else 1.0
        before, upto = self.masses(scale)
        kept = np.full(len(self.v), self.v.shape[1])
        near = None
        if min_p:
            near = np.count_nonzero(self.v - self.v[:, :1] >= scale * np.log(min_p), axis=1)
        if near is not None and engine.min_p_first:
            kept = np.minimum(kept, near)
        if top_k:
            place = np.cumsum(self.n, axis=1) - self.n if engine.ties == "low" else self.ranks()
            kept = np.minimum(kept, np.count_nonzero(place < top_k, axis=1))
        whole = upto[:, -1] if engine.nucleus_of_all else upto[np.arange(len(upto)), np.maximum(kept, 1) - 1]
        if near is not None and not engine.min_p_first:
            kept = np.minimum(kept, near)
        return before, kept, whole

    def nucleus(self, engine: SamplingEngine, temperature: float, top_k: int | None, min_p: float | None) -> tuple[Doubles, Ids]:
        """Return the mass before each entry as the engine's top_p sees it [S, M], and how many entries the other cuts keep [S]."""
        before, kept, whole = self.basis(engine, temperature, top_k, min_p)
        return before / whole[:, None], kept

    def drawn_mass(self, engine: SamplingEngine, temperature: float, top_k: int | None, min_p: float | None) -> Doubles:
        """Return the mass [S] before the drawn token as the engine's top_p sees it."""
        before, _, whole = self.basis(engine, temperature, top_k, min_p)
        rows = np.arange(len(before))
        found: Doubles = before[rows, self.starts()[rows, self.at]] / whole
        return found

    def cut(
        self, engine: SamplingEngine, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
    ) -> tuple[Ids, Doubles]:
        """Return how many entries each step keeps [S], and the log of the sum of exp((v - largest) / T) over them [S]."""
        before, kept, whole = self.basis(engine, temperature, top_k, min_p)
        if top_p is not None and top_p < 1:
            kept = np.minimum(kept, np.count_nonzero(before < (top_p * whole)[:, None], axis=1))
        kept = np.maximum(kept, 1)
        total = self.masses(temperature)[1][np.arange(len(kept)), kept - 1]
        return kept, np.log(total)

    def loglik(
        self, engine: SamplingEngine, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
    ) -> tuple[Doubles, NDArray[np.bool_]]:
        """log q of the drawn tokens [S] as if each were in the support, and whether it is [S]; equal logits at the edge count as in."""
        kept, z = self.cut(engine, temperature, top_k, top_p, min_p)
        edge = self.v[np.arange(len(kept)), kept - 1]
        return (self.x - self.v[:, 0]) / temperature - z, (self.at < kept) | (self.x >= edge)

    def thinned(self, most: int) -> Sketch:
        """At most `most` steps, evenly spaced."""
        return self if len(self.steps) <= most else self.only(np.linspace(0, len(self.steps) - 1, most).astype(np.int64))

    def compressed(self, exact: int = 256, groups: int = 40) -> Sketch:
        """Return the sketch with the entries behind the first `exact` merged into groups, each with the mean weight of its tokens."""
        width = self.v.shape[1]
        if width <= 2 * exact:
            return self
        edges = np.unique(np.geomspace(exact, width, groups + 1).astype(np.int64))
        top = self.v[:, :1]
        weights = np.where(self.n > 0, self.n * np.exp(self.v - top), 0.0)
        counts = np.add.reduceat(self.n, edges[:-1], axis=1)
        sums = np.add.reduceat(weights, edges[:-1], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            merged = np.where(counts > 0, top + np.log(sums / counts), -np.inf)
        at = np.where(self.at < exact, self.at, exact + np.searchsorted(edges, self.at, "right") - 1)
        v, n = np.concatenate([self.v[:, :exact], merged], axis=1), np.concatenate([self.n[:, :exact], counts], axis=1)
        return Sketch(v, n, at, self.x, self.steps)

    def only(self, pick: NDArray[Any]) -> Sketch:
        """The steps that a mask or places pick."""
        return Sketch(self.v[pick], self.n[pick], self.at[pick], self.x[pick], self.steps[pick])


def make_sketch(
    logits: Logits,
    tokens: Sequence[int],
    claim: Claim,
    *,
    sequences: Sequences = _ONE,
    tick: Callable[[int, int], None] | None = None,
) -> Sketch:
    """The sketch of a generation after the claim's penalties and biases. Steps whose token has the logit -inf are left out."""
    open_claim = without_filters(claim.settings)
    values = {name: value for name, value in open_claim.named().items() if name not in ("temperature", "do_sample")}
    plain = type(open_claim)(**values)
    wanted = np.unique(np.linspace(0, logits.steps - 1, min(MOST, logits.steps)).astype(np.int64))
    width = logits.vocab if logits.vocab <= HEAD + _BINS else HEAD + _BINS
    v, x = np.full((len(wanted), width), -np.inf), np.full(len(wanted), -np.inf)
    n, at = np.zeros((len(wanted), width)), np.zeros(len(wanted), np.int64)
    place = 0
    for start, part in logits.chunks():
        for step in wanted[(wanted >= start) & (wanted < start + len(part))]:
            row = part[step - start]
            if values:
                passed = run(claim.engine, plain, row, sequences.before(tokens, int(step)))[-1].row
                row = np.full(logits.vocab, -np.inf, np.float32)
                row[passed.tokens()] = passed.x
            x[place] = row[tokens[step]]
            v[place], n[place], at[place] = thin(row, x[place], width)
            place += 1
        if tick is not None:
            tick(min(start + len(part), logits.steps), logits.steps)
    good = np.isfinite(x)
    return Sketch(v[good], n[good], at[good], x[good], wanted[good])


def thin(row: Floats, x: float, width: int) -> tuple[Doubles, Doubles, int]:
    """A row's entries, their logits and counts [width], and the entry of the token with the logit `x`.

    A bin's logit is that of its mean weight, so that its mass at temperature 1 is exact; a bin is narrow enough for other temperatures.
    """
    if np.isneginf(row.min()):
        row = row[~np.isneginf(row)]
        if len(row) < width:
            order = np.append(np.sort(row)[::-1], np.full(width - len(row), -np.inf)).astype(np.float64)
            return order, np.isfinite(order).astype(np.float64), int(np.count_nonzero(row > x))
    if width == len(row):
        order = np.sort(row)[::-1].astype(np.float64)
        return order, np.isfinite(order).astype(np.float64), int(np.count_nonzero(row > x))
    order = head(row, HEAD).order[:HEAD].astype(np.float64)
    edge, top = float(order[-1]), float(order[0])
    rest = row[row <= edge]
    gap = np.minimum(edge - rest, _DEEPEST)
    place = (gap * (_BINS / _DEEPEST)).astype(np.int32)
    np.minimum(place, _BINS - 1, out=place)
    beyond = np.count_nonzero(row >= edge) - HEAD  # of those at the edge only what the head has no room for
    counts = np.bincount(place, minlength=_BINS).astype(np.float64)
    sums = np.bincount(place, np.exp(rest - np.float32(top)), minlength=_BINS)
    at_edge = np.count_nonzero(rest == edge) - beyond
    counts[0] -= at_edge
    sums[0] = max(0.0, sums[0] - at_edge * math.exp(edge - top))
    middle = edge - (np.arange(_BINS) + 0.5) * (_DEEPEST / _BINS)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where((counts > 0) & (sums > 0), top + np.log(sums / counts), middle)
    drawn = int(np.count_nonzero(row > x))
    if drawn >= HEAD:
        drawn = HEAD + min(_BINS - 1, int(min(edge - x, _DEEPEST) * (_BINS / _DEEPEST)))
    return np.concatenate([order, values]), np.concatenate([np.ones(HEAD), counts]), drawn
