"""Draws judged against a distribution: an exact multinomial test if the outcomes can be enumerated, else chi-square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmdoctor.sample import laws
from llmdoctor.sample.statistics import chi2_isf, chi2_sf, combinations, log_multinomials
from llmdoctor.sample.types import Doubles, Ids

_OUTCOMES, _POWER_OUTCOMES = 100_000, 12_000  # of a multinomial, enumerated for one p-value, and for a power
_EXPECTED = 5.0  # least expected count of a cell of the chi-square test; smaller cells are merged
_LIKELY, _NEAR = 0.5, 0.01  # a power worth the name, and a total variation that makes no practical difference
_NATS = 5.0  # a broken sampler is named if it is that much likelier


@dataclass(frozen=True, slots=True)
class DrawTest:
    """Draws against a distribution: the test, its statistic and p-value, and the power against each broken sampler's law.

    `law` is the broken sampler that fits, None where none does; `needed` the draws that tell each law with 99% power, `apart` its total
    variation from the distribution.
    """

    n: int
    test: str
    statistic: float
    p_value: float
    impossible: int
    law: str | None
    law_probs: Doubles | None
    powers: dict[str, float]
    needed: dict[str, int]
    apart: dict[str, float]

    @property
    def open(self) -> list[str]:
        """The laws that so many draws would sooner miss than show."""
        return [name for name, power in self.powers.items() if power < _LIKELY]

    @property
    def decided(self) -> bool:
        """Whether every law that makes a difference to speak of would have shown itself."""
        return self.n > 0 and all(self.apart[name] < _NEAR for name in self.open)


def judge_draws(probs: Doubles, counts: Ids, alpha: float, plain: Doubles, temperature: float) -> DrawTest:
    """Held against `probs` [V]; `plain` is the distribution before the temperature, for the law that puts it on probabilities."""
    n = int(counts.sum())
    impossible = int(counts[probs <= 0].sum())
    others = alternatives(probs, plain, temperature)
    test, statistic, p_value = goodness_of_fit(probs, counts) if not impossible else ("impossible tokens", math.inf, 0.0)
    law = _named(probs, counts, others) if p_value < alpha else None
    powers = {name: power(probs, other, n, alpha) for name, other in others.items()}
    return DrawTest(
        n=n,
        test=test,
        statistic=statistic,
        p_value=p_value,
        impossible=impossible,
        law=law,
        law_probs=None if law is None else others[law],
        powers=powers,
        needed={name: needed(probs, other, alpha) for name, other in others.items()},
        apart={name: float(np.abs(other - probs).sum() / 2) for name, other in others.items()},
    )


def alternatives(probs: Doubles, plain: Doubles, temperature: float) -> dict[str, Doubles]:
    """The laws of the known broken samplers for this distribution; only those that differ from it."""
    at = np.flatnonzero(probs)
    down = at[np.argsort(-probs[at], kind="stable")]

    def spread(where: Ids, values: Doubles) -> Doubles:
        dense = np.zeros(len(probs))
        dense[where] = values
        return dense

    found = {
        laws.LOOP_BY_ID: spread(at, laws.last_pass_wins(probs[at])),
        laws.LOOP_DOWN: spread(down, laws.last_pass_wins(probs[down])),
        laws.LOOP_UP: spread(down[::-1], laws.last_pass_wins(probs[down[::-1]])),
        laws.NEVER_ZERO: spread(at, laws.never_zero(probs[at], at)),
        laws.ONE_SHORT: laws.one_short(probs),
    }
    if temperature != 1.0:
        found[laws.TEMPERATURE_ON_PROBS] = laws.softmax_of_probs(plain, temperature)
    kept: dict[str, Doubles] = {}
    for name, law in found.items():
        if abs(law - probs).sum() > 1e-6 and all(abs(law - other).sum() > 1e-9 for other in kept.values()):
            kept[name] = law
    return kept


def _named(probs: Doubles, counts: Ids, others: dict[str, Doubles]) -> str | None:
    """The law that the draws follow: far likelier than the distribution, and not refuted itself."""
    drawn = np.flatnonzero(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = float((counts[drawn] * np.log(probs[drawn])).sum())
        scores = {name: float((counts[drawn] * np.log(law[drawn])).sum()) for name, law in others.items()}
    for name in sorted(scores, key=lambda name: -scores[name]):
        if math.isfinite(scores[name]) and scores[name] - own > _NATS and goodness_of_fit(others[name], counts)[2] > 0.001:
            return name
    return None


def goodness_of_fit(probs: Doubles, counts: Ids) -> tuple[str, float, float]:
    """Return test, statistic and p-value: exact by G if all outcomes can be enumerated, else Pearson's over cells of about five expected draws.

    Pearson's statistic has mean k - 1 whatever the cells are (G has it only where each expects many); its variance is that of a chi-square plus
    what small cells add, and the chi-square it is held against is scaled to have both.
    """
    at = np.flatnonzero((probs > 0) | (counts > 0))
    p, seen, n = probs[at], counts[at], int(counts.sum())
    if (p <= 0).any():
        return "impossible tokens", math.inf, 0.0
    if n == 0 or len(at) < 2:
        return "nothing to test", 0.0, 1.0
    if combinations(n + len(at) - 1, len(at) - 1) <= _OUTCOMES:
        statistic = _g(seen[None], p, n)[0]
        outcomes = _compositions(n, len(at))
        p_value = float(_chance(outcomes, p)[_g(outcomes, p, n) >= statistic - 1e-9].sum())
        return "exact multinomial", float(statistic), min(1.0, p_value)
    where = cells(p, n)
    p, found = _merged(where, p), _merged(where, seen)
    if len(p) < 2:
        return "nothing to test", 0.0, 1.0
    statistic = float(((found - n * p) ** 2 / (n * p)).sum())
    scale, degrees = _shape(p, n)
    return "chi-square", statistic, chi2_sf(statistic / scale, degrees)


def cells(p: Doubles, n: int) -> Ids:
    """The cell [k] of each token: one of its own where five of `n` draws are expected, the others put together, like with like, to as many."""
    order = np.argsort(-p, kind="stable")
    expected = p[order] * n
    wide = int(np.count_nonzero(expected >= _EXPECTED))
    rest = (np.cumsum(expected[wide:]) / _EXPECTED).astype(np.int64)
    _, rest = np.unique(rest, return_inverse=True)
    where = np.concatenate([np.arange(wide), wide + rest])
    if len(rest) and where[-1] > 0 and expected[where == where[-1]].sum() < _EXPECTED:
        where[where == where[-1]] -= 1
    found = np.zeros(len(p), np.int64)
    found[order] = where
    return found


def _merged(where: Ids, values: Doubles | Ids) -> Doubles:
    total: Doubles = np.bincount(where, values).astype(np.float64)
    return total


def _shape(p: Doubles, n: int) -> tuple[float, float]:
    """Scale and degrees of the chi-square with the mean and the variance of Pearson's statistic over cells `p` [k]."""
    k = len(p)
    variance = 2 * (k - 1) + (float((1 / p).sum()) - k**2 - 2 * k + 2) / n
    scale = max(variance, 1e-9) / (2 * (k - 1))
    return scale, (k - 1) / scale


