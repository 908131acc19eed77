"""Where division by a temperature can move a token's log-probability, whatever the other tokens are.

If q is p^f normalised again, f > 1, over at most V tokens, then f logit p <= logit q <= f logit p + (f - 1) log(V - 1): the rest of the mass is largest
for q if it is spread evenly, and smallest if it is one token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmdoctor.sample.types import Doubles

NOISE_LIMIT = 0.05  # mean |difference| in nats that precision alone may explain
CERTAIN = -1e-7  # log-probability of a token that is certain in float32
_VOCAB = 300_000
_FACTORS = np.exp(np.linspace(math.log(1.02), math.log(12.0), 120))
_LIKELY = math.log(0.5)
_OUT = 0.5  # nats outside the band, at most, that one token counts: an outlier does not choose the factor
_CHANCE = math.log(1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The power `factor` that best makes one side out of the other, from `low` to `high` for powers that are as good.

    `below` and `above` are the shares of tokens under and over the band by more than arithmetic. `sharpened` are likely tokens (p > 1/2) that
    moved up as they must, `lowered` tokens that moved down, `certain` tokens that are certain though no such division can make them so.
    `exceeds_chance`: signs at random would not agree so well.
    """

    factor: float
    low: float
    high: float
    below: float
    above: float
    inside: int
    count: int
    sharpened: int
    lowered: int
    certain: int
    exceeds_chance: bool


def fit_band(cold: Doubles, base: Doubles) -> Band:
    """Return the band for `cold` [N] as `base` [N] divided by a temperature below 1; both log-probabilities."""
    slack = arithmetic(np.minimum(cold, base))
    plain = _logit(base)
    best: list[tuple[float, float, float, float]] = []
    for factor in _FACTORS:
        least, most = _log_sigmoid(factor * plain), _log_sigmoid(factor * plain + (factor - 1) * math.log(_VOCAB - 1))
        under, over = np.maximum(least - slack - cold, 0), np.maximum(cold - most - slack, 0)
        best.append((float(np.minimum(under + over, _OUT).sum()), float(np.mean(under > 0)), float(np.mean(over > 0)), float(factor)))
    excess = np.array([one[0] for one in best])
    good = np.flatnonzero(excess <= excess.min() + 0.002 * len(cold))
    least_excess = np.flatnonzero(excess <= excess.min() + 1e-9)
    at = int(least_excess[len(least_excess) // 2])
    _, below, above, factor = best[at]
    must = (base > _LIKELY) & (_log_sigmoid(factor * plain) - base > 2 * slack)
    down = cold < base - slack
    highest = best[int(good[-1])][3]
    reached = highest * plain + (highest - 1) * math.log(_VOCAB - 1)
    certain = (cold >= CERTAIN) & (base < -0.05) & (reached < _logit(np.array(CERTAIN)) - 1)
    right = must & (cold > base)
    chance = int(must.sum()) * math.log(0.5) if (must & ~right).sum() <= 0.02 * max(1, int(must.sum())) else 0.0
    return Band(
        factor=factor,
        low=best[int(good[0])][3],
        high=highest,
        below=below,
        above=above,
        inside=round(len(cold) * (1 - below - above)),
        count=len(cold),
        sharpened=int(right.sum()),
        lowered=int(down.sum()),
        certain=int(certain.sum()),
        exceeds_chance=chance < _CHANCE,
    )


def arithmetic(logp: Doubles) -> Doubles:
    """Return the difference [N] that bfloat16 arithmetic can make of log-probabilities: little for a token that is nearly certain."""
    slack: Doubles = 0.005 + 0.075 * -np.expm1(np.minimum(logp, 0.0))
    return slack


def _logit(logp: Doubles) -> Doubles:
    clipped = np.clip(logp, -60.0, -1e-9)
    found: Doubles = clipped - np.log(-np.expm1(clipped))
    return found


def _log_sigmoid(x: Doubles) -> Doubles:
    found: Doubles = -np.logaddexp(0.0, -x)
    return found
