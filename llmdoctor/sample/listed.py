"""Replay from top-n log-probabilities: each reading of them (raw, after the temperature, processed) tested, and one verdict over all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.requests.listed import Listed, Responses
from llmdoctor.requests.logprob_files import read_responses
from llmdoctor.sample.bounds import ListedLaw, ListedSteps, SupportBounds, arrays_of, bound_supports, certain_sketch
from llmdoctor.sample.claim import Claim, make_claim
from llmdoctor.sample.entry import LogprobKind
from llmdoctor.sample.intervals import Interval, interval_on
from llmdoctor.sample.judge import Judgement, combine, impossible_tokens, more_tokens, temperature_share, two_temperatures, undecided
from llmdoctor.sample.keys import read_keys
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.repeats import without_repeats
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.statistics import at_least, at_most
from llmdoctor.sample.testing import Support, Test, never_drawn, support_tests
from llmdoctor.sample.types import SamplingParams
from llmdoctor.sample.unset import with_other_readings

KINDS: tuple[LogprobKind, ...] = ("raw", "temperature", "processed")
KIND_WORDS: Mapping[str, str] = {"raw": "raw", "temperature": "divided by the temperature", "processed": "processed by every stage"}
_VOCAB = 300_000
_PEAKED = 10  # steps with a token that holds nearly all the mass, from which processed lists would show one alone


@dataclass(frozen=True, slots=True)
class KindReading:
    """The listed log-probabilities read as one kind: the bounds of every step, the tests, and the verdict under this reading alone."""

    kind: LogprobKind
    bounds: SupportBounds
    tests: tuple[Test, ...]
    verdict: Judgement
    temperature: Interval | None


@dataclass(frozen=True, slots=True)
class ListedReplay:
    """A replayed response; `readings` holds one entry for each kind that was tried, the first being the one that is reported.

    `because` is the reason for the first kind; `group` are the indices of the responses, `greedy` whether every token is the largest.
    """

    options: ReplayOptions
    responses: Responses
    listed: tuple[Listed, ...]
    arrays: ListedSteps
    claim: Claim
    because: str
    readings: tuple[KindReading, ...]
    verdict: Judgement
    greedy: bool

    @property
    def first(self) -> KindReading:
        """The reading that is reported."""
        return self.readings[0]

    @property
    def kind(self) -> LogprobKind:
        """The kind that is reported."""
        return self.first.kind


def replay_listed(options: ReplayOptions) -> tuple[ListedReplay, ...]:
    """Return the replay of each group of responses that answer the same settings. Raises QuestionError."""
    responses = read_responses(str(options.logits))
    groups = responses.groups() if options.claim is None else [responses]
    replays, by_settings = [], _by_settings(groups, options.without)
    for group in by_settings:
        alpha = options.alpha / len(by_settings)
        replays.append(judge_listed(options, group, alpha))
    return tuple(replays)


def _by_settings(groups: Sequence[Responses], without: Sequence[str]) -> list[Responses]:
    """The responses merged by the settings that their requests state."""
    found: list[tuple[dict[str, Any], Responses]] = []
    for one in groups:
        line, request = one.requests[0] if one.requests else (0, None)
        settings = {} if request is None else read_keys(request, f"{one.path}:{line}", without).settings
        same = next((other for known, other in found if known == settings), None)
        if same is None:
            found.append((settings, one))
        else:
            same.add(one)
    return [one for _, one in found]


def judge_listed(options: ReplayOptions, responses: Responses, alpha: float) -> ListedReplay:
    """Return the replay of responses that answer one claim, judged at `alpha`."""
    stored = responses.requests[0][1] if responses.requests and options.claim is None else None
    claim = make_claim(options, stored=stored, default=responses.engine or "vllm")
    if claim.settings.do_sample:
        responses = without_repeats(responses, claim.settings.temperature or 1.0)
    found = _judge_claim(options, responses, claim, responses.likeliest(stored), alpha)
    verdict = with_other_readings(claim, found.verdict, lambda other: _judge_claim(options, responses, other, found.listed, alpha).verdict)
    return replace(found, verdict=verdict)


def _judge_claim(options: ReplayOptions, responses: Responses, claim: Claim, listed: Sequence[Listed], alpha: float) -> ListedReplay:
    """The replay under one reading of the claim."""
    arrays = arrays_of(listed)
    kinds, because = kinds_of(options, responses, listed, claim)
    readings = tuple(_read_as(kind, listed, arrays=arrays, responses=responses, claim=claim, alpha=alpha) for kind in kinds)
    greedy = bool((arrays.at == 0).all()) or bool(np.all(arrays.x >= arrays.v[:, 0] - 2 * arrays.error - 1e-6))
    return ListedReplay(
        options=options,
        responses=responses,
        listed=tuple(listed),
        arrays=arrays,
        claim=claim,
        because=because,
        readings=readings,
        verdict=_verdict(readings, claim, because),
        greedy=greedy and len(listed) > 0,
    )


def kinds_of(options: ReplayOptions, responses: Responses, listed: Sequence[Listed], claim: Claim) -> tuple[list[LogprobKind], str]:
    """Return the kinds that remain possible, the most credible first, and the reason for that one.

    --kind, the format and tokens listed with -inf settle it. Otherwise the engine's documented default comes first, and the other kinds
    stay possible unless the lists contradict them.
    """
    if options.kind is not None or options.scores is not None:
        name = options.kind or ("processed" if options.scores else "raw")
        if name not in KINDS:
            raise QuestionError(f"--kind {name}: expected one of {', '.join(KINDS)}")
        return [kind for kind in KINDS if kind == name], "as the option states" if options.kind is None else "as --kind states"
    if responses.kind:
        return [kind for kind in KINDS if kind == responses.kind], "by the response's format"
    if any(value == -math.inf for step in responses.steps for _, value in step.top):
        return ["processed"], "tokens with log-probability -inf are listed"
    default = claim.engine.logprobs
    others = [kind for kind in KINDS if kind != default and _possible_kind(kind, listed, claim)]
    default_of = f"the documented default of {claim.engine.label}"
    stated = responses.engine or claim.engine_stated
    return [default, *others], default_of if stated else f"{default_of}, assumed because no engine is stated"


def _possible_kind(kind: LogprobKind, listed: Sequence[Listed], claim: Claim) -> bool:
    """Whether lists of this kind could look so under the claim: processed ones hold no token that the claimed cuts remove for certain."""
    settings = claim.settings
    if kind != "processed" or not settings.do_sample:
        return kind != "temperature" or settings.temperature not in (None, 1.0)
    p = settings.top_p if settings.top_p is not None and settings.top_p < 1 else None
    if p is None and not settings.top_k and not settings.min_p and settings.temperature in (None, 1.0):
        return False  # nothing is processed: the same as raw
    if p is not None and _never_alone(listed):
        return False
    for step in listed:
        if not step.top:
            continue
        values = [value for _, value in step.top]
        open_list = sum(map(math.exp, values)) < 1 - 1e-3
        if settings.top_k and (len(values) > settings.top_k + 8 or (len(values) >= settings.top_k and open_list)):
            return False
        if settings.min_p and claim.engine.cuts_after_temperature and values[-1] - values[0] < math.log(settings.min_p) - 0.05:
            return False
        if p is not None and claim.engine.cuts_after_temperature and math.exp(values[-1]) < (1 - p) / (2 * _VOCAB):
            return False
    return True


def _never_alone(listed: Sequence[Listed]) -> bool:
    """Whether a token often holds nearly all the mass, and never all of it.

    After a nucleus a token that holds top_p of the mass is the only one. One that holds more than .97 of what is left beside others had between
    .97 top_p and top_p before: of ten such steps in a language model, some have a token above top_p.
    """
    tops = [[value for _, value in step.top if value > -math.inf] for step in listed]
    peaked = sum(len(top) > 1 and top[0] > math.log(0.97) for top in tops)
    return peaked >= _PEAKED and not any(len(top) == 1 or (len(top) > 1 and top[0] > -1e-7) for top in tops)


def _read_as(
    kind: LogprobKind, listed: Sequence[Listed], arrays: ListedSteps, responses: Responses, claim: Claim, alpha: float
) -> KindReading:
    law = ListedLaw.of(kind, claim.engine, claim.settings)
    bounds = bound_supports(arrays, law)
    if responses.masks and len(responses.masks) == len(listed):
        bounds = replace(bounds, removed=tuple(_masked(*one) for one in zip(bounds.removed, listed, responses.masks, strict=True)))
    sketch = certain_sketch(arrays, bounds.sure)
    tests = [impossible_tokens([bool(name) for name in bounds.removed])]
    temperature = None
    if claim.settings.do_sample:
        if len(sketch.steps):
            support = Support.of(sketch, claim.engine, SamplingParams(temperature=law.scale))
            tests += support_tests(support)
            seen = interval_on(support)
            temperature = seen if kind == "raw" and seen.low > 0 and seen.high < math.inf else None
        if arrays.v.shape[1] > 1 or arrays.size.any():
            tests += [_outside_list(arrays, bounds), _never_drawn(listed, bounds)]
    return KindReading(kind, bounds, tuple(tests), _judge(tests, bounds, sketch=sketch, claim=claim, law=law, alpha=alpha), temperature)


def _masked(removed: str, step: Listed, mask: Sequence[int]) -> str:
    """The engine's own sampling mask settles whether the token could be drawn."""
    return "sampling_mask" if step.token.lstrip("-").isdigit() and int(step.token) not in mask else removed


