"""What top-n log-probabilities show of each step. Unlisted tokens are known by their total mass alone, so every answer is an interval.

Nothing is assumed about how the unlisted mass is spread, except that no unlisted token is likelier than the last listed one and that a
vocabulary has at most 300,000 tokens. A token is impossible, or certainly in the support, only if that holds for every such spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdoctor.requests.listed import Listed
from llmdoctor.sample.entry import LogprobKind, SamplingEngine
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.types import Doubles, Flags, Ids, SamplingParams

_VOCAB = 300_000
_MASS, _LOGIT = 2e-4, 1e-5  # float32 arithmetic of an engine: of a mass, and of a log-probability
_RANKS = 2  # the rank that vLLM reports counts every tied token: a rank above so many times top_k lies beyond it


@dataclass(frozen=True, slots=True)
class ListedLaw:
    """How listed log-probabilities become the distribution that is drawn from.

    `scale` divides them before sampling, `cut_scale` before top_p and min_p measure them; the cuts are those still to come.
    """

    engine: SamplingEngine
    scale: float = 1.0
    cut_scale: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    greedy: bool = False

    @classmethod
    def of(cls, kind: LogprobKind, engine: SamplingEngine, settings: SamplingParams) -> ListedLaw:
        """Return the law of raw log-probabilities, of those after the temperature, or of processed ones."""
        temperature = 1.0 if settings.temperature is None else settings.temperature
        if kind == "processed" or not settings.do_sample:
            return cls(engine, greedy=not settings.do_sample)
        raw = kind == "raw"
        after = engine.cuts_after_temperature
        cut_scale = (temperature if after else 1.0) if raw else (1.0 if after else 1 / temperature)
        top_p = settings.top_p if settings.top_p is not None and settings.top_p < 1 else None
        return cls(
            engine=engine,
            scale=temperature if raw else 1.0,
            cut_scale=cut_scale,
            top_k=settings.top_k,
            top_p=top_p,
            min_p=settings.min_p or None,
        )


@dataclass(frozen=True, slots=True)
class ListedSteps:
    """The steps as arrays: log-probabilities `v` [S, n], descending, -inf behind the `size` [S] of each list; `at` [S] is the place of the drawn
    token (`size` if it is not listed), `x` [S] its log-probability, `rank` [S] the engine's rank of it (0: unknown), `error` the rounding of v."""

    v: Doubles
    size: Ids
    at: Ids
    x: Doubles
    rank: Ids
    error: float


@dataclass(frozen=True, slots=True)
class SupportBounds:
    """The support of each step under a law.

    `sure` and `maybe` [S, n] are the listed tokens certainly and possibly in it, `tail` [S] whether unlisted tokens may be. `weights` [S, n] are
    relative to the largest, `tail_low` and `tail_high` [S] those of the unlisted tokens in the support. `before` [S, 2] bounds the mass before the
    drawn token as top_p measures it; `removed` names the stage that removes the drawn token for certain ("" if none does).
    """

    sure: Flags
    maybe: Flags
    tail: Flags
    weights: Doubles
    tail_low: Doubles
    tail_high: Doubles
    before: Doubles
    removed: tuple[str, ...]

    def outside(self) -> tuple[Doubles, Doubles]:
        """Return the least and the largest probability [S] of drawing a token that is not certainly in the support."""
        inside = (self.weights * self.sure).sum(axis=1)
        most = (self.weights * self.maybe).sum(axis=1) + self.tail_high
        least = inside + self.tail_low
        return 1 - inside / np.maximum(least, 1e-300), 1 - inside / np.maximum(most, 1e-300)


def arrays_of(steps: Sequence[Listed]) -> ListedSteps:
    """Return the steps as arrays; entries of log-probability -inf are not listed tokens."""
    tops = [[value for _, value in step.top if value > -math.inf] for step in steps]
    width = max((len(top) for top in tops), default=0)
    v = np.full((len(steps), max(width, 1)), -np.inf)
    for index, top in enumerate(tops):
        v[index, : len(top)] = top
    size = np.array([len(top) for top in tops], np.int64)
    places = [step.place for step in steps]
    at = np.array([size[i] if place is None or place >= size[i] else place for i, place in enumerate(places)], np.int64)
    x = np.array([step.logprob for step in steps])
    rank = np.array([step.rank or 0 for step in steps], np.int64)
    return ListedSteps(v=v, size=size, at=at, x=x, rank=rank, error=_rounding(v))


