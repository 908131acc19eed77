"""Whether tokens can have come from a claim: the tests, their p-values, and the verdict with multiple testing corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.core.text import plural
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.statistics import at_most, chi2_sf, minimum, normal_isf, skewed_tails
from llmdoctor.sample.steps import Steps
from llmdoctor.sample.tables import SamplingEngine
from llmdoctor.sample.types import Doubles, Flags, SamplingParams

Decision = Literal["consistent", "inconsistent", "undecided"]
_FACTOR = 2.0  # a claim is undecided where a temperature off by this factor would not have shown
_POWER = 0.8  # that often
_NOTHING = 0.01  # nats a step, twice: two temperatures that differ by less are one
_LOOKED = 512  # steps of the sketch that the information is worked out on


@dataclass(frozen=True, slots=True)
class Test:
    """One test: its statistic, its p-value alone, and what it looks at in words."""

    name: str
    statistic: float
    p_value: float
    says: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict; `reason` in words; `deciding` the test it rests on; `more` how many more tokens would decide (None: it is decided)."""

    outcome: Decision
    reason: str
    deciding: Test | None
    p_corrected: float
    more: int | None


def run_tests(steps: Steps, sketch: Sketch, claim: Claim) -> list[Test]:
    """Every test that the claim allows. A greedy claim has one: every token is the largest."""
    tests = [_impossible(steps)]
    if not claim.settings.do_sample:
        return tests
    inside = np.array([not name for name in steps.outside])
    if inside.any():
        moments = (steps.mean[inside], steps.variance[inside], steps.third[inside])
        tests.append(log_likelihood_z(steps.logprob_near[inside], *moments))
        if claim.settings.temperature not in (None, 1.0):
            tests.append(unscaled_lr(steps.logprob_near[inside], *moments, colder=(claim.settings.temperature or 1.0) > 1))
        found = sketch.only(inside[sketch.steps])
        if len(found.steps) and sorted_cuts(claim.settings):
            tests.append(temperature_lr(found, claim))
            tests += _beyond(found, claim.settings, claim.engine)
        if claim.settings.top_p is not None:
            tests.append(crossing(steps, inside))
    return tests


def undecided(doubts: Sequence[str]) -> Judgement:
    """The verdict where the claim itself cannot be rebuilt."""
    return Judgement("undecided", "; ".join(doubts), None, 1.0, None)


def judge(tests: Sequence[Test], steps: Steps, sketch: Sketch, claim: Claim, alpha: float) -> Judgement:
    """The verdict at `alpha`: each p-value times the number of tests (Bonferroni); an impossible token alone proves it."""
    impossible = tests[0]
    if impossible.statistic > 0:
        at = steps.outside.index(next(name for name in steps.outside if name))
        kind = "tokens that are not the largest" if not claim.settings.do_sample else "impossible tokens"
        reason = f"{int(impossible.statistic)} of {steps.count} tokens: {kind}, first at step {at}, removed by {steps.outside[at]}"
        return Judgement("inconsistent", reason, impossible, 0.0, None)
    counted = families(tests)
    if counted:
        worst = min(counted, key=lambda test: test.p_value)
        corrected = min(1.0, worst.p_value * len(counted))
        if corrected < alpha:
            return Judgement("inconsistent", worst.says, worst, corrected, None)
    else:
        worst, corrected = impossible, 1.0
    more = missing(steps, sketch, claim, alpha / max(1, len(counted)))
    if more:
        return Judgement("undecided", f"{plural(steps.count, 'token')}: too few to tell it from other settings", worst, corrected, more)
    return Judgement("consistent", "no test speaks against it", worst, corrected, None)


def families(tests: Sequence[Test]) -> list[Test]:
    """The tests that the correction counts. The z and the ratio tests options one question, how hot: the ratio's answer is taken, if there is one."""
    names = {test.name for test in tests}
    once = {"log_likelihood_z", "unscaled_lr"} if "temperature_lr" in names else {"unscaled_lr"}
    return [test for test in tests[1:] if test.name not in once]


