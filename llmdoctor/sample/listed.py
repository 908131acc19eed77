"""Replay from top-n log-probabilities alone: what lies outside the list is known by its mass only, so every answer is an interval."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from llmdoctor.core.document import Block, Cell, Note, Table, Tone
from llmdoctor.core.document import Verdict as Headline
from llmdoctor.core.report import Report
from llmdoctor.sample.claim import Claim, make_claim
from llmdoctor.sample.estimate import Interval, temperature_interval
from llmdoctor.sample.judge import Test, Verdict, families, log_likelihood_z, temperature_lr
from llmdoctor.sample.model import Doubles, Settings
from llmdoctor.sample.question import Ask
from llmdoctor.sample.responses import Listed, Responses, read_responses
from llmdoctor.sample.rules import KIND, findings_of
from llmdoctor.sample.sketch import Sketch

Kind = Literal["raw", "temperature", "processed"]
_VOCAB = 300_000  # tokens a vocabulary may have, for the tail's upper bound above temperature 1
_MOST = 700.0  # what exp() of a double can take
_ROUNDING = 2e-3  # of a mass: engines round their log-probabilities


@dataclass(frozen=True, slots=True)
class Bounds:
    """One step under the claim: rank (None: beyond the list), mass before the token and log-probability as [low, high], what removes it."""

    rank: int | None
    mass_before: tuple[float, float]
    logprob: tuple[float, float]
    support: tuple[int, int | None]
    removed_by: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A replayed response."""

    ask: Ask
    responses: Responses
    claim: Claim
    kind: Kind
    because: str
    bounds: tuple[Bounds, ...]
    tests: tuple[Test, ...]
    verdict: Verdict
    temperature: Interval | None


def listed_report(ask: Ask) -> Report:
    """Replay a response's top log-probabilities. Raises QuestionError."""
    reading = read_listed(ask)
    bad = [at for at, bound in enumerate(reading.bounds) if bound.removed_by]
    findings = findings_of(reading.verdict, reading.claim, str(ask.logits), bad)
    subject = {"responses": ask.logits, "steps": len(reading.bounds), "requests": len(reading.responses.requests)}
    return Report("sample replay", subject, _result(reading), findings, document=_document(reading, bad), told=True)


def read_listed(ask: Ask) -> Reading:
    """Everything about the responses of one file."""
    responses = read_responses(str(ask.logits))
    stored = responses.requests[0] if responses.requests and ask.claim is None else None
    claim = make_claim(ask.claim, ask.options, ask.engine, ask.model, stored, responses.engine or "vllm")
    kind, because = kind_of(responses, claim)
    scale = (claim.settings.temperature or 1.0) if kind == "raw" else 1.0
    bounds = tuple(bound(step, claim, kind, scale) for step in responses.steps)
    if responses.masks and len(responses.masks) == len(bounds):
        bounds = tuple(_masked(one, step, mask) for one, step, mask in zip(bounds, responses.steps, responses.masks, strict=True))
    sketch = _sketch(responses.steps, claim, kind, scale)
    tests, estimate = _tests(bounds, sketch, claim, scale, kind)
    return Reading(ask, responses, claim, kind, because, bounds, tests, _judge(tests, bounds, sketch, claim, ask.alpha), estimate)


def kind_of(responses: Responses, claim: Claim) -> tuple[Kind, str]:
    """Which kind the listed log-probabilities are, and why: by what sums to one, else by the engine's default."""
    sums = [sum(math.exp(value) for _, value in step.top) for step in responses.steps if step.top]
    cut = claim.settings.top_p is not None or claim.settings.top_k is not None or claim.settings.min_p is not None
    infinite = any(value == -math.inf for step in responses.steps for _, value in step.top)
    if infinite or (cut and sums and min(sums) > 1 - 1e-4):
        return "processed", "what is listed sums to 1 in every step" if not infinite else "tokens with log-probability -inf are listed"
    if claim.settings.temperature not in (None, 1.0):
        found = _sketch(responses.steps, claim, "raw", 1.0)
        if len(found.steps):
            seen = temperature_interval(found, "transformers", 1.0, (None, None, None))
            claimed = claim.settings.temperature or 1.0
            if seen.low <= 1.0 <= seen.high and not seen.low <= claimed <= seen.high:
                return "temperature", f"the tokens follow them at temperature {seen.value:.2f}, not at {claimed:g}"
            if seen.low <= claimed <= seen.high and not seen.low <= 1.0 <= seen.high:
                return "raw", f"the tokens follow them at temperature {seen.value:.2f}"
    return claim.engine.logprobs, f"{claim.engine.name}'s default"