def _rounding(v: Doubles) -> float:
    """Half a unit of the last decimal that the log-probabilities have, for 2 to 6 decimals; else what float32 holds."""
    values = v[np.isfinite(v)][:4096]
    for decimals in range(2, 7):
        scaled = values * 10.0**decimals
        if len(values) and np.abs(scaled - np.round(scaled)).max() < 1e-3:
            return 0.5 * 10.0**-decimals
    return 1e-6


def bound_supports(steps: ListedSteps, law: ListedLaw) -> SupportBounds:
    """Return the bounds of every step's support under `law`."""
    listed = np.isfinite(steps.v)
    gap = np.where(listed, steps.v - _first(steps)[:, None], -np.inf)
    sure, maybe, tail = listed.copy(), listed.copy(), np.ones(len(gap), bool)
    removed = np.full(len(gap), "", object)
    cuts = [_cut_min_p, _cut_top_k, _cut_top_p] if law.engine.min_p_first else [_cut_top_k, _cut_top_p, _cut_min_p]
    if law.greedy:
        cuts = [_cut_top_p, _cut_greedy]
    before = np.stack([_above(steps, np.exp(gap / law.cut_scale), listed, side) for side in (1, -1)], axis=1)
    for cut in cuts:
        sure, maybe, tail, before = cut(steps, law, _Kept(gap=gap, sure=sure, maybe=maybe, tail=tail, before=before, removed=removed))
    weights = np.exp(gap / law.scale)
    low, high = _tail_sums(steps, law, law.scale, tail)
    low = low if law.top_p is None and not law.min_p and law.top_k is None else np.zeros(len(gap))
    return SupportBounds(
        sure=sure, maybe=maybe, tail=tail, weights=weights, tail_low=low, tail_high=high, before=before, removed=tuple(removed)
    )


@dataclass(slots=True)
class _Kept:
    """What the stages so far have left; each cut marks in `removed` the steps whose drawn token it removes."""

    gap: Doubles
    sure: Flags
    maybe: Flags
    tail: Flags
    before: Doubles
    removed: np.ndarray


_Left = tuple[Flags, Flags, Flags, Doubles]


def _drawn_out(steps: ListedSteps, kept: _Kept, maybe: Flags, tail: Flags, name: str) -> None:
    """Mark the steps whose drawn token is no longer possible."""
    rows = np.arange(len(maybe))
    place = np.minimum(steps.at, maybe.shape[1] - 1)
    possible = np.where(steps.at < steps.size, maybe[rows, place], tail)
    kept.removed[(kept.removed == "") & ~possible & (steps.size > 0)] = name


def _cut_greedy(steps: ListedSteps, law: ListedLaw, kept: _Kept) -> _Left:
    maybe = kept.maybe & (kept.gap / law.scale >= -2 * steps.error - _LOGIT)
    tail = np.zeros(len(maybe), bool)
    _drawn_out(steps, kept, maybe, tail, "greedy")
    return kept.sure & maybe, maybe, tail, kept.before


def _cut_min_p(steps: ListedSteps, law: ListedLaw, kept: _Kept) -> _Left:
    if not law.min_p:
        return kept.sure, kept.maybe, kept.tail, kept.before
    edge, slack = math.log(law.min_p) * law.cut_scale, 2 * steps.error + _LOGIT * max(1.0, law.cut_scale)
    sure, maybe = kept.sure & (kept.gap >= edge + slack), kept.maybe & (kept.gap >= edge - slack)
    sure[:, 0] |= kept.sure[:, 0]
    last = _last(steps)
    tail = kept.tail & (last - _first(steps) >= edge - slack)
    own = np.where(steps.at < steps.size, True, steps.x - _first(steps) >= edge - slack)
    _drawn_out(steps, kept, maybe, tail & own, "min_p")
    return sure, maybe, tail, kept.before


