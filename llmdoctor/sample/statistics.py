"""The functions of scipy that the tests need, under the names of statistics. scipy is imported here alone, inside the functions.

scipy is the extra `stats`: commands without statistics (`sample engines`, `sample compare`, drawing) run without it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from llmdoctor.core.errors import MissingExtra
from llmdoctor.sample.types import Doubles, Ids


def _scipy(module: str) -> Any:
    """Import a module of scipy. Raises MissingExtra."""
    try:
        return import_module(f"scipy.{module}")
    except ImportError:
        raise MissingExtra("a statistical test", "scipy", "stats") from None


def _stats() -> Any:
    return _scipy("stats")


def require_statistics(command: str) -> None:
    """Raise MissingExtra, with the name of the command, if scipy is not installed."""
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise MissingExtra(command, "scipy", "stats")


def normal_isf(p: float) -> float:
    """Return the z with P(Z > z) = p."""
    return float(_stats().norm.isf(p))


def chi2_sf(x: float, degrees: float) -> float:
    """Return P(X > x) of a chi-square X with that many degrees of freedom."""
    return float(_stats().chi2.sf(x, degrees))


def chi2_isf(p: float, degrees: float) -> float:
    """Return the x with P(X > x) = p."""
    return float(_stats().chi2.isf(p, degrees))


def skewed_tails(z: float, skew: float) -> tuple[float, float]:
    """Return P(Z <= z) and P(Z >= z) of a standardised sum with this skewness, as a Pearson type III variable."""
    law = _stats().pearson3(skew)
    return float(law.cdf(z)), float(law.sf(z))


def at_most(probs: Doubles, count: int) -> float:
    """Return P(at most `count` of independent events with these probabilities [n] happen)."""
    some = probs[probs > 0]
    if count < 0:
        return 0.0
    if count >= len(some):
        return 1.0
    return float(min(1.0, max(0.0, _stats().poisson_binom(np.minimum(some, 1.0)).cdf(count))))


def at_least(probs: Doubles, count: int) -> float:
    """Return P(at least `count` of independent events with these probabilities [n] happen)."""
    some = probs[probs > 0]
    if count <= 0:
        return 1.0
    if count > len(some):
        return 0.0
    return float(min(1.0, max(0.0, _stats().poisson_binom(np.minimum(some, 1.0)).sf(count - 1))))


def minimum(function: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """Return the place between `low` and `high` at which the function is least, and its value there."""
    found = _scipy("optimize").minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(found.x), float(found.fun)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the place at which the function, of opposite signs at `low` and `high`, is 0."""
    return float(_scipy("optimize").brentq(function, low, high, xtol=1e-4))


def combinations(n: int, k: int) -> float:
    """Return n over k."""
    return float(_scipy("special").comb(n, k))


def log_multinomials(outcomes: Ids, log_probs: Doubles) -> Doubles:
    """Return the log of the multinomial probability [m] of each outcome [m, k], for log-probabilities [k]."""
    gammaln = _scipy("special").gammaln
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(outcomes > 0, outcomes * log_probs, 0.0).sum(axis=1)
    n = int(outcomes[0].sum())
    value: Doubles = gammaln(n + 1) - gammaln(outcomes + 1).sum(axis=1) + terms
    return value
