"""What the tokens say of the settings themselves: intervals by likelihood, the engine's order that fits best, the known broken samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from llmdoctor.sample.claim import Claim
from llmdoctor.sample.judge import Test, claimed
from llmdoctor.sample.laws import LAWS
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.stages import refusal
from llmdoctor.sample.statistics import minimum, normal_sf, root
from llmdoctor.sample.steps import Steps
from llmdoctor.sample.tables import NEWEST, SamplingEngine
from llmdoctor.sample.types import Doubles, SamplingParams

Cuts: TypeAlias = tuple[int | None, float | None, float | None]  # top_k, top_p, min_p
_HALF = 1.9207  # half the 95% point of chi-square with one degree
_EDGE = 3.0  # -log .05: for a bound, where the likelihood jumps
_LAW_NATS = 7.0  # a broken sampler is named where it is that much likelier than the claim (a thousand to one)
_SPAN = math.log(8.0)
_FIT_STEPS = 1024


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FittedClaim:
    """SamplingParams held against the tokens: how many are impossible, the log-likelihood of the others, and the p-value of their z."""

    engine: SamplingEngine
    settings: SamplingParams
    impossible: int
    loglik: float
    p_value: float
    claimed: bool

    def words(self) -> str:
        """The settings in words."""
        return ", ".join([self.engine.name, *(f"{name} {value:.3g}" for name, value in self.settings.named().items())])


@dataclass(frozen=True, slots=True)
class Estimates:
    """Intervals by setting, the fits from the best down, and the broken sampler whose law fits (with the nats it gains)."""

    intervals: dict[str, Interval]
    fits: tuple[FittedClaim, ...]
    law: str | None
    law_gain: float


def estimate(sketch: Sketch, steps: Steps, claim: Claim, tests: Sequence[Test]) -> Estimates:
    """Everything the tokens say. The sketch must hold a step at least."""
    thin = sketch.thinned(_FIT_STEPS)
    proven = tests[0].statistic > 0
    temperature, k, p, m = claimed(claim.settings)
    cuts: Cuts = (None, None, None) if proven else (k, p, m)
    best = temperature_interval(thin, claim.engine, temperature, cuts)
    likely = temperature if best.low <= temperature <= best.high else best.value
    if not proven:  # what lies outside by less than the tolerance would be taken for a wider cut
        _, inside = thin.loglik(claim.engine, temperature, *cuts)
        thin = thin.only(inside) if inside.any() else thin
    intervals = {
        "temperature": best,
        "top_p": mass_interval(thin, claim.engine, likely, cuts[0], cuts[2]),
        "top_k": rank_interval(thin, claim.engine, likely, cuts[1], cuts[2]),
    }
    law, gain = named_law(steps)
    return Estimates(intervals, _fits(sketch.thinned(_FIT_STEPS), claim, intervals, tests), law, gain)


def temperature_interval(sketch: Sketch, engine: SamplingEngine, start: float, cuts: Cuts) -> Interval:
    """The likeliest temperature on the support that the cuts leave at `start`, with its 95% interval."""
    kept, _ = sketch.cut(engine, start, *cuts)
    width = int(kept.max())
    gap = np.where(np.arange(width)[None, :] < kept[:, None], sketch.v[:, :width] - sketch.v[:, :1], -np.inf)
    inside = sketch.at < kept
    if not inside.any():
        return Interval(math.nan, 0.0, math.inf)
    gap, n, x = gap[inside], sketch.n[inside, :width], (sketch.x - sketch.v[:, 0])[inside]

    def minus(log_t: float) -> float:
        return -float((x * math.exp(-log_t) - np.log((n * np.exp(gap * math.exp(-log_t))).sum(axis=1))).sum())

    return _interval(minus, math.log(start))


def _interval(minus: Callable[[float], float], centre: float) -> Interval:
    best, least = minimum(minus, centre - _SPAN, centre + _SPAN)

    def over(log_t: float) -> float:
        return minus(log_t) - least - _HALF

    low, high = centre - _SPAN, centre + _SPAN
    left = root(over, low, best) if over(low) > 0 else -math.inf
    right = root(over, best, high) if over(high) > 0 else math.inf
    return Interval(math.exp(best), math.exp(left), math.exp(right) if right < 700 else math.inf)


def mass_interval(sketch: Sketch, engine: SamplingEngine, temperature: float, k: int | None = None, m: float | None = None) -> Interval:
    """top_p beside the other cuts: the least that holds every token that was drawn, up to where a larger nucleus would have shown itself."""
    before, kept = sketch.nucleus(engine, temperature, k, m)
    before = np.take_along_axis(before, sketch.starts(), axis=1)
    others = np.arange(before.shape[1])[None, :] < kept[:, None]
    hot = np.where(others, _weights(sketch, temperature), 0.0)
    low = float(before[np.arange(len(hot)), sketch.at].max())
    grid = np.linspace(low, 1.0, 40)
    return _bound(grid, [_share(hot, before, edge + 1e-12) for edge in grid], 1.0)


def rank_interval(sketch: Sketch, engine: SamplingEngine, temperature: float, p: float | None = None, m: float | None = None) -> Interval:
    """top_k beside the other cuts: the least that holds every token that was drawn, up to where a larger k would have shown itself."""
    ranks = np.take_along_axis(np.cumsum(sketch.n, axis=1) - sketch.n, sketch.starts(), axis=1) + 1
    low, most = int(ranks[np.arange(len(ranks)), sketch.at].max()), max(1, int(sketch.n.sum(axis=1).max()))
    hot = _weights(sketch, temperature)

    def share(k: int) -> float:
        if p is None and m is None:
            return _share(hot, ranks, k)
        loglik, inside = sketch.loglik(engine, temperature, k, p, m)
        return -float(loglik.sum()) if inside.all() else -math.inf

    beyond = low - 1  # a nucleus of what k leaves is narrower than one of everything: the k that holds all may be larger than any rank
    while not math.isfinite(share(low)) and low < most:
        beyond, low = low, min(most, 2 * low)
    while low - beyond > 1 and (p is not None or m is not None):
        middle = (low + beyond) // 2
        beyond, low = (beyond, middle) if math.isfinite(share(middle)) else (middle, low)
    grid = np.unique(np.geomspace(max(low, 1), max(low, most), 24).astype(np.int64))
    return _bound(grid.astype(float), [share(int(edge)) for edge in grid], math.inf if len(grid) == 1 else float(most))


def _weights(sketch: Sketch, temperature: float) -> Doubles:
    hot = sketch.n * np.exp((sketch.v - sketch.v[:, :1]) / temperature)
    value: Doubles = hot / hot.sum(axis=1, keepdims=True)
    return value


def _share(hot: Doubles, order: Doubles, edge: float) -> float:
    """Sum of the log of the mass that is left where the order ends at `edge`."""
    with np.errstate(divide="ignore"):
        return float(np.log((hot * (order <= edge)).sum(axis=1)).sum())


def _bound(grid: Doubles, shares: list[float], most: float) -> Interval:
    """From the first of the grid to the first that the likelihood leaves out: between two of them the truth may lie."""
    out = next((float(edge) for edge, share in zip(grid, shares, strict=True) if not share - shares[0] <= _EDGE), most)
    return Interval(float(grid[0]), float(grid[0]), out)


def named_law(steps: Steps) -> tuple[str | None, float]:
    """The broken sampler that is likelier than the claim by far, judged on the steps whose support is small enough to work it out."""
    known = ~np.isnan(steps.laws[:, 0]) & np.isfinite(steps.logprob_processed)
    if known.sum() < max(10, steps.count // 2):
        return None, 0.0
    gains = steps.laws[known].sum(axis=0) - steps.logprob_processed[known].sum()
    best = int(np.nan_to_num(gains, nan=-np.inf).argmax())
    return (LAWS[best], float(gains[best])) if gains[best] > _LAW_NATS else (None, 0.0)


def _fits(sketch: Sketch, claim: Claim, intervals: dict[str, Interval], tests: Sequence[Test]) -> tuple[FittedClaim, ...]:
    """The claimed numbers in every engine's order, and other numbers in the claimed one; from the best down."""
    settings = claim.settings
    candidates: dict[tuple[SamplingEngine, tuple[float | None, ...]], tuple[SamplingParams, float, bool]] = {}

    def add(engine: SamplingEngine, wanted: SamplingParams, penalty: float, own: bool = False) -> None:
        if refusal(engine, wanted) is None and wanted.do_sample:
            candidates.setdefault((engine, claimed(wanted)), (wanted, penalty, own))

    add(claim.engine, settings, 0.0, True)
    for engine in NEWEST:
        add(engine, settings, 1.0)
    best = intervals["temperature"].value
    small = {test.name for test in tests if test.p_value < 0.001}
    for temperature, cost in ((settings.temperature, 0.0), (best, 2.0)):
        for k, k_cost in _other(settings.top_k, int(intervals["top_k"].value), "rank_beyond" in small):
            for p, p_cost in _other(settings.top_p, intervals["top_p"].value, "mass_beyond" in small):
                other = replace(settings, temperature=temperature, top_k=None if k is None else int(k), top_p=p)
                add(claim.engine, other, 1.0 + cost + k_cost + p_cost)
    found = [(fit, fit.loglik - penalty) for fit, penalty in (_fit(sketch, key[0], *value) for key, value in candidates.items())]
    found.sort(key=lambda item: (item[0].impossible, -item[1]))
    return tuple(fit for fit, _ in found)


