"""The verdict on a claim: the tests corrected together, and whether the tokens could have shown another temperature at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.core.text import plural
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.statistics import normal_isf
from llmdoctor.sample.steps import Steps
from llmdoctor.sample.testing import (
    Support,
    Test,
    crossing,
    has_sorted_cuts,
    log_likelihood_z,
    never_drawn,
    repeated_tokens,
    sorted_settings,
    support_tests,
    unscaled_lr,
)
from llmdoctor.sample.types import Doubles

Decision = Literal["consistent", "inconsistent", "undecided"]
_FACTOR = 2.0  # a claim is undecided if a temperature off by this factor would not have shown
_POWER = 0.8  # that often
_NOTHING = 0.01  # nats a step, twice: two temperatures that differ by less are one
_LOOKED = 512  # steps of the sketch that the information is computed on
# The share of alpha that each test may spend (weighted Bonferroni). The z test repeats the question of temperature_lr, unscaled_lr too.
WEIGHTS: Mapping[str, float] = {
    "temperature_lr": 0.28,
    "rank_beyond": 0.16,
    "mass_beyond": 0.16,
    "gap_beyond": 0.08,
    "crossing_token": 0.16,
    "outside_list": 0.12,
    "never_drawn": 0.06,
    "repeated_tokens": 0.05,
    "largest_token": 0.03,
    "calibration": 0.02,
}

_GENERAL = ("calibration", "largest_token")  # tests that name no setting


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision on a claim.

    `reason` in words; `deciding` is the test it rests on; `more` is how many more tokens would decide (None: it is decided, or no number would).
    """

    outcome: Decision
    reason: str
    deciding: Test | None
    p_corrected: float
    more: int | None


def run_tests(steps: Steps, sketch: Sketch, claim: Claim) -> list[Test]:
    """Return every test that the claim allows. A greedy claim has one: every token is the largest."""
    settings = claim.settings
    tests = [impossible_tokens([bool(name) for name in steps.outside])]
    inside = np.array([not name for name in steps.outside])
    if not settings.do_sample or not inside.any():
        return tests
    moments = (steps.mean[inside], steps.variance[inside], steps.third[inside])
    tests.append(log_likelihood_z(steps.logprob_near[inside], *moments))
    if settings.temperature not in (None, 1.0):
        tests.append(unscaled_lr(steps.logprob_near[inside], *moments, colder=(settings.temperature or 1.0) > 1))
    found = sketch.only(inside[sketch.steps])
    if len(found.steps) and has_sorted_cuts(settings):
        tests += support_tests(Support.of(found, claim.engine, settings))
    if settings.top_p is not None:
        tests.append(crossing(steps.support, steps.last_prob, steps.last_drawn, inside))
    tests.append(never_drawn(steps.likely_ids, steps.likely_probs, steps.tokens))
    penalised = any(name.endswith("penalty") for name in settings.named())
    tests.append(repeated_tokens(steps.seen_mass[inside], steps.seen_drawn[inside], penalised))
    return tests


def impossible_tokens(outside: Sequence[bool]) -> Test:
    """Return the test of tokens that the claim cannot draw: one of them is a proof."""
    count = sum(outside)
    return Test("impossible_tokens", float(count), 0.0 if count else 1.0, "tokens that the claim cannot draw")


def undecided(doubts: Sequence[str], worst: Test | None = None, p_corrected: float = 1.0) -> Judgement:
    """Return the verdict on a claim that the data cannot decide."""
    return Judgement("undecided", "; ".join(doubts), worst, p_corrected, None)


def judge(tests: Sequence[Test], steps: Steps, sketch: Sketch, claim: Claim, alpha: float) -> Judgement:
    """Return the verdict at `alpha`."""
    impossible = tests[0]
    if impossible.statistic > 0:
        at = steps.outside.index(next(name for name in steps.outside if name))
        kind = "are impossible" if claim.settings.do_sample else "are not the largest"
        reason = f"{int(impossible.statistic)} of {steps.count} tokens {kind}, the first at step {at}, removed by {steps.outside[at]}"
        return Judgement("inconsistent", reason, impossible, 0.0, None)
    worst, corrected = combine(tests, alpha)
    if corrected < alpha:
        return Judgement("inconsistent", worst.says, worst, corrected, None)
    more = missing(steps, sketch, claim, alpha * temperature_share(tests))
    if more:
        reason = f"{plural(steps.count, 'token')}: too few to distinguish it from half or double the temperature"
        return Judgement("undecided", reason, worst, corrected, more)
    return Judgement("consistent", "no test speaks against it", worst, corrected, None)