def missing(steps: Steps, sketch: Sketch, claim: Claim, alpha: float) -> int:
    """How many more tokens would decide: 0 where a temperature off by a factor of two would show in four generations of five.

    `alpha` is that of one test. Where half and double the temperature make no difference to speak of (a support of a token or two), no
    processing at all would have shown; where the claim is greedy, sampling.
    """
    have = -float(np.minimum(steps.logprob_raw, 0).sum())
    if not claim.settings.do_sample:
        return _more(steps.count, have, -math.log(alpha))
    have = 2 * information(steps, sketch, claim)
    with np.errstate(divide="ignore"):
        confined = float(-np.log(steps.raw_kept).sum())
    if have < _NOTHING * steps.count and confined >= -math.log(alpha):
        return 0
    return more_tokens(steps.count, have, alpha)


def more_tokens(count: int, have: float, alpha: float) -> int:
    """How many more than `count` tokens it takes where they are worth `have`: the noncentrality of a chi-square test of one degree at `alpha`."""
    return _more(count, have, (normal_isf(alpha / 2) + normal_isf(1 - _POWER)) ** 2)


def _more(count: int, have: float, need: float) -> int:
    return 0 if have >= need else max(1, math.ceil(count * (1 / max(have / need, 1e-3) - 1)))


def information(steps: Steps, sketch: Sketch, claim: Claim) -> float:
    """KL(half or double the temperature, claimed), the smaller of the two, over all steps in nats, on the support that the claim leaves.

    Twice that is what a likelihood ratio between the two comes to when the other one is true. Of cuts that the sketch does not know the
    variance of log q stands for it, as it does near the claim.
    """
    if not sorted_cuts(claim.settings) or not len(sketch.steps):
        return math.log(_FACTOR) ** 2 / 2 * float(np.nan_to_num(steps.variance).sum())
    thin = sketch.thinned(_LOOKED)
    temperature, k, p, m = claimed(claim.settings)
    kept, _ = thin.cut(claim.engine, temperature, k, p, m)
    width = int(kept.max())
    gap = np.where(np.arange(width)[None, :] < kept[:, None], thin.v[:, :width] - thin.v[:, :1], -np.inf)
    return two_temperatures(gap, thin.n[:, :width], temperature) * steps.count / len(thin.steps)


def two_temperatures(gap: Doubles, n: Doubles, temperature: float) -> float:
    """KL(half or double the temperature, it), the smaller sum over the steps; `gap` [S, M] are logits below the largest, `n` [S, M] counts."""
    own = _law(gap, n, temperature)
    found = []
    for factor in (1 / _FACTOR, _FACTOR):
        other = _law(gap, n, temperature * factor)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(float(np.where(other > 0, other * np.log(other / own), 0.0).sum()))
    return min(found)


def _law(gap: Doubles, n: Doubles, temperature: float) -> Doubles:
    q = n * np.exp(gap / temperature)
    law: Doubles = q / q.sum(axis=1, keepdims=True)
    return law


def _impossible(steps: Steps) -> Test:
    count = sum(bool(name) for name in steps.outside)
    return Test("impossible_tokens", count, 0.0 if count else 1.0, "tokens that the claim cannot draw")


def log_likelihood_z(near: Doubles, mean: Doubles, variance: Doubles, third: Doubles) -> Test:
    """(sum of log q - its mean) / its deviation, the skewness taken out; each [N], the moments those of log q at each step."""
    total = float(variance.sum())
    if total < 1e-12:
        return Test("log_likelihood_z", 0.0, 1.0, "every step has one possible token")
    z = float((near - mean).sum()) / math.sqrt(total)
    says = "the tokens are likelier than draws would be: too cold" if z > 0 else "the tokens are less likely than draws would be: too hot"
    return Test("log_likelihood_z", z, min(1.0, 2 * min(skewed_tails(z, float(third.sum()) / total**1.5))), says)


def unscaled_lr(near: Doubles, mean: Doubles, variance: Doubles, third: Doubles, colder: bool) -> Test:
    """The claimed temperature against none at all. Their likelihood ratio grows with the sum of log q: its test is that sum's, on one side."""
    total = float(variance.sum())
    if total < 1e-12:
        return Test("unscaled_lr", 0.0, 1.0, "every step has one possible token")
    z = float((near - mean).sum()) / math.sqrt(total)
    low, high = skewed_tails(z, float(third.sum()) / total**1.5)
    return Test("unscaled_lr", z, high if colder else low, "no temperature at all fits better than the claimed one")


def sorted_cuts(settings: SamplingParams) -> bool:
    """Whether every cut of the claim is a rank, a mass or a distance of the sorted order, which is what the sketch knows."""
    return all(value is None for value in (settings.typical_p, settings.top_h, settings.epsilon_cutoff, settings.eta_cutoff))