def _outside_list(arrays: ListedSteps, bounds: SupportBounds) -> Test:
    """How often a token was drawn that is not certainly in the support, against the bounds of that probability."""
    usable = arrays.size > 0
    rows, place = np.arange(len(arrays.at)), np.minimum(arrays.at, bounds.sure.shape[1] - 1)
    inside = (arrays.at < arrays.size) & bounds.sure[rows, place]
    count = int(np.count_nonzero(usable & ~inside))
    least, most = bounds.outside()
    few, many = at_most(least[usable], count), at_least(np.minimum(most[usable] + 1e-9, 1.0), count)
    says = f"{count} tokens were drawn from beyond the listed ones, expected {least[usable].sum():.1f} to {most[usable].sum():.1f}"
    return Test("outside_list", float(count), min(1.0, 2 * min(few, many)), says)


def _never_drawn(listed: Sequence[Listed], bounds: SupportBounds) -> Test:
    """The token that was never drawn although it was listed as likely; its probabilities are lower bounds."""
    most = (bounds.weights * bounds.maybe).sum(axis=1) + bounds.tail_high
    names: dict[str, int] = {}
    ids, probs = [], []
    for index, step in enumerate(listed):
        for place in np.flatnonzero(bounds.sure[index]):
            probability = float(bounds.weights[index, place] / most[index])
            if probability >= 0.02:
                ids.append(names.setdefault(step.top[place][0], len(names)))
                probs.append(probability)
    text = list(names)
    drawn = [names.get(step.token, -1) for step in listed]
    return never_drawn(np.array(ids, np.int64), np.array(probs), drawn, lambda number: text[number])