def _cut_top_k(steps: ListedSteps, law: ListedLaw, kept: _Kept) -> _Left:
    k, error = law.top_k, 2 * steps.error + 1e-9
    if not k:
        return kept.sure, kept.maybe, kept.tail, kept.before
    v, width = steps.v, steps.v.shape[1]
    if k > width:
        _drawn_out(steps, kept, kept.maybe, kept.tail & ((steps.rank == 0) | (steps.rank <= _RANKS * k)), "top_k")
        return kept.sure, kept.maybe, kept.tail, kept.before
    full = steps.size >= k
    edge = v[:, k - 1 : k]
    following = v[:, k : k + 1] if k < width else np.full_like(edge, -np.inf)
    unlisted_next = full & (steps.size == k)  # the (k + 1)-th token is not listed and may tie with the k-th
    sure = kept.sure & ((np.arange(width)[None, :] < k) & (v > following + error) | ~full[:, None])
    if law.engine.ties != "all":
        sure &= (v > edge + error) | ~unlisted_next[:, None]
    maybe = kept.maybe & ((v >= edge - error) | ~full[:, None])
    tail = kept.tail & (~full | (_last(steps) >= edge[:, 0] - error))
    own = (steps.at < steps.size) | ~full | (steps.x >= edge[:, 0] - error)
    _drawn_out(steps, kept, maybe, tail & own, "top_k")
    return sure, maybe, tail, kept.before


def _cut_top_p(steps: ListedSteps, law: ListedLaw, kept: _Kept) -> _Left:
    weights = np.exp(kept.gap / law.cut_scale)
    basis_sure, basis_maybe, basis_tail = kept.sure, kept.maybe, kept.tail
    if law.engine.nucleus_of_all:
        basis_sure = basis_maybe = np.isfinite(steps.v)
        basis_tail = np.ones(len(weights), bool)
    low, high = _tail_sums(steps, law, law.cut_scale, basis_tail, whole=law.engine.nucleus_of_all)
    least = np.maximum((weights * basis_sure).sum(axis=1) + low, 1e-300)
    most = np.maximum((weights * basis_maybe).sum(axis=1) + high, 1e-300)
    before = np.stack([np.minimum(1, kept.before[:, 0] / most), np.minimum(1, kept.before[:, 1] / least)], axis=1)
    if law.top_p is None and not law.engine.nucleus_of_all:
        return kept.sure, kept.maybe, kept.tail, before
    # A joint stage always applies top_p, if only of 1: its float32 sum may round to more than that before the last tokens.
    limit = 1.0 if law.top_p is None else law.top_p
    tolerance = _MASS + 4 * steps.error / law.cut_scale
    above = np.cumsum(weights * basis_sure, axis=1) - weights * basis_sure
    upto = np.cumsum(weights * basis_maybe, axis=1) - weights * basis_maybe
    tied = _tied(steps, weights * basis_maybe)
    sure = kept.sure & ((upto + tied) / least[:, None] < limit - tolerance)
    sure[:, 0] |= kept.sure[:, 0]
    if law.top_p is None:
        return sure, kept.maybe, kept.tail, before
    maybe = kept.maybe & ((above - tied) / most[:, None] < limit + tolerance)
    whole = (weights * basis_sure).sum(axis=1)
    last_tied = np.where(_last(steps) > -np.inf, tied[np.arange(len(tied)), np.maximum(steps.size - 1, 0)], 0)
    tail = kept.tail & ((whole - last_tied) / most < limit + tolerance)
    _drawn_out(steps, kept, maybe, tail, "top_p")
    return sure, maybe, tail, before


def _tied(steps: ListedSteps, weights: Doubles) -> Doubles:
    """The weight [S, n] of the other tokens that rounding cannot tell from each one: which of them comes first is unknown."""
    close = np.zeros_like(weights)
    error = 2 * steps.error + 1e-9
    v = np.where(np.isfinite(steps.v), steps.v, -1e9 * (1 + np.arange(steps.v.shape[1])))  # no two ends of a list are alike
    for shift in range(1, v.shape[1]):
        near = v[:, :-shift] - v[:, shift:] <= error
        if not near.any():
            break
        close[:, :-shift] += np.where(near, weights[:, shift:], 0)
        close[:, shift:] += np.where(near, weights[:, :-shift], 0)
    return close