def _other(claimed_value: float | None, bound: float, small: bool) -> list[tuple[float | None, float]]:
    """A cut as claimed, none, and (where fewer tokens came than it allows) the narrowest that holds them all."""
    values: list[tuple[float | None, float]] = [(claimed_value, 0.0)]
    if claimed_value is not None:
        values.append((None, 1.0))
    if small:
        values.append((bound, 3.0))
    return values


def _fit(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, penalty: float, own: bool) -> tuple[FittedClaim, float]:
    temperature, k, p, m = claimed(settings)
    loglik, inside = sketch.loglik(engine, temperature, k, p, m)
    kept, z = sketch.cut(engine, temperature, k, p, m)
    gap = (sketch.v - sketch.v[:, :1]) / temperature
    q = np.where(np.arange(gap.shape[1])[None, :] < kept[:, None], sketch.n * np.exp(gap - z[:, None]), 0.0)
    log_q = gap - z[:, None]
    mean = (q * np.where(q > 0, log_q, 0)).sum(axis=1)
    variance = (q * np.where(q > 0, (log_q - mean[:, None]) ** 2, 0)).sum(axis=1)
    spread = math.sqrt(float(variance[inside].sum()))
    deviate = float((loglik - mean)[inside].sum()) / spread if spread > 0 else 0.0
    fit = FittedClaim(engine, settings, int((~inside).sum()), float(loglik[inside].sum()), 2 * normal_sf(abs(deviate)), own)
    return fit, penalty