def _judge(tests: Sequence[Test], bounds: SupportBounds, sketch: Sketch, claim: Claim, law: ListedLaw, alpha: float) -> Judgement:
    """The verdict under one reading."""
    if tests[0].statistic:
        at = next(index for index, name in enumerate(bounds.removed) if name)
        count = f"{int(tests[0].statistic)} of {len(bounds.removed)} tokens"
        reason = f"{count} are impossible whatever the unlisted ones are, the first at step {at}, removed by {bounds.removed[at]}"
        return Judgement("inconsistent", reason, tests[0], 0.0, None)
    if not claim.settings.do_sample:
        return Judgement("consistent", "every token is the largest", tests[0], 1.0, None)
    worst, corrected = combine(tests, alpha)
    if corrected < alpha:
        return Judgement("inconsistent", worst.says, worst, corrected, None)
    have = 2 * two_temperatures(sketch.v - sketch.v[:, :1], sketch.n, law.scale) if len(sketch.steps) else 0.0
    if have <= 0.01:
        return undecided(["the lists hold too little to test anything: top_logprobs are missing or hold one token"], worst, corrected)
    more = more_tokens(len(bounds.removed), have, alpha * temperature_share(tests))
    if more:
        return Judgement(
            "undecided", "the listed tokens are too few to distinguish it from half or double the temperature", worst, corrected, more
        )
    return Judgement("consistent", "no test speaks against it", worst, corrected, None)


def _verdict(readings: Sequence[KindReading], claim: Claim, because: str) -> Judgement:
    """One verdict over the readings that remain possible: inconsistent only if every one of them is."""
    first = readings[0]
    verdict = first.verdict
    doubts = [f"the claim's {name} is not modelled here" for name in claim.unmodelled] + not_in_list(claim, first.kind)
    if doubts:
        return undecided(doubts, verdict.deciding, verdict.p_corrected)
    if verdict.outcome == "inconsistent":
        other = next((one for one in readings[1:] if one.verdict.outcome != "inconsistent" or not_in_list(claim, one.kind)), None)
        if other is None:
            return verdict
        texts = (
            f"if the log-probabilities are {KIND_WORDS[first.kind]} ({because}), the claim is false: {verdict.reason}",
            f"if they are {KIND_WORDS[other.kind]}, {(not_in_list(claim, other.kind) or ['the tokens fit'])[0]} (--kind states which they are)",
        )
        return undecided(texts, verdict.deciding, verdict.p_corrected)
    if first.kind != "raw" and claim.settings.do_sample:
        what = (
            "the temperature cannot show in them, and only the cuts were tested"
            if first.kind == "temperature"
            else "no setting shows in them"
        )
        text = f"the log-probabilities are {KIND_WORDS[first.kind]} ({because}): {what}; {claim.engine.raw_logprobs} would decide"
        return undecided([text], verdict.deciding, verdict.p_corrected)
    return verdict


def not_in_list(claim: Claim, kind: LogprobKind) -> list[str]:
    """Return what the claim does to the distribution and a list of this kind cannot show."""
    if kind == "processed":
        late = [name for name in claim.engine.unlisted if name in claim.settings.named()]
        return [f"{claim.engine.label} applies {name} after the log-probabilities that it lists" for name in late]
    before = (
        ("repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias", "suppress_tokens", "min_tokens")
        if kind == "raw"
        else ()
    )
    unsorted = ("typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")
    named = claim.settings.named()
    return [
        f"{name} changes what is drawn from, and {KIND_WORDS[kind]} log-probabilities do not show it"
        for name in (*before, *unsorted)
        if name in named
    ]


def overall(replays: Sequence[ListedReplay]) -> Judgement:
    """Return one verdict over groups with different settings: inconsistent if one is, consistent if all are."""
    order = {"inconsistent": 0, "undecided": 1, "consistent": 2}
    return min((one.verdict for one in replays), key=lambda verdict: order[verdict.outcome])