def _above(steps: ListedSteps, weights: Doubles, listed: Flags, side: int) -> Doubles:
    """The weight [S] of the listed tokens above the drawn one: certainly above (1), or possibly (-1)."""
    margin = side * (2 * steps.error + 1e-9)
    x = np.where(steps.at < steps.size, steps.v[np.arange(len(steps.v)), np.minimum(steps.at, steps.v.shape[1] - 1)], steps.x)
    over = listed & (steps.v > x[:, None] + margin)
    over[np.arange(len(over)), np.minimum(steps.at, over.shape[1] - 1)] &= steps.at >= steps.size
    found: Doubles = (weights * over).sum(axis=1)
    unlisted = steps.at >= steps.size
    return np.where(unlisted & (side < 0), np.inf, found)


def _first(steps: ListedSteps) -> Doubles:
    """The log-probability [S] of the first listed token, 0 without any."""
    return np.where(steps.size > 0, steps.v[:, 0], 0.0)


def _last(steps: ListedSteps) -> Doubles:
    """The log-probability [S] of the last listed token, which no unlisted one exceeds."""
    last: Doubles = steps.v[np.arange(len(steps.v)), np.maximum(steps.size - 1, 0)]
    return np.where(steps.size > 0, last, 0.0)


def _tail_sums(steps: ListedSteps, law: ListedLaw, scale: float, tail: Flags, whole: bool = False) -> tuple[Doubles, Doubles]:
    """The least and the largest sum [S] of the unlisted tokens' p^(1/scale), relative to the largest token's, of those that may be kept."""
    power = 1 / scale
    top = _first(steps)
    listed = np.exp(steps.v).sum(axis=1)
    slack = steps.error + 1e-7
    with np.errstate(divide="ignore", invalid="ignore"):  # a largest token of probability 0 bounds nothing
        mass_low = np.nan_to_num(np.maximum(1 - listed * (1 + slack), 0) / np.exp(top), posinf=np.inf)
        mass_high = np.nan_to_num(np.maximum(1 - listed * (1 - slack), 0) / np.exp(top), nan=np.inf, posinf=np.inf)
    largest = np.minimum(np.exp(_last(steps) - top + slack), 1.0)
    room = np.full(len(top), float(_VOCAB))
    if law.top_k and law.engine.ties == "low" and not whole:
        room = np.maximum(law.top_k - steps.size, 0).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        if power >= 1:
            high = np.minimum(room, mass_high / largest) * largest**power
            low = _VOCAB ** (1 - power) * mass_low**power
        else:
            each = np.minimum(largest, mass_high / np.maximum(room, 1))
            high = room * each**power
            low = mass_low * largest ** (power - 1)
    if (law.top_k or (law.min_p and law.engine.min_p_first)) and not whole:
        low = np.zeros_like(low)
    return np.where(tail, np.nan_to_num(low), 0.0), np.where(tail, np.nan_to_num(high), 0.0)


def certain_sketch(steps: ListedSteps, sure: Flags) -> Sketch:
    """Return the listed tokens that are certainly in the support: given that one of them was drawn, their odds are known exactly.

    Only steps with two such tokens or more, of which one was drawn, are kept.
    """
    rows = np.arange(len(sure))
    drawn = (steps.at < steps.size) & sure[rows, np.minimum(steps.at, sure.shape[1] - 1)] if sure.size else np.zeros(len(sure), bool)
    kept = np.flatnonzero(drawn & (sure.sum(axis=1) > 1))
    width = int(sure[kept].sum(axis=1).max()) if len(kept) else 0
    v, n = np.zeros((len(kept), width)), np.zeros((len(kept), width))
    at = np.zeros(len(kept), np.int64)
    for row, index in enumerate(kept):
        places = np.flatnonzero(sure[index])
        v[row, : len(places)], v[row, len(places) :] = steps.v[index, places], steps.v[index, places[-1]]
        n[row, : len(places)] = 1.0
        at[row] = int(np.searchsorted(places, steps.at[index]))
    return Sketch(v, n, at, v[np.arange(len(kept)), at] if len(kept) else np.zeros(0), kept)
