"""Replay from top-n log-probabilities alone: what lies outside the list is known by its mass only, so every answer is an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from llmdoctor.core.document import Block, Cell, Headline, Note, Table, Tone
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.core.text import plural
from llmdoctor.requests.logprob_files import Listed, Responses, read_responses
from llmdoctor.sample.bounds import Law, StepBounds, bounds_of, sure_sketch
from llmdoctor.sample.claim import Claim, make_claim
from llmdoctor.sample.estimate import Interval, temperature_interval
from llmdoctor.sample.findings import findings_of
from llmdoctor.sample.judge import (
    Judgement,
    Test,
    claimed,
    families,
    log_likelihood_z,
    more_tokens,
    sorted_cuts,
    temperature_lr,
    two_temperatures,
    undecided,
)
from llmdoctor.sample.keys import read_keys
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.rules import KIND
from llmdoctor.sample.screen import claim_notes
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.types import Doubles, SamplingParams

Kind = Literal["raw", "temperature", "processed"]


@dataclass(frozen=True, slots=True)
class ListedReplay:
    """A replayed response."""

    options: ReplayOptions
    responses: Responses
    listed: tuple[Listed, ...]
    claim: Claim
    kind: Kind
    because: str
    bounds: tuple[StepBounds, ...]
    tests: tuple[Test, ...]
    verdict: Judgement
    temperature: Interval | None


def listed_report(options: ReplayOptions) -> Report:
    """Replay a response's top log-probabilities. Raises QuestionError."""
    reading = read_listed(options)
    bad = [at for at, bound in enumerate(reading.bounds) if bound.removed_by]
    findings = findings_of(reading.verdict, reading.claim, str(options.logits), bad)
    subject = {"responses": options.logits, "steps": len(reading.bounds), "requests": len(reading.responses.requests)}
    return Report("sample replay", subject, _result(reading), findings, document=_document(reading, bad), told=True)


def read_listed(options: ReplayOptions) -> ListedReplay:
    """Everything about the responses of one file."""
    responses = read_responses(str(options.logits))
    stored = one_request(responses) if options.claim is None else None
    claim = make_claim(options.claim, options.settings, options.engine, options.model, stored, responses.engine or "vllm")
    listed = responses.likeliest(stored)
    kind, because, unsure = kind_of(responses, listed, claim)
    law = Law.of(kind, claim.engine, claim.settings)
    bounds = bounds_of(listed, law, not claim.settings.do_sample)
    if responses.masks and len(responses.masks) == len(bounds):
        bounds = [_masked(one, step, mask) for one, step, mask in zip(bounds, listed, responses.masks, strict=True)]
    sketch = sure_sketch(listed, [one.sure for one in bounds])
    tests, estimate = _tests(bounds, sketch, claim, law.temperature, kind)
    doubts = [f"the claim's {name} is not modelled here" for name in claim.unmodelled] + not_in_list(claim, kind) + unsure
    verdict = undecided(doubts) if doubts else _judge(tests, bounds, sketch, claim, law.temperature, options.alpha)
    return ListedReplay(
        options, responses, tuple(listed), claim, kind, because, tuple(bounds), tests, verdict, None if doubts else estimate
    )


def one_request(responses: Responses) -> dict[str, Any] | None:
    """The request that all responses of a file answer; None where none is kept. Raises QuestionError where they options for different things."""
    path = responses.path
    told = [(line, {} if request is None else read_keys(request, f"{path}:{line}").settings) for line, request in responses.requests]
    first, settings = told[0]
    for line, other in told:
        if other != settings:
            raise QuestionError(
                f"{path}:{line}: its request says {_words(other)}, that of line {first} {_words(settings)}: the responses of one file are held "
                "against one claim; one file a claim, or --claim FILE for all of them"
            )
    return responses.requests[0][1]


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str(value)[:20]}" for name, value in settings.items()) or "nothing"


def not_in_list(claim: Claim, kind: Kind) -> list[str]:
    """What the claim does to the distribution and a list of this kind cannot show."""
    if kind == "processed":
        return []
    before = ("repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias") if kind == "raw" else ()
    unsorted = ("typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")
    return [
        f"{name} changes what is drawn from, and {kind} log-probabilities do not show it"
        for name in (*before, *unsorted)
        if getattr(claim.settings, name) is not None
    ]


def kind_of(responses: Responses, listed: Sequence[Listed], claim: Claim) -> tuple[Kind, str, list[str]]:
    """Which kind the listed log-probabilities are, and why: by what sums to one, else by the engine's default. Last, what is left unsure."""
    sums = [sum(math.exp(value) for _, value in step.top) for step in responses.steps if step.top]
    cut = any(value is not None for value in claimed(claim.settings)[1:]) or not sorted_cuts(claim.settings)
    if any(value == -math.inf for step in responses.steps for _, value in step.top):
        return "processed", "tokens with log-probability -inf are listed", []
    if cut and sums and min(sums) > 1 - 1e-4:
        return "processed", "what is listed sums to 1 in every step", []
    temperature = claim.settings.temperature or 1.0
    if temperature != 1.0 and claim.settings.do_sample:
        both = [bounds_of(listed, Law.of(kind, claim.engine, claim.settings)) for kind in ("raw", "temperature")]
        found = sure_sketch(listed, [min(one.sure, other.sure) for one, other in zip(*both, strict=True)])
        if len(found.steps):
            seen = temperature_interval(found, claim.engine, 1.0, (None, None, None))
            if seen.low <= 1.0 <= seen.high and not seen.low <= temperature <= seen.high:
                return "temperature", f"the tokens follow them at temperature {seen.value:.2f}, not at {temperature:g}", []
            if seen.low <= temperature <= seen.high and not seen.low <= 1.0 <= seen.high:
                return "raw", f"the tokens follow them at temperature {seen.value:.2f}", []
    default = claim.engine.logprobs
    unsure = [f"whether {claim.engine.name}'s log-probabilities were taken before or after the cuts cannot be told from the list"]
    return default, f"{claim.engine.name}'s default", unsure if default == "processed" and cut else []