def counted(tests: Sequence[Test]) -> list[Test]:
    """Return the tests that the correction counts: the z test only if there is no temperature_lr."""
    found = [test for test in tests if test.name in WEIGHTS]
    if not any(test.name == "temperature_lr" for test in found):
        found += [test for test in tests if test.name == "log_likelihood_z"]
    return found


def share_of(test: Test, tests: Sequence[Test]) -> float:
    """Return the share of alpha that one of the counted tests may spend; the shares of all add up to 1."""
    names = [other.name for other in counted(tests)]
    weights = {name: WEIGHTS.get(name, WEIGHTS["temperature_lr"]) for name in names}
    return weights.get(test.name, WEIGHTS["temperature_lr"]) / max(sum(weights.values()), 1e-300) if weights else 1.0


def temperature_share(tests: Sequence[Test]) -> float:
    """Return the share of alpha of the test that shows another temperature."""
    found = counted(tests)
    return (
        share_of(next((test for test in found if test.name in ("temperature_lr", "log_likelihood_z")), found[0]), tests) if found else 1.0
    )


def combine(tests: Sequence[Test], alpha: float) -> tuple[Test, float]:
    """Return the deciding test and its corrected p-value: the smallest, or one that names a setting if that is below `alpha` too."""
    found = counted(tests)
    if not found:
        return tests[0], 1.0
    corrected = {test.name: min(1.0, test.p_value / share_of(test, tests)) for test in found}
    worst = min(found, key=lambda test: test.p_value / share_of(test, tests))
    if worst.name in _GENERAL:
        named = [test for test in found if test.name not in _GENERAL and corrected[test.name] < alpha]
        worst = min(named, key=lambda test: corrected[test.name], default=worst)
    return worst, corrected[worst.name]


def missing(steps: Steps, sketch: Sketch, claim: Claim, alpha: float) -> int:
    """Return how many more tokens would decide: 0 if a temperature off by a factor of two would show in four generations of five.

    `alpha` is that of one test. If half and double the temperature make no difference (a support of a token or two), no processing at all
    would have shown; if the claim is greedy, sampling.
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
    """Return how many more than `count` tokens are needed if those are worth `have`: the noncentrality of a chi-square test at `alpha`."""
    return _more(count, have, (normal_isf(alpha / 2) + normal_isf(1 - _POWER)) ** 2)


def _more(count: int, have: float, need: float) -> int:
    return 0 if have >= need else max(1, math.ceil(count * (1 / max(have / need, 1e-3) - 1)))


def information(steps: Steps, sketch: Sketch, claim: Claim) -> float:
    """Return KL(half or double the temperature, claimed), the smaller of the two, over all steps in nats, on the claimed support.

    Twice that is the likelihood ratio between the two to expect if the other one is true. For cuts that the sketch does not know, the
    variance of log q takes its place, as it does near the claim.
    """
    if not has_sorted_cuts(claim.settings) or not len(sketch.steps):
        return math.log(_FACTOR) ** 2 / 2 * float(np.nan_to_num(steps.variance).sum())
    thin = sketch.thinned(_LOOKED)
    temperature, k, p, m = sorted_settings(claim.settings)
    kept, _ = thin.cut(claim.engine, temperature, k, p, m)
    width = int(kept.max())
    gap = np.where(np.arange(width)[None, :] < kept[:, None], thin.v[:, :width] - thin.v[:, :1], -np.inf)
    return two_temperatures(gap, thin.n[:, :width], temperature) * steps.count / len(thin.steps)


def two_temperatures(gap: Doubles, n: Doubles, temperature: float) -> float:
    """Return KL(half or double the temperature, it), the smaller sum over the steps; `gap` [S, M] are logits below the largest, `n` counts."""
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