def tail(step: Listed, scale: float) -> tuple[float, float]:
    """Sum of exp(logprob / T) over what is not listed, as [low, high]: at most m q^(1/T-1) below T 1, m its mass, q the least listed."""
    mass = max(0.0, 1.0 - sum(math.exp(value) for _, value in step.top))
    least = min((value for _, value in step.top), default=0.0)
    edge = mass * math.exp(min(_MOST, least * (1 / scale - 1))) if mass > 0 else 0.0
    if scale == 1.0:
        return mass, mass
    if scale < 1.0:
        return 0.0, edge
    return edge, max(edge, mass ** (1 / scale) * _VOCAB ** (1 - 1 / scale))


def bound(step: Listed, claim: Claim, kind: Kind, scale: float) -> Bounds:
    """Where the token of one step stands under the claim."""
    values = [value for _, value in step.top]
    weights = [math.exp(value / scale) for value in values]
    own = next((value for token, value in step.top if token == step.token), None)
    value = step.logprob if own is None else own
    listed = own is not None
    above = [weight for weight, other in zip(weights, values, strict=True) if other > value]
    low, high = tail(step, scale)
    z_low, z_high = (max(sum(weights) + rest, sys.float_info.min) for rest in (low, high))  # a small temperature leaves nothing of them
    rank = len(above) + 1 if listed or not values else step.rank
    first, last = sum(above) / z_high, sum(above) / z_low if listed else 1.0 - math.exp(value / scale) / z_high
    last = min(1.0, max(first, last))
    settings = claim.settings
    removed = "" if kind != "processed" or value > -math.inf else "processing"
    if kind != "processed":
        removed = _removed(settings, rank, len(values), first, value, max([*values, value]), scale)
    kept_low, kept_high = _support(weights, z_low, z_high, settings)
    logprob = (value / scale - math.log(z_high), value / scale - math.log(z_low)) if value > -math.inf else (-math.inf, -math.inf)
    return Bounds(rank, (first, last), logprob, (kept_low, kept_high), removed)


def _removed(settings: Settings, rank: int | None, listed: int, before: float, value: float, top: float, scale: float) -> str:
    """The cut that surely removes the token; "" where none does for sure."""
    if not settings.do_sample and value < top - 1e-3:
        return "greedy"
    if settings.top_k is not None and (rank or listed + 1) > settings.top_k:
        return "top_k"
    if settings.top_p is not None and before > settings.top_p + _ROUNDING:
        return "top_p"
    if settings.min_p and (value - top) / scale < math.log(settings.min_p) - 1e-2:
        return "min_p"
    return ""


def _support(weights: Sequence[float], z_low: float, z_high: float, settings: Settings) -> tuple[int, int | None]:
    """How many tokens the claim keeps, as [low, high]; None where the list is too short to tell."""
    if settings.top_p is None:
        return (settings.top_k, settings.top_k) if settings.top_k else (len(weights), None)
    before = np.cumsum([0.0, *weights])[:-1]
    low = int(np.count_nonzero(before < settings.top_p * z_low))
    high = int(np.count_nonzero(before < settings.top_p * z_high))
    more = None if high == len(weights) and sum(weights) < settings.top_p * z_high else high
    if settings.top_k:
        low, more = min(low, settings.top_k), settings.top_k if more is None else min(more, settings.top_k)
    return low, more


def _masked(one: Bounds, step: Listed, mask: Sequence[int]) -> Bounds:
    """The engine's own sampling mask settles the support, and that a token outside it was not drawn from it."""
    outside = step.token.lstrip("-").isdigit() and int(step.token) not in mask
    return Bounds(one.rank, one.mass_before, one.logprob, (len(mask), len(mask)), "sampling_mask" if outside else one.removed_by)