def claimed(settings: SamplingParams) -> tuple[float, int | None, float | None, float | None]:
    """Temperature, top_k, top_p and min_p of the claim; 1.0 and None where off."""
    return (1.0 if settings.temperature is None else settings.temperature, settings.top_k, settings.top_p, settings.min_p)


def temperature_lr(sketch: Sketch, claim: Claim) -> Test:
    """Likelihood ratio of the best temperature against the claimed one, both on the support that the claim leaves: chi-square, one degree."""
    temperature, k, p, m = claimed(claim.settings)
    kept, _ = sketch.cut(claim.engine, temperature, k, p, m)
    inside = np.arange(sketch.v.shape[1])[None, :] < kept[:, None]
    width = int(kept.max())
    v = np.where(inside[:, :width], sketch.v[:, :width] - sketch.v[:, :1], -np.inf)
    n, x = sketch.n[:, :width], sketch.x - sketch.v[:, 0]

    def minus(log_t: float) -> float:
        t = math.exp(log_t)
        return -float((x / t - np.log((n * np.exp(v / t)).sum(axis=1))).sum())

    centre = math.log(temperature)
    best, least = minimum(minus, centre - 2.5, centre + 2.5)
    statistic = max(0.0, 2 * (minus(centre) - least))
    hot = "hotter" if best > centre else "colder"
    says = f"within the claimed support a temperature of {math.exp(best):.2f} fits far better: sampled {hot} than claimed"
    return Test("temperature_lr", statistic, chi2_sf(statistic, 1), says)


def _beyond(sketch: Sketch, settings: SamplingParams, engine: SamplingEngine) -> list[Test]:
    """P(no token beyond the furthest one that was drawn): small where the truth cuts off more than the claim."""
    temperature, k, p, m = claimed(settings)
    kept, _ = sketch.cut(engine, temperature, k, p, m)
    gap = (sketch.v - sketch.v[:, :1]) / temperature
    hot = np.where(np.arange(gap.shape[1])[None, :] < kept[:, None], sketch.n * np.exp(gap), 0.0)
    hot /= hot.sum(axis=1, keepdims=True)
    rows = np.arange(len(gap))
    at = np.minimum(sketch.at, kept - 1)
    starts = sketch.starts()
    ranks = np.take_along_axis(np.cumsum(sketch.n, axis=1) - sketch.n, starts, axis=1) + 1
    within_rank = float(_log((hot * (ranks <= ranks[rows, at].max())).sum(axis=1)).sum())
    free = sketch.n * np.exp((sketch.v - sketch.v[:, :1]) / (temperature if engine.cuts_after_temperature else 1.0))
    mass = np.cumsum(free, axis=1) - free
    mass = np.take_along_axis(mass / free.sum(axis=1, keepdims=True), starts, axis=1)
    furthest = float(mass[rows, at].max())
    within_mass = float(_log((hot * (mass <= furthest)).sum(axis=1)).sum())
    distance = float(gap[rows, at].min())
    within_gap = float(_log((hot * (gap >= distance)).sum(axis=1)).sum())
    return [
        Test(
            "rank_beyond",
            float(ranks[rows, at].max()),
            math.exp(within_rank),
            f"no token beyond rank {int(ranks[rows, at].max())} was drawn: a smaller top_k than claimed",
        ),
        Test(
            "mass_beyond",
            furthest,
            math.exp(within_mass),
            f"no token beyond mass {furthest:.3f} was drawn: a smaller top_p than claimed",
        ),
        Test(
            "gap_beyond",
            distance,
            math.exp(within_gap),
            f"no token below {math.exp(distance):.2g} of the largest was drawn: a larger min_p than claimed",
        ),
    ]


def _log(share: Doubles) -> Doubles:
    with np.errstate(divide="ignore"):
        value: Doubles = np.minimum(np.log(share), 0.0)
    return value


def crossing(steps: Steps, inside: Flags) -> Test:
    """How often the token with which the nucleus is full was drawn: P(so few or fewer), exact."""
    wide = inside & (steps.support > 1)
    drawn = int(steps.last_drawn[wide].sum())
    expected = float(steps.last_prob[wide].sum())
    says = f"the token that fills the nucleus was drawn {drawn} times, {expected:.1f} expected: a nucleus cut one token short"
    return Test("crossing_token", float(drawn), at_most(steps.last_prob[wide], drawn), says)