def _masked(one: StepBounds, step: Listed, mask: Sequence[int]) -> StepBounds:
    """The engine's own sampling mask settles the support, and that a token outside it was not drawn from it."""
    outside = step.token.lstrip("-").isdigit() and int(step.token) not in mask
    return replace(one, support=(len(mask), len(mask)), removed_by="sampling_mask" if outside else one.removed_by)


def _tests(
    bounds: Sequence[StepBounds], sketch: Sketch, claim: Claim, scale: float, kind: Kind
) -> tuple[tuple[Test, ...], Interval | None]:
    count = sum(bool(one.removed_by) for one in bounds)
    tests = [Test("impossible_tokens", float(count), 0.0 if count else 1.0, "tokens that the claim cannot draw")]
    if not len(sketch.steps) or not claim.settings.do_sample:
        return tuple(tests), None
    near, *moments = _moments(sketch, scale)
    tests.append(log_likelihood_z(near, *moments))
    plain = Claim(claim.engine, SamplingParams(temperature=scale), claim.source)
    tests.append(temperature_lr(sketch, plain))
    seen = temperature_interval(sketch, claim.engine, scale, (None, None, None))
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


def _judge(tests: Sequence[Test], bounds: Sequence[StepBounds], sketch: Sketch, claim: Claim, scale: float, alpha: float) -> Judgement:
    if tests[0].statistic:
        at = next(index for index, one in enumerate(bounds) if one.removed_by)
        count = f"{int(tests[0].statistic)} of {len(bounds)} tokens"
        reason = f"{count} are impossible whatever the unlisted ones are, first at step {at}, by {bounds[at].removed_by}"
        return Judgement("inconsistent", reason, tests[0], 0.0, None)
    if not claim.settings.do_sample:
        return Judgement("consistent", "every token is the largest", tests[0], 1.0, None)
    counted = families(tests)
    worst = min(counted, key=lambda test: test.p_value, default=tests[0])
    corrected = min(1.0, worst.p_value * max(1, len(counted)))
    if corrected < alpha:
        return Judgement("inconsistent", worst.says, worst, corrected, None)
    have = 2 * two_temperatures(sketch.v - sketch.v[:, :1], sketch.n, scale) if len(sketch.steps) else 0.0
    more = more_tokens(len(bounds), have, alpha / max(1, len(counted)))
    if more:
        return Judgement("undecided", "what is listed is too little to tell it from other settings", worst, corrected, more)
    return Judgement("consistent", "no test speaks against it", worst, corrected, None)


def _result(reading: ListedReplay) -> dict[str, Any]:
    verdict, found = reading.verdict, reading.temperature
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": reading.options.alpha,
        "p_value": verdict.p_corrected,
        "more_tokens": verdict.more,
        "claim": {
            "engine": reading.claim.engine.name,
            "source": reading.claim.source,
            "settings": reading.claim.settings.named(),
            "unmodelled": list(reading.claim.unmodelled),
            "unknown": list(reading.claim.unknown),
        },
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
            for step, one in zip(reading.listed, reading.bounds, strict=True)
        ],
    }


def _document(reading: ListedReplay, bad: Sequence[int]) -> tuple[Block, ...]:
    verdict = reading.verdict
    tones: dict[str, Tone] = {"consistent": "good", "inconsistent": "bad", "undecided": "warn"}
    tone = tones[verdict.outcome]
    blocks: list[Block] = [Headline(f"{verdict.outcome.upper()} with {reading.claim.words()}   (alpha {reading.options.alpha:g})", tone)]
    more = f": about {plural(verdict.more, 'more token')} would decide" if verdict.more else ""
    blocks.append(Note("PROOF" if verdict.outcome == "inconsistent" else "WHY", verdict.reason + more, tone))
    blocks.append(
        Note("KIND", f"the log-probabilities are taken as {reading.kind}: {reading.because}", "plain" if reading.kind == "raw" else "warn")
    )
    blocks += claim_notes(reading.claim)
    if reading.temperature is not None:
        seen = reading.temperature
        blocks.append(Note("SEEN", f"temperature {seen.value:.2f} [{seen.low:.2f}, {seen.high:.2f}], from the listed tokens alone"))
    blocks.append(
        Table(
            ("test", "statistic", "p alone"),
            tuple(
                (
                    test.name,
                    f"{test.statistic:.4g}",
                    Cell(f"{test.p_value:.2g}", "bad" if test.p_value < reading.options.alpha else "plain"),
                )
                for test in reading.tests
            ),
        )
    )
    if reading.options.rows:
        steps = reading.listed
        shown = sorted([*bad, *sorted(set(range(len(steps))) - set(bad), key=lambda at: steps[at].logprob)][: reading.options.rows])
        blocks.append(
            Table(
                ("step", "token", "rank", "mass before", "support", "removed by"),
                tuple(_row(at, steps[at], reading.bounds[at]) for at in shown),
            )
        )
    listed = {len(step.top) for step in reading.listed}
    many = f"{min(listed)}" if len(listed) == 1 else f"{min(listed)} to {max(listed)}"
    text = f"{many} log-probabilities a step are listed; mass and support are intervals, for what is not listed could lie anywhere"
    return (*blocks, Note("NOTE", text, "dim"), *([Note("TRAIN", KIND.reason, "dim")] if reading.kind == "processed" else []))


def _row(at: int, step: Listed, one: StepBounds) -> tuple[str | Cell, ...]:
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
