"""95% intervals of settings: of a temperature on a fixed support, of a cut from the tightest one up to where a wider one would have shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.statistics import minimum, root
from llmdoctor.sample.testing import Support, sorted_settings
from llmdoctor.sample.types import Doubles, Flags, SamplingParams

_HALF, _EDGE = 1.9207, 3.0  # nats: half the 95% point of chi-square with one degree; -log .05, for a bound at which the likelihood jumps
IMPOSSIBLE = 15.0  # nats that a token costs which a candidate cannot draw
_SPAN = math.log(8.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval; infinite if the tokens do not limit it."""

    value: float
    low: float
    high: float


def furthest_rank(sketch: Sketch) -> int:
    """Return the largest rank, from 1, of a drawn token."""
    return int(sketch.ranks()[np.arange(len(sketch.at)), sketch.at].max()) + 1


def intervals_of(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams) -> dict[str, Interval]:
    """Return the 95% intervals of a fit: the temperature's on the fit's support, the cuts' at every temperature of its interval."""
    found: dict[str, Interval] = {}
    temperature = temperature_interval(sketch, engine, settings)
    found["temperature"] = temperature
    ends = [(settings.temperature or 1.0, 0.0)]
    ends += [(end, _HALF) for end in (temperature.low, temperature.high) if 0 < end < math.inf]
    for name, interval in (("top_p", top_p_interval), ("top_k", top_k_interval), ("min_p", min_p_interval)):
        each = [interval(sketch, engine, replace(settings, temperature=value), _EDGE - spent) for value, spent in ends]
        found[name] = Interval(each[0].value, min(one.low for one in each), max(one.high for one in each))
    return found


def temperature_interval(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams) -> Interval:
    """Return the temperature's 95% interval given that every token lies in the support that the settings leave.

    The support is held fixed, so that the likelihood is smooth; tokens outside it are left out.
    """
    _, inside = sketch.loglik(engine, *sorted_settings(settings))
    if not inside.any():
        return Interval(math.nan, 0.0, math.inf)
    return interval_on(Support.of(sketch.only(inside), engine, settings))


def interval_on(support: Support) -> Interval:
    """Return the temperature's 95% interval on a fixed support: where twice the log-likelihood is at most 3.84 below its maximum."""
    minus, centre = support.minus_loglik(), math.log(support.temperature)
    best, least = minimum(minus, centre - _SPAN, centre + _SPAN)

    def over(log_t: float) -> float:
        return minus(log_t) - least - _HALF

    low, high = centre - _SPAN, centre + _SPAN
    left = root(over, low, best) if over(low) > 0 else -math.inf
    right = root(over, best, high) if over(high) > 0 else math.inf
    return Interval(math.exp(best), math.exp(left), math.exp(right) if right < 700 else math.inf)


def top_p_interval(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, nats: float = _EDGE) -> Interval:
    """Return the smallest top_p that keeps every drawn token, up to where a larger nucleus would have shown itself."""
    temperature, k, _, m = sorted_settings(settings)
    before, kept = sketch.nucleus(engine, temperature, k, m)
    before = np.take_along_axis(before, sketch.starts(), axis=1)
    weights = _weights(sketch, temperature, np.arange(before.shape[1])[None, :] < kept[:, None])
    low = float(min(1.0, before[np.arange(len(before)), np.minimum(sketch.at, before.shape[1] - 1)].max()))
    grid = [low + (1 - low) * share**2 for share in np.linspace(0, 1, 30)]
    return _bound(low, grid, lambda edge: _within(weights, before <= edge + 1e-12), 1.0, nats)


def top_k_interval(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, nats: float = _EDGE) -> Interval:
    """Return the smallest top_k that keeps every drawn token, up to where a larger one would have shown itself; infinite: no top_k."""
    temperature, _, p, m = sorted_settings(settings)
    ranks = sketch.ranks() + 1
    low, most = furthest_rank(sketch), max(1, int(sketch.n.sum(axis=1).max()))
    grid = [float(value) for value in np.unique(np.geomspace(max(low, 1), max(low, most), 28).astype(np.int64))]
    if p is None and m is None:
        weights = _weights(sketch, temperature, None)
        return _bound(low, grid, lambda edge: _within(weights, ranks <= edge), math.inf, nats)

    def loglik(edge: float) -> float:
        values, inside = sketch.loglik(engine, temperature, int(edge), p, m)
        return -float(values[inside].sum()) + IMPOSSIBLE * int((~inside).sum())

    values = [loglik(edge) for edge in grid]
    best = min(values)
    near = [edge for edge, value in zip(grid, values, strict=True) if value <= best + nats]
    first = grid[values.index(best)]
    after = next((edge for edge in grid if edge > max(near)), math.inf)
    return Interval(first, min(near), after if math.isinf(after) else after - 1)


def min_p_interval(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, nats: float = _EDGE) -> Interval:
    """Return the largest min_p that keeps every drawn token, down to where a smaller one would have shown itself; 0: no min_p."""
    temperature, k, p, _ = sorted_settings(settings)
    scale = temperature if engine.cuts_after_temperature else 1.0
    gap = (sketch.v - sketch.v[:, :1]) / scale
    kept, _ = sketch.cut(engine, temperature, k, p, None)
    weights = _weights(sketch, temperature, np.arange(gap.shape[1])[None, :] < kept[:, None])
    edge = float((sketch.x - sketch.v[:, 0]).min()) / scale
    grid = [edge * factor for factor in (1.0, *np.linspace(1.01, 2.5, 24))]
    found = _bound(edge, grid, lambda least: _within(weights, gap >= least - 1e-9), -math.inf, nats)
    return Interval(math.exp(edge), 0.0 if math.isinf(found.high) else math.exp(found.high), math.exp(edge))


def _weights(sketch: Sketch, temperature: float, mask: Flags | None) -> Doubles:
    hot = sketch.n * np.exp((sketch.v - sketch.v[:, :1]) / temperature)
    hot = hot if mask is None else np.where(mask, hot, 0.0)
    found: Doubles = hot / hot.sum(axis=1, keepdims=True)
    return found


def _within(weights: Doubles, mask: Flags) -> float:
    """-log of the probability that every token is drawn from `mask` [S, M]."""
    with np.errstate(divide="ignore"):
        return -float(np.log(np.minimum((weights * mask).sum(axis=1), 1.0)).sum())


def _bound(low: float, grid: Sequence[float], chance: Callable[[float], float], most: float, nats: float) -> Interval:
    """From the edge of what was drawn to the first of the grid that costs the likelihood `nats` more, located by bisection."""
    tight = chance(grid[0])
    over = next((index for index, edge in enumerate(grid) if tight - chance(edge) > nats), None)
    if over is None:
        return Interval(low, low, most)
    near, far = grid[over - 1], grid[over]
    for _ in range(8):
        middle = (near + far) / 2
        near, far = (near, middle) if tight - chance(middle) > nats else (middle, far)
    return Interval(low, low, far)
