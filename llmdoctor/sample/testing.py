"""The tests of a claim: each one's statistic was not fitted to the tokens, and its p-value holds if the claim is true."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.statistics import at_least, at_most, chi2_sf, minimum, skewed_tails
from llmdoctor.sample.types import Doubles, Flags, Ids, SamplingParams

_SPAN = 2.5  # nats of the temperature's logarithm that are searched
_BIN_EDGES = (0.9, 0.7, 0.5, 0.3, 0.15, 0.05, 0.01)  # of a token's probability
_LEAST_EXPECTED = 10.0  # tokens in a bin of the calibration test


@dataclass(frozen=True, slots=True)
class Test:
    """One test: its statistic, its p-value alone, and in words what a small p-value means."""

    name: str
    statistic: float
    p_value: float
    says: str


@dataclass(frozen=True, slots=True)
class Support:
    """The sorted logits of each step that a claim leaves.

    `gap` [S, W] are logits below the largest, -inf outside the support, `n` [S, W] how many tokens each entry represents, `at` [S] the drawn
    token's entry and `x` [S] its gap, `rank` [S, W] from 1, `mass` [S, W] the mass before each entry as top_p measures it.
    """

    gap: Doubles
    n: Doubles
    at: Ids
    x: Doubles
    rank: Doubles
    mass: Doubles
    temperature: float

    @classmethod
    def of(cls, sketch: Sketch, engine: SamplingEngine, settings: SamplingParams) -> Support:
        """Return the support of a sketch under the cuts that follow the sorted order. The sketch must hold a step at least."""
        temperature, k, p, m = sorted_settings(settings)
        kept, _ = sketch.cut(engine, temperature, k, p, m)
        width = int(kept.max())
        gap = sketch.v[:, :width] - sketch.v[:, :1]
        inside = np.arange(width)[None, :] < kept[:, None]
        starts = sketch.starts()[:, :width]
        count = np.cumsum(sketch.n, axis=1) - sketch.n
        free = sketch.n * np.exp((sketch.v - sketch.v[:, :1]) / (temperature if engine.cuts_after_temperature else 1.0))
        mass = (np.cumsum(free, axis=1) - free) / free.sum(axis=1, keepdims=True)
        return cls(
            gap=np.where(inside, gap, -np.inf),
            n=sketch.n[:, :width],
            at=np.minimum(sketch.at, kept - 1),
            x=sketch.x - sketch.v[:, 0],
            rank=np.take_along_axis(count, starts, axis=1) + 1,
            mass=np.take_along_axis(mass, starts, axis=1),
            temperature=temperature,
        )

    @property
    def rows(self) -> Ids:
        """The indices of the steps [S]."""
        return np.arange(len(self.gap))

    def probs(self, temperature: float | None = None) -> Doubles:
        """Return the probability [S, W] of each entry, all its tokens together."""
        weights = self.n * np.exp(self.gap / (temperature or self.temperature))
        found: Doubles = weights / weights.sum(axis=1, keepdims=True)
        return found

    def minus_loglik(self) -> Callable[[float], float]:
        """Return the function log T -> -log-likelihood of the temperature T on this support."""
        gap, n, x = self.gap, self.n, self.x

        def minus(log_t: float) -> float:
            scale = math.exp(-log_t)
            return -float((x * scale - np.log((n * np.exp(gap * scale)).sum(axis=1))).sum())

        return minus


def sorted_settings(settings: SamplingParams) -> tuple[float, int | None, float | None, float | None]:
    """Return temperature (1.0 if not set), top_k, top_p and min_p."""
    return (1.0 if settings.temperature is None else settings.temperature, settings.top_k, settings.top_p, settings.min_p)


def has_sorted_cuts(settings: SamplingParams) -> bool:
    """Return whether every cut is a rank, a mass or a distance in the sorted order, which is what a sketch knows."""
    return all(value is None for value in (settings.typical_p, settings.top_h, settings.epsilon_cutoff, settings.eta_cutoff))


def support_tests(support: Support) -> list[Test]:
    """Return the tests on a support: temperature, cuts that end too early, the largest token, calibration."""
    return [temperature_lr(support), *beyond(support), largest_token(support), calibration(support)]


def log_likelihood_z(near: Doubles, mean: Doubles, variance: Doubles, third: Doubles) -> Test:
    """Test the sum of log q [N] against its moments at each step; the p-value is that of a Pearson type III variable of the same skewness."""
    total = float(variance.sum())
    if total < 1e-12:
        return Test("log_likelihood_z", 0.0, 1.0, "every step has one possible token")
    z = float((near - mean).sum()) / math.sqrt(total)
    tails = skewed_tails(z, float(third.sum()) / total**1.5)
    says = "the tokens are likelier than draws would be: too cold" if z > 0 else "the tokens are less likely than draws would be: too hot"
    return Test("log_likelihood_z", z, min(1.0, 2 * min(tails)), says)


def unscaled_lr(near: Doubles, mean: Doubles, variance: Doubles, third: Doubles, colder: bool) -> Test:
    """Test the claimed temperature against none (1.0). Their likelihood ratio grows with the sum of log q: the test is one-sided."""
    total = float(variance.sum())
    if total < 1e-12:
        return Test("unscaled_lr", 0.0, 1.0, "every step has one possible token")
    z = float((near - mean).sum()) / math.sqrt(total)
    low, high = skewed_tails(z, float(third.sum()) / total**1.5)
    return Test("unscaled_lr", z, high if colder else low, "temperature 1 fits better than the claimed temperature")


def temperature_lr(support: Support) -> Test:
    """Likelihood ratio of the best temperature against the claimed one, on the claimed support: chi-square, one degree of freedom."""
    minus, centre = support.minus_loglik(), math.log(support.temperature)
    best, least = minimum(minus, centre - _SPAN, centre + _SPAN)
    statistic = max(0.0, 2 * (minus(centre) - least))
    says = f"on the claimed support a temperature of {math.exp(best):.2f} fits far better than the claimed {support.temperature:g}"
    return Test("temperature_lr", statistic, chi2_sf(statistic, 1), says)


def beyond(support: Support) -> list[Test]:
    """Return P(no draw beyond the furthest rank, mass and distance that were drawn): small if the truth cuts off more than the claim."""
    probs, rows, at = support.probs(), support.rows, support.at
    rank, mass, gap = (float(found) for found in (support.rank[rows, at].max(), support.mass[rows, at].max(), support.x.min()))

    def within(mask: Flags) -> float:
        return math.exp(float(_log((probs * mask).sum(axis=1)).sum()))

    ratio = math.exp(gap / support.temperature)
    return [
        Test(
            "rank_beyond", rank, within(support.rank <= rank), f"no token beyond rank {int(rank)} was drawn: top_k is smaller than claimed"
        ),
        Test(
            "mass_beyond", mass, within(support.mass <= mass), f"no token beyond mass {mass:.3f} was drawn: top_p is smaller than claimed"
        ),
        Test(
            "gap_beyond",
            ratio,
            within(support.gap >= gap),
            f"no token below {ratio:.2g} of the largest was drawn: min_p is larger than claimed",
        ),
    ]


def largest_token(support: Support) -> Test:
    """Test how often the largest token was drawn: speculative decoding that accepts it too easily draws it too often."""
    probs = support.probs()
    top = (probs * (support.gap >= 0)).sum(axis=1)
    drawn, expected = int(np.count_nonzero(support.x >= 0)), float(top.sum())
    few, many = at_most(top, drawn), at_least(top, drawn)
    says = f"the largest token was drawn {drawn} times, {expected:.0f} expected"
    if many < few:
        says += ": as greedy decoding or a biased acceptance of draft tokens does"
    return Test("largest_token", float(drawn), min(1.0, 2 * min(few, many)), says)


def calibration(support: Support) -> Test:
    """Test how often tokens of each range of probability were drawn: chi-square with the exact covariance of the counts."""
    weights = support.probs()
    single = weights / np.maximum(support.n, 1e-300)
    which = np.digitize(single, sorted(_BIN_EDGES))
    count = len(_BIN_EDGES) + 1
    masses = np.stack([(weights * (which == b)).sum(axis=1) for b in range(count)], axis=1)
    drawn = np.bincount(which[support.rows, support.at], minlength=count).astype(float)
    masses, drawn = _merge_bins(masses, drawn)
    if masses.shape[1] < 2:
        return Test("calibration", 0.0, 1.0, "too few tokens for the calibration test")
    away = drawn - masses.sum(axis=0)
    covariance = np.diag(masses.sum(axis=0)) - masses.T @ masses
    statistic = float(away @ np.linalg.pinv(covariance, rcond=1e-8, hermitian=True) @ away)
    degrees = int(np.linalg.matrix_rank(covariance, tol=1e-6 * max(1.0, float(covariance.max())), hermitian=True))
    p_value = chi2_sf(statistic, degrees) if degrees else 1.0
    return Test("calibration", statistic, p_value, "tokens of some range of probability were drawn more often than they should be")


def _merge_bins(masses: Doubles, drawn: Doubles) -> tuple[Doubles, Doubles]:
    """Neighbouring bins are merged until each expects enough tokens and leaves as many to the others."""
    columns, counts = [masses[:, 0]], [float(drawn[0])]
    for at in range(1, masses.shape[1]):
        if columns[-1].sum() < _LEAST_EXPECTED:
            columns[-1], counts[-1] = columns[-1] + masses[:, at], counts[-1] + float(drawn[at])
        else:
            columns.append(masses[:, at])
            counts.append(float(drawn[at]))
    if len(columns) > 1 and columns[-1].sum() < _LEAST_EXPECTED:
        columns[-2], counts[-2] = columns[-2] + columns[-1], counts[-2] + counts[-1]
        columns, counts = columns[:-1], counts[:-1]
    return np.stack(columns, axis=1), np.array(counts)


def chance_never(ids: Ids, probs: Doubles) -> tuple[Ids, Doubles, Doubles]:
    """Return the distinct tokens [K] of `ids` [N], the draws expected of each, and the log of the probability that it is never drawn.

    `ids` and `probs` are the likely tokens of the steps, one entry per step and token; less likely entries would make that probability smaller.
    """
    unique, inverse = np.unique(ids, return_inverse=True)
    expected: Doubles = np.bincount(inverse, probs, minlength=len(unique)).astype(np.float64)
    never: Doubles = np.bincount(inverse, np.log1p(-np.minimum(probs, 1 - 1e-12)), minlength=len(unique)).astype(np.float64)
    return unique, expected, never


def never_drawn(ids: Ids, probs: Doubles, drawn: Sequence[int] | Ids, name: Callable[[int], str] = str) -> Test:
    """Test the token that was never drawn although it should have been.

    Its p-value is the sum of the probabilities of all tokens that are as unlikely never to be drawn, or less likely: some of them would be such
    a token by chance.
    """
    if not len(ids):
        return Test("never_drawn", 0.0, 1.0, "no token is likely enough to be missed")
    unique, expected, never = chance_never(ids, probs)
    drawn_once = np.isin(unique, np.asarray(drawn))
    if drawn_once.all():
        return Test("never_drawn", 0.0, 1.0, "every likely token was drawn")
    missed = np.where(drawn_once, 0.0, never)
    worst = int(missed.argmin())
    p_value = float(np.exp(never[never <= missed[worst]]).sum())
    says = f"token {name(int(unique[worst]))} was never drawn, {expected[worst]:.1f} draws expected: it is banned or suppressed"
    return Test("never_drawn", float(expected[worst]), min(1.0, p_value), says)


def repeated_tokens(masses: Doubles, drawn: Flags, penalised: bool) -> Test:
    """Test how often a token that the sequence already holds was drawn again; `masses` [N] are the probabilities of that."""
    wide = (masses > 1e-6) & (masses < 1 - 1e-6)
    count, expected = int(np.count_nonzero(drawn & wide)), float(masses[wide].sum())
    few, many = at_most(masses[wide], count), at_least(masses[wide], count)
    kind = "stronger than" if penalised else "not in"
    why = (
        f"a penalty {kind} the claim"
        if few < many
        else "a penalty of the claim was not applied"
        if penalised
        else "repetitions are favoured"
    )
    says = f"tokens were repeated {count} times, {expected:.0f} expected: {why}"
    return Test("repeated_tokens", float(count), min(1.0, 2 * min(few, many)), says)


def crossing(support_size: Ids, last_prob: Doubles, last_drawn: Ids, inside: Flags) -> Test:
    """Test how often the token with which the nucleus is full was drawn: P(so few or fewer), exact."""
    wide = inside & (support_size > 1)
    drawn, expected = int(last_drawn[wide].sum()), float(last_prob[wide].sum())
    says = f"the token that fills the nucleus was drawn {drawn} times, {expected:.1f} expected: the nucleus is one token short"
    return Test("crossing_token", float(drawn), at_most(last_prob[wide], drawn), says)


def _log(share: Doubles) -> Doubles:
    with np.errstate(divide="ignore"):
        value: Doubles = np.minimum(np.log(share), 0.0)
    return value
