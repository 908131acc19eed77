"""What the tokens show of the settings themselves: joint maximum-likelihood fits of temperature, cuts and engine order, with intervals.

Greedy decoding and the known broken samplers are candidates like every other. A candidate's score is its log-likelihood, with a fixed cost for
each token that it cannot draw, less a penalty for each way in which it differs from the claim.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from llmdoctor.sample.claim import Claim
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.fits import Estimates, FittedClaim, order_of
from llmdoctor.sample.intervals import (
    IMPOSSIBLE,
    furthest_rank,
    intervals_of,
    min_p_interval,
    top_k_interval,
    top_p_interval,
)
from llmdoctor.sample.laws import LAWS
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.stages import refusal
from llmdoctor.sample.statistics import minimum
from llmdoctor.sample.steps import Steps
from llmdoctor.sample.tables import NEWEST
from llmdoctor.sample.testing import Support, calibration, chance_never, sorted_settings
from llmdoctor.sample.types import SamplingParams

_COSTS = {"engine": 1.5, "no cut": 1.5, "greedy": 1.0, "law": 4.0}  # nats
_NEAR_STEPS = (0.04, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.55, 0.8, 1.2)  # logs of temperatures over the claimed one that are tried first
_FIT_STEPS, _COARSE_STEPS = 1024, 256
_FITS = 8  # candidates that are reported
_SURE = (
    3.0  # nats by which another candidate must be ahead, to be named if it is a broken sampler, to give the intervals instead of the claim
)


def estimate(sketch: Sketch, steps: Steps, claim: Claim) -> Estimates:
    """Return everything the tokens show of the settings. The sketch must hold a step at least."""
    thin = sketch.thinned(_FIT_STEPS)
    fits = candidates(thin, steps, claim)
    best = fits[0]
    settings_fits = [fit for fit in fits if fit.law is None]
    chosen = settings_fits[0]
    own = next((fit for fit in settings_fits if fit.claimed), chosen)
    if best.law is not None or own.score > chosen.score - _SURE:
        chosen = own  # nothing is clearly better than the claim
    greedy = not chosen.settings.do_sample
    intervals = {} if greedy else intervals_of(thin, chosen.engine, chosen.settings)
    second = next((fit.score for fit in fits[1:] if not fit.alike(best)), -math.inf)
    margin = best.score - second
    law = best.law if margin >= _SURE else None
    return Estimates(intervals=intervals, fits=tuple(fits[:_FITS]), margin=margin, law=law, law_gain=margin if law else 0.0, claim=claim)


def candidates(sketch: Sketch, steps: Steps, claim: Claim) -> list[FittedClaim]:
    """Return the candidates from the best score down; of several with the same distribution the one nearest to the claim."""
    coarse = sketch.thinned(_COARSE_STEPS).compressed()
    found: list[tuple[float, SamplingEngine, SamplingParams, float]] = []
    for temperature in _temperatures(claim):
        for engine, engine_cost in _engines(claim):
            for settings, cost in _cut_choices(coarse, engine, claim, temperature, steps.count):
                score = _score(coarse, engine, settings)[0] * len(sketch.steps) / len(coarse.steps) - cost - engine_cost
                found.append((score, engine, settings, cost + engine_cost))
    found.sort(key=lambda item: -item[0])
    refined: dict[tuple[SamplingEngine, tuple[float | None, ...]], FittedClaim] = {}
    for engine, settings, cost in itertools.chain([(claim.engine, claim.settings, 0.0)], _distinct(found)):
        own = engine is claim.engine and settings == claim.settings
        fit = _fitted(sketch, engine, settings if own else _polished(sketch, engine, settings, claim), cost, own)
        key = (engine, sorted_settings(fit.settings))
        if refusal(engine, fit.settings) is None and (key not in refined or refined[key].score < fit.score):
            refined[key] = fit
    every = [*refined.values(), *_greedy(sketch, claim), *_laws(steps, sketch, claim), *_banned(steps, sketch, claim)]
    every.sort(key=lambda fit: -fit.score)
    return every


def _engines(claim: Claim) -> Iterator[tuple[SamplingEngine, float]]:
    """One engine for each way in which the cuts follow one another, the claimed one for its own."""
    seen = {order_of(claim.engine)}
    yield claim.engine, 0.0
    for engine in NEWEST:
        if order_of(engine) not in seen and {"top_p", "top_k"} <= engine.takes:
            seen.add(order_of(engine))
            yield engine, _COSTS["engine"]


def _cost(name: str, steps: int) -> float:
    """The penalty in nats: half the log of the number of steps for a temperature, its log for the edge of a cut (which is known 1/n well)."""
    return _COSTS[name] if name in _COSTS else math.log(max(steps, 8)) * (0.5 if name == "temperature" else 1.0)


def _temperatures(claim: Claim) -> list[float]:
    temperature = sorted_settings(claim.settings)[0]
    steps = [0.0, *_NEAR_STEPS, *(-step for step in _NEAR_STEPS)]
    grid = sorted({*(temperature * math.exp(step) for step in steps), 1.0})
    return [value for value in grid if 0.02 <= value <= 20]


def _cut_choices(
    sketch: Sketch, engine: SamplingEngine, claim: Claim, temperature: float, steps: int
) -> Iterator[tuple[SamplingParams, float]]:
    """The claimed cuts, each one also off or as tight as the drawn tokens allow (at most two of them), with their costs."""
    claimed_temperature, k, p, m = sorted_settings(claim.settings)
    base = replace(claim.settings, do_sample=True, temperature=temperature)
    cost = 0.0 if math.isclose(temperature, claimed_temperature) else _cost("temperature", steps)
    away = abs(math.log(temperature / claimed_temperature))
    coarse = cost == 0 or temperature == 1.0 or any(math.isclose(away, step, abs_tol=1e-9) for step in _NEAR_STEPS[1::3])
    choices: list[list[str]] = []
    for name, value in (("top_k", k), ("top_p", p), ("min_p", m)):
        choices.append(["claimed", "tight"] + (["off"] if value is not None else []) if name in engine.takes else ["off"])
    for choice in itertools.product(*choices):
        if choice.count("claimed") < 3 and not coarse:
            continue
        if choice.count("tight") > 2 or sum(one != "claimed" for one in choice) + (cost > 0) > 3:
            continue
        price = cost + sum({"claimed": 0.0, "tight": _cost("cut", steps), "off": _COSTS["no cut"]}[one] for one in choice)
        values = [None if one != "claimed" else value for one, value in zip(choice, (k, p, m), strict=True)]
        yield from ((settings, price) for settings in _tightened(sketch, engine, base, choice, values))


def _tightened(
    sketch: Sketch, engine: SamplingEngine, base: SamplingParams, choice: Sequence[str], values: Sequence[float | None]
) -> Iterator[SamplingParams]:
    """The settings of one choice; a tight top_k beside a nucleus is tried in several sizes, because it makes the nucleus narrower."""
    temperature = base.temperature or 1.0
    k, p, m = values
    if choice[2] == "tight":
        m = _tightest_min_p(sketch, engine, temperature)
    sizes: list[float | None] = [k]
    if choice[0] == "tight":
        least = furthest_rank(sketch)
        sizes = [least] if choice[1] == "off" or (p is None and choice[1] == "claimed") else [least, 1.5 * least, 3 * least]
    for size in sizes:
        whole = None if size is None else math.ceil(size)
        nucleus = _tightest_top_p(sketch, engine, temperature, whole, m) if choice[1] == "tight" else p
        yield replace(base, top_k=whole, top_p=nucleus, min_p=m)


def _tightest_top_p(sketch: Sketch, engine: SamplingEngine, temperature: float, k: int | None, m: float | None) -> float:
    """The smallest top_p that keeps every drawn token."""
    return float(min(1.0, sketch.drawn_mass(engine, temperature, k, m).max() + 1e-9))


def _tightest_min_p(sketch: Sketch, engine: SamplingEngine, temperature: float) -> float | None:
    """The largest min_p that keeps every drawn token."""
    gap = float((sketch.x - sketch.v[:, 0]).min()) / (temperature if engine.cuts_after_temperature else 1.0)
    found = math.exp(max(gap, -50.0)) * (1 - 1e-9)
    return found if found > 1e-12 else None


def _score(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams) -> tuple[float, int]:
    """Log-likelihood with the cost of impossible tokens, and how many there are."""
    loglik, inside = sketch.loglik(engine, *sorted_settings(settings))
    impossible = int((~inside).sum())
    return float(loglik[inside].sum()) - IMPOSSIBLE * impossible, impossible


def _distinct(
    found: Sequence[tuple[float, SamplingEngine, SamplingParams, float]],
) -> Iterator[tuple[SamplingEngine, SamplingParams, float]]:
    """The best of each engine and each set of cuts, the ten best in all."""
    seen = set()
    for _, engine, settings, cost in found:
        key = (engine, settings.top_k is None, settings.top_p is None, settings.min_p is None, round(cost, 2))
        if key not in seen:
            seen.add(key)
            yield engine, settings, cost
        if len(seen) >= 10:
            return


def _polished(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, claim: Claim) -> SamplingParams:
    """The candidate at its best temperature, its free cuts refitted on all steps, each as round as its interval allows."""
    claimed_temperature, *claimed_cuts = sorted_settings(claim.settings)
    start = settings.temperature or 1.0
    free = [now is not None and now != was for now, was in zip(sorted_settings(settings)[1:], claimed_cuts, strict=True)]

    def at(temperature: float) -> SamplingParams:
        k, p, m = settings.top_k, settings.top_p, settings.min_p
        m = _tightest_min_p(sketch, engine, temperature) if free[2] else m
        k = max(k or 0, furthest_rank(sketch)) if free[0] else k
        p = _tightest_top_p(sketch, engine, temperature, k, m) if free[1] else p
        return replace(settings, temperature=temperature, top_k=k, top_p=p, min_p=m)

    if math.isclose(start, claimed_temperature):
        return rounded_cuts(sketch, engine, at(start), free)
    step = 0.25 if any(free) else 0.1
    best, _ = minimum(lambda log_t: -_score(sketch, engine, at(math.exp(log_t)))[0], math.log(start) - step, math.log(start) + step)
    return rounded_cuts(sketch, engine, at(math.exp(best)), free)


def rounded_cuts(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, free: Sequence[bool]) -> SamplingParams:
    """Return the settings with each free cut at the roundest value of its 95% interval, or off if that is in it."""
    if free[2] and settings.min_p is not None:
        found = min_p_interval(sketch, engine, settings)
        settings = replace(settings, min_p=None if found.low <= 0 else _roundest(settings.min_p, found.low, found.high))
    if free[0]:
        found = top_k_interval(sketch, engine, settings)
        settings = replace(settings, top_k=None if math.isinf(found.high) else int(_roundest(found.value, found.low, found.high)))
    if free[1]:
        found = top_p_interval(sketch, engine, settings)
        settings = replace(settings, top_p=None if found.high >= 1 else _roundest(found.value, found.low, found.high))
    return settings


def _roundest(value: float, low: float, high: float) -> float:
    """The number from `low` to `high` with the fewest digits, of several the nearest to `value`."""
    for digits in range(6):
        step = 10.0 ** (math.floor(math.log10(max(abs(value), 1e-12))) - digits)
        for width in (5 * step, 2 * step, step):
            number = round(value / width) * width
            options = [one for one in (number, number + width, number - width) if low <= one <= high and one > 0]
            if options:
                return float(f"{min(options, key=lambda one: abs(one - value)):.{digits + 2}g}")
    return value


def _fitted(sketch: Sketch, engine: SamplingEngine, settings: SamplingParams, cost: float, own: bool) -> FittedClaim:
    score, impossible = _score(sketch, engine, settings)
    _, inside = sketch.loglik(engine, *sorted_settings(settings))
    p_value = calibration(Support.of(sketch.only(inside), engine, settings)).p_value if inside.any() else None
    return FittedClaim(
        engine=engine,
        settings=settings,
        impossible=impossible,
        loglik=score + IMPOSSIBLE * impossible,
        score=score - cost,
        p_value=p_value,
        claimed=own,
    )


def _greedy(sketch: Sketch, claim: Claim) -> Iterator[FittedClaim]:
    """Greedy decoding: every token that is the largest has probability 1."""
    impossible = int(np.count_nonzero(sketch.x < sketch.v[:, 0]))
    kept = {name: value for name, value in claim.settings.named().items() if name.endswith("penalty") or name == "logit_bias"}
    settings = SamplingParams(**kept, top_k=1, do_sample=False) if kept else SamplingParams(top_k=1, do_sample=False)
    yield FittedClaim(
        engine=claim.engine,
        settings=settings,
        impossible=impossible,
        loglik=0.0,
        score=-IMPOSSIBLE * impossible - _COSTS["greedy"],
        p_value=None,
        claimed=False,
    )


def _banned(steps: Steps, sketch: Sketch, claim: Claim) -> Iterator[FittedClaim]:
    """The claim with the token banned that should have been drawn and never was."""
    if not len(steps.likely_ids):
        return
    tokens, _, never = chance_never(steps.likely_ids, steps.likely_probs)
    missed = np.where(np.isin(tokens, steps.tokens), 0.0, never)
    worst = int(missed.argmin())
    gain = -float(missed[worst]) * len(sketch.steps) / max(1, steps.count)
    if gain <= 0:
        return
    own = _fitted(sketch, claim.engine, claim.settings, 0.0, True)
    settings = replace(claim.settings, suppress_tokens=(int(tokens[worst]),))
    score = own.score + gain - math.log(len(tokens)) - _COSTS["law"]
    yield FittedClaim(
        engine=claim.engine,
        settings=settings,
        impossible=own.impossible,
        loglik=own.loglik + gain,
        score=score,
        p_value=None,
        claimed=False,
    )


def _laws(steps: Steps, sketch: Sketch, claim: Claim) -> Iterator[FittedClaim]:
    """The broken samplers at the claimed settings, on the steps whose support is small enough to work their laws out."""
    usable = ~np.isnan(steps.laws[:, 0]) & np.isfinite(steps.logprob_processed)
    if usable.sum() < max(10, steps.count // 2):
        return
    own = _fitted(sketch, claim.engine, claim.settings, 0.0, True)
    share = len(sketch.steps) / max(1, steps.count)
    for index, name in enumerate(LAWS):
        gains = steps.laws[usable, index] - steps.logprob_processed[usable]
        lost = int(np.count_nonzero(~np.isfinite(gains)))
        gain = share * (float(gains[np.isfinite(gains)].sum()) - IMPOSSIBLE * lost)
        score = own.score + gain - _COSTS["law"]
        yield FittedClaim(
            engine=claim.engine,
            settings=claim.settings,
            impossible=own.impossible + lost,
            loglik=own.loglik + gain,
            score=score,
            p_value=None,
            claimed=False,
            law=name,
        )