def _g(outcomes: Ids, p: Doubles, n: int) -> Doubles:
    """G = 2 sum count log(count / expected) of each outcome [m, k]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(outcomes > 0, outcomes * np.log(outcomes / (n * p)), 0.0)
    value: Doubles = 2 * terms.sum(axis=1)
    return value


def _chance(outcomes: Ids, probs: Doubles) -> Doubles:
    """The multinomial probability of each outcome [m, k]."""
    with np.errstate(divide="ignore"):
        value: Doubles = np.exp(log_multinomials(outcomes, np.log(probs)))
    return value


def _compositions(n: int, parts: int) -> Ids:
    """Every way to write n as a sum of `parts` counts [m, parts]."""
    if parts == 1:
        return np.array([[n]])
    blocks = []
    for first in range(n + 1):
        rest = _compositions(n - first, parts - 1)
        blocks.append(np.column_stack([np.full(len(rest), first), rest]))
    return np.concatenate(blocks)


def power(probs: Doubles, other: Doubles, n: int, alpha: float) -> float:
    """Return how often n draws from `other` are distinguished from `probs` at `alpha`: exact if outcomes can be enumerated, else by the same cells."""
    if n == 0:
        return 0.0
    strange = float(other[probs <= 0].sum())
    if strange > 0:
        return 1 - (1 - strange) ** n
    at = np.flatnonzero(probs)
    p, q = probs[at], other[at]
    if len(at) < 2:
        return 0.0
    if combinations(n + len(at) - 1, len(at) - 1) <= _POWER_OUTCOMES:
        outcomes = _compositions(n, len(p))
        g = _g(outcomes, p, n)
        order = np.argsort(-g, kind="stable")
        far = -g[order]
        tail = np.cumsum(_chance(outcomes, p)[order])[np.searchsorted(far, far + 1e-9, "right") - 1]
        return float(min(1.0, _chance(outcomes, q)[order][tail <= alpha].sum()))
    where = cells(p, n)
    p, q = _merged(where, p), _merged(where, q)
    if len(p) < 2:
        return 0.0
    scale, degrees = _shape(p, n)
    least = chi2_isf(alpha, degrees) * scale
    away = n * float(((q - p) ** 2 / p).sum())
    mean = float((q * (1 - q) / p).sum()) + away
    spread = 2 * len(p) * (float((q**2 / p**2).mean())) + 4 * n * float((q * ((q - p) / p) ** 2).sum() - (q * (q - p) / p).sum() ** 2)
    scale = max(spread, 1e-9) / (2 * mean)  # again a chi-square with the statistic's mean and, about, its variance
    return chi2_sf(least / scale, mean / scale)


def needed(probs: Doubles, other: Doubles, alpha: float, wanted: float = 0.99) -> int:
    """Return about how many draws distinguish `other` from `probs` with power `wanted`; 0 if 10 million do not."""
    low, high = 1, 16
    while power(probs, other, high, alpha) < wanted:
        low, high = high, high * 2
        if high > 10_000_000:
            return 0
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if power(probs, other, middle, alpha) >= wanted else (middle, high)
    return high