def _sketch(steps: Sequence[Listed], claim: Claim, kind: Kind, scale: float) -> Sketch:
    """The listed tokens that are in the support for sure: given that one of them was drawn, which one follows known odds."""
    width = max((len(step.top) for step in steps), default=0)
    v, n, at, x, kept = [], [], [], [], []
    settings = claim.settings
    for index, step in enumerate(steps):
        values = np.array([value for _, value in step.top])
        drawn = next((place for place, (token, _) in enumerate(step.top) if token == step.token), None)
        if drawn is None or not len(values):
            continue
        weights = np.exp(values / scale)
        sure = np.isfinite(values)
        if kind != "processed":
            before = np.cumsum(weights) - weights
            if settings.top_p is not None:
                sure &= before < (settings.top_p - _ROUNDING) * (weights.sum() + tail(step, scale)[0])
            if settings.top_k is not None:
                sure &= np.arange(len(values)) < settings.top_k
            if settings.min_p:
                sure &= (values - values[0]) / scale > math.log(settings.min_p) + 1e-2
        if sure[drawn] and sure.sum() > 1:
            v.append(np.pad(np.where(sure, values, values[0]), (0, width - len(values)), constant_values=values[0]))
            n.append(np.pad(sure.astype(float), (0, width - len(values))))
            at.append(drawn)
            x.append(values[drawn])
            kept.append(index)
    shape = (len(kept), width)
    return Sketch(np.array(v).reshape(shape), np.array(n).reshape(shape), np.array(at, np.int64), np.array(x), np.array(kept, np.int64))


def _tests(bounds: Sequence[Bounds], sketch: Sketch, claim: Claim, scale: float, kind: Kind) -> tuple[tuple[Test, ...], Interval | None]:
    count = sum(bool(one.removed_by) for one in bounds)
    tests = [Test("impossible_tokens", float(count), 0.0 if count else 1.0, "tokens that the claim cannot draw")]
    if not len(sketch.steps) or not claim.settings.do_sample:
        return tuple(tests), None
    near, *moments = _moments(sketch, scale)
    tests.append(log_likelihood_z(near, *moments))
    plain = Claim(claim.engine, Settings(temperature=scale), claim.source)
    tests.append(temperature_lr(sketch, plain))
    seen = temperature_interval(sketch, claim.engine.name, scale, (None, None, None))
    factor = 1.0 if kind == "raw" else claim.settings.temperature or 1.0
    return tuple(tests), Interval(seen.value * factor, seen.low * factor, seen.high * factor)


def _moments(sketch: Sketch, scale: float) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    gap = (sketch.v - sketch.v[:, :1]) / scale
    weights = sketch.n * np.exp(gap)
    z = weights.sum(axis=1, keepdims=True)
    q, log_q = weights / z, gap - np.log(z)
    mean = (q * log_q).sum(axis=1)
    away = log_q - mean[:, None]
    near = (sketch.x - sketch.v[:, 0]) / scale - np.log(z[:, 0])
    return near, mean, (q * away**2).sum(axis=1), (q * away**3).sum(axis=1)


def _judge(tests: Sequence[Test], bounds: Sequence[Bounds], sketch: Sketch, claim: Claim, alpha: float) -> Verdict:
    if tests[0].statistic:
        at = next(index for index, one in enumerate(bounds) if one.removed_by)
        count = f"{int(tests[0].statistic)} of {len(bounds)} tokens"
        reason = f"{count} are impossible whatever the unlisted ones are, first at step {at}, by {bounds[at].removed_by}"
        return Verdict("inconsistent", reason, tests[0], 0.0, None)
    if not claim.settings.do_sample:
        return Verdict("consistent", "every token is the largest", tests[0], 1.0, None)
    counted = families(tests)
    worst = min(counted, key=lambda test: test.p_value, default=tests[0])
    corrected = min(1.0, worst.p_value * max(1, len(counted)))
    if corrected < alpha:
        return Verdict("inconsistent", worst.says, worst, corrected, None)
    have = math.log(2.0) ** 2 * float(_moments(sketch, claim.settings.temperature or 1.0)[2].sum()) if len(sketch.steps) else 0.0
    need = float(stats.norm.isf(alpha / 2)) ** 2
    if have < need:
        more = math.ceil(len(bounds) * (need / max(have, need / 1000) - 1))
        return Verdict("undecided", "what is listed is too little to tell it from other settings", worst, corrected, max(1, more))
    return Verdict("consistent", "no test speaks against it", worst, corrected, None)


