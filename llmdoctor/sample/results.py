"""The `result` of each sample command, as types: what a program reads in the JSON report. Log-probabilities and gains are in nats."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired

from llmdoctor.core.inputs import InputsResult


class IntervalResult(TypedDict):
    """An estimate with its 95% interval; None: the tokens do not limit it."""

    value: float | None
    low: float | None
    high: float | None


class ClaimResult(TypedDict):
    """The claim as it was tested."""

    engine: str
    version: NotRequired[str]
    source: str  # the file, "the request" or "the options"
    settings: dict[str, Any]
    words: str
    unmodelled: list[str]  # what the claim turns on and is not modelled
    num_beams: NotRequired[int]
    length_penalty: NotRequired[float]


class TestResult(TypedDict):
    """One test."""

    name: str
    statistic: float
    p_value: float  # of this test alone
    says: str


class FittedSettingsResult(TypedDict):
    """One candidate for what was used."""

    engine: str
    settings: dict[str, Any]
    law: str | None  # a broken sampler
    impossible: int  # tokens that it cannot draw
    loglik: float
    score: float  # penalised
    p_value: float | None  # of the calibration test
    claimed: bool


class LawResult(TypedDict):
    """The broken sampler that the draws follow."""

    name: str
    nats: float  # its lead over the next candidate


class StageResult(TypedDict):
    """What one stage left."""

    name: str
    support: int
    mass_kept: float


class StepResult(TypedDict):
    """One step of a replay from logits."""

    token: int
    rank: int  # from 1, before any cut
    logprob_raw: float | None
    logprob_processed: float | None  # None: outside the support
    mass_before: float
    support: int
    entropy: float
    entropy_raw: float
    stages: list[StageResult]
    possible: bool
    removed_by: str | None


class ListedStepResult(TypedDict):
    """One step of a replay from a list; pairs are bounds."""

    token: str
    rank: int | None
    listed: int
    logprob_recorded: float | None
    mass_before: list[float]
    support: list[int | None]  # None: unlisted tokens may be in it
    possible: bool
    removed_by: str | None


class BeamStepResult(TypedDict):
    """One step of the best beam."""

    token: int
    rank: int
    logprob_processed: float
    possible: bool


class BeamResult(TypedDict):
    """One returned beam."""

    tokens: list[int]
    logprobs: list[float]
    ranks: list[int]
    sum: float
    score: float
    recorded: float | None


class VersusResult(TypedDict):
    """Two sides' log-probabilities: log p(trainer) - log p(engine)."""

    tokens: int
    mean_abs: float
    max_abs: float
    pearson: float | None
    mean_ratio: float
    standard_error: float | None  # of the mean ratio
    k1: float
    k3: float
    gap: float  # 1 - mean ratio
    nats: float  # the sum of log p(engine) - log p(trainer)
    ppl_ratio: float


class ReadingResult(TypedDict):
    """The verdict if the listed log-probabilities are of one kind."""

    kind: str
    outcome: str  # consistent, inconsistent or undecided, under this reading alone
    reason: str


class KindResult(TypedDict):
    """The kind of recorded log-probabilities."""

    kind: str
    because: NotRequired[str]
    readings: NotRequired[list[ReadingResult]]
    mean_distance: NotRequired[dict[str, float]]  # to each kind


class SequenceResult(TypedDict):
    """One sequence of several."""

    sequence: int
    tokens: int
    impossible: int
    p_value: float  # of its log-likelihood alone


class ReplayResult(TypedDict):
    """`sample replay`."""

    verdict: str  # consistent, inconsistent or undecided
    reason: str
    alpha: float
    p_value: NotRequired[float]  # of the deciding test, corrected
    more_tokens: NotRequired[int | None]  # that would decide; None: none would, or it is decided
    claim: ClaimResult
    tests: list[TestResult]
    estimate: dict[str, IntervalResult]
    fits: NotRequired[list[FittedSettingsResult]]
    margin: NotRequired[float | None]  # the lead of the first fit in nats
    law: NotRequired[LawResult | None]
    scores: NotRequired[bool]
    notes: NotRequired[list[str]]
    tolerance: NotRequired[dict[str, Any]]
    training: NotRequired[VersusResult | None]  # raw log-probabilities of the drawn tokens against processed ones
    versus: NotRequired[VersusResult | None]
    logprobs: NotRequired[KindResult | None]
    sequences: NotRequired[list[SequenceResult]]
    repeats: NotRequired[list[list[int]]]  # pairs of equal sequences
    groups: NotRequired[list[dict[str, Any]]]  # responses with different settings, each judged alone
    beams: NotRequired[list[BeamResult]]
    steps: list[StepResult] | list[ListedStepResult] | list[BeamStepResult]
    inputs: InputsResult


class ComparisonResult(TypedDict):
    """The ratio of trainer over engine."""

    mean: float
    standard_error: float | None
    max: float


class DisagreementCauseResult(TypedDict):
    """One explanation of a disagreement."""

    name: str
    named: bool  # whether it is proven; else it remains possible
    explains: (
        float | None
    )  # the share of the summed |difference| that is gone without it; None for a cause that only bounds the differences
    evidence: str
    fix: str
    tokens: list[int]


class TrainingResult(TypedDict):
    """What the differences mean for a policy ratio."""

    outside_clip: float  # share of ratios outside 1 +- 0.2
    effective_sample_size: float
    truncated_mean_ratio: float  # of ratios capped at 2


class SampleCompareResult(TypedDict):
    """`sample compare`."""

    verdict: str  # agree, disagree or undecided
    tokens: int
    sequences: int
    ratio: ComparisonResult
    k1: float
    k3: float
    causes: list[DisagreementCauseResult]  # the best first
    training: TrainingResult
    invalid: dict[str, dict[str, int]]  # by file: values that are no log-probability, by kind
    notes: list[str]
    versus: VersusResult
    inputs: InputsResult


class EngineResult(TypedDict):
    """What one engine makes of the logits."""

    version: str
    source: str
    order: list[str]
    settings: dict[str, Any]
    stages: list[StageResult]
    probs: list[float] | None  # [V]
    support: int | None
    tv_to: dict[str, float]  # total variation to each other engine
    error: str | None


class PartingResult(TypedDict):
    """The first difference of two engines."""

    left: str
    right: str
    stage: str
    only_left: list[int]
    only_right: list[int]
    total_variation: float


class EnginesResult(TypedDict):
    """`sample engines`."""

    engines: dict[str, EngineResult]
    partings: list[PartingResult]
    inputs: NotRequired[InputsResult]


class DrawResult(TypedDict):
    """`sample draw`."""

    n: int
    verdict: str | None  # None: nothing was tested
    statistic: float | None
    p_value: float | None
    power: float | None
    law: str | None  # the broken sampler that fits
    counts: dict[str, int]  # by token
    seed: NotRequired[int]
    generator: NotRequired[str]
    draws: NotRequired[list[int]]
    test: NotRequired[str]
    alpha: NotRequired[float]
    powers: NotRequired[dict[str, float]]  # by broken sampler
    needed: NotRequired[dict[str, int]]  # draws for 99% power, 0: more than 10 million
    law_probs: NotRequired[dict[str, float] | None]