def _result(reading: Reading) -> dict[str, Any]:
    verdict, found = reading.verdict, reading.temperature
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": reading.ask.alpha,
        "p_value": verdict.p_corrected,
        "more_tokens": verdict.more,
        "claim": {"engine": reading.claim.engine.name, "source": reading.claim.source, "settings": reading.claim.settings.named()},
        "logprobs": {"kind": reading.kind, "because": reading.because},
        "tests": [{"name": test.name, "statistic": test.statistic, "p_value": test.p_value, "says": test.says} for test in reading.tests],
        "estimate": {} if found is None else {"temperature": {"value": found.value, "low": found.low, "high": found.high}},
        "steps": [
            {
                "token": step.token,
                "rank": one.rank,
                "listed": len(step.top),
                "logprob_recorded": step.logprob if math.isfinite(step.logprob) else None,
                "logprob_processed": [value if math.isfinite(value) else None for value in one.logprob],
                "mass_before": list(one.mass_before),
                "support": list(one.support),
                "possible": not one.removed_by,
                "removed_by": one.removed_by or None,
            }
            for step, one in zip(reading.responses.steps, reading.bounds, strict=True)
        ],
    }


def _document(reading: Reading, bad: Sequence[int]) -> tuple[Block, ...]:
    verdict = reading.verdict
    tones: dict[str, Tone] = {"consistent": "good", "inconsistent": "bad", "undecided": "warn"}
    tone = tones[verdict.outcome]
    blocks: list[Block] = [Headline(f"{verdict.outcome.upper()} with {reading.claim.words()}   (alpha {reading.ask.alpha:g})", tone)]
    more = f": about {verdict.more:,} more tokens would decide" if verdict.more else ""
    blocks.append(Note("PROOF" if verdict.outcome == "inconsistent" else "WHY", verdict.reason + more, tone))
    blocks.append(
        Note("KIND", f"the log-probabilities are taken as {reading.kind}: {reading.because}", "plain" if reading.kind == "raw" else "warn")
    )
    if reading.temperature is not None:
        seen = reading.temperature
        blocks.append(Note("SEEN", f"temperature {seen.value:.2f} [{seen.low:.2f}, {seen.high:.2f}], from the listed tokens alone"))
    blocks.append(
        Table(
            ("test", "statistic", "p alone"),
            tuple(
                (test.name, f"{test.statistic:.4g}", Cell(f"{test.p_value:.2g}", "bad" if test.p_value < reading.ask.alpha else "plain"))
                for test in reading.tests
            ),
        )
    )
    if reading.ask.rows:
        steps = reading.responses.steps
        shown = sorted([*bad, *sorted(set(range(len(steps))) - set(bad), key=lambda at: steps[at].logprob)][: reading.ask.rows])
        blocks.append(
            Table(
                ("step", "token", "rank", "mass before", "support", "removed by"),
                tuple(_row(at, steps[at], reading.bounds[at]) for at in shown),
            )
        )
    listed = {len(step.top) for step in reading.responses.steps}
    many = f"{min(listed)}" if len(listed) == 1 else f"{min(listed)} to {max(listed)}"
    text = f"{many} log-probabilities a step are listed; mass and support are intervals, for what is not listed could lie anywhere"
    return (*blocks, Note("NOTE", text, "dim"), *([Note("TRAIN", KIND.why, "dim")] if reading.kind == "processed" else []))


def _row(at: int, step: Listed, one: Bounds) -> tuple[str | Cell, ...]:
    rank = f"over {len(step.top)}" if one.rank is None else str(one.rank)
    low, high = one.support
    support = f"{low}" if low == high else f"{low} to {'...' if high is None else high}"
    mass = (
        f"{one.mass_before[0]:.3f} to {one.mass_before[1]:.3f}"
        if one.mass_before[1] - one.mass_before[0] > 5e-4
        else f"{one.mass_before[0]:.3f}"
    )
    return str(at), _shown(step.token), rank, mass, support, Cell(one.removed_by, "bad")


def _shown(token: str) -> str:
    """A token's text so that white space is seen."""
    return token if token.isdigit() else repr(token)
