"""How far two sides' log-probabilities of the same tokens are apart, and whether they agree. Differences are log p(trainer) - log p(engine)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.sample.bands import NOISE_LIMIT
from llmdoctor.sample.causes import LARGEST
from llmdoctor.sample.types import DisagreementCause, Doubles, Ids

Agreement = Literal["agree", "disagree", "undecided"]
ROUNDING = 0.02  # mean |difference| up to which two sides agree
_DOUBTFUL, _MANY, _UNSURE = (
    3,
    100,
    -0.05,
)  # tokens that are not nearly certain, or tokens at all, without which agreement shows nothing; their log p
_CLIP = 0.2  # PPO's clip range, each side of 1
_TRUNCATION = 2.0  # the usual cap of truncated importance sampling
_OUTLIER = 1.0  # nats in one token beyond which two sides do not agree


@dataclass(frozen=True, slots=True)
class Divergence:
    """How two sides differ over N tokens; ratio = exp(trainer - engine), all in nats.

    k1 = mean(engine - trainer) estimates KL(engine, trainer) without bias, k3 = mean(ratio - 1 - log ratio); if the engine's side is truncated,
    k3 misses the mass that was cut off, and their gap 1 - mean ratio shows it. `standard_error` is that of the mean ratio; `doubtful` counts the tokens
    that are not nearly certain on both sides: only they can show a temperature or a cut.
    """

    tokens: int
    mean_abs: float
    max_abs: float
    pearson: float | None
    mean_ratio: float
    standard_error: float
    max_ratio: float
    k1: float
    k3: float
    nats: float
    ppl_ratio: float
    clipped: float
    effective: float
    truncated_mean: float
    doubtful: int

    @property
    def gap(self) -> float:
        """k1 - k3 = 1 - mean ratio."""
        return self.k1 - self.k3


def compare_sides(trainer: Doubles, engine: Doubles, sequences: Ids | None = None) -> Divergence:
    """Return how two sides differ; both finite [N], N at least 1. `sequences` [N] are the sequence of each token, for the standard error."""
    delta = trainer - engine
    ratio = np.exp(np.clip(delta, -LARGEST, LARGEST))
    return Divergence(
        tokens=len(delta),
        mean_abs=float(np.abs(delta).mean()),
        max_abs=float(np.abs(delta).max()),
        pearson=_pearson(trainer, engine),
        mean_ratio=float(ratio.mean()),
        standard_error=_standard_error(ratio, sequences),
        max_ratio=float(ratio.max()),
        k1=float(-delta.mean()),
        k3=float((ratio - 1 - delta).mean()),
        nats=float(-delta.sum()),
        ppl_ratio=float(math.exp(min(LARGEST, max(-LARGEST, -float(delta.mean()))))),
        clipped=float(np.mean(np.abs(ratio - 1) > _CLIP)),
        effective=float(ratio.sum() ** 2 / (ratio**2).sum()),
        truncated_mean=float(np.minimum(ratio, _TRUNCATION).mean()),
        doubtful=int(np.count_nonzero(np.minimum(trainer, engine) < _UNSURE)),
    )


def _pearson(left: Doubles, right: Doubles) -> float | None:
    spread = float(left.std() * right.std())
    return float(((left - left.mean()) * (right - right.mean())).mean() / spread) if spread > 0 else None


def _standard_error(ratio: Doubles, sequences: Ids | None) -> float:
    """Of the mean ratio: between sequences if there are ten or more, else between tokens."""
    if sequences is not None and len(np.unique(sequences)) >= 10:
        _, inverse = np.unique(sequences, return_inverse=True)
        away = np.bincount(inverse, ratio - ratio.mean())
        count = len(away)
        return float(np.sqrt(count / (count - 1) * (away**2).sum()) / len(ratio))
    return float(ratio.std(ddof=1) / math.sqrt(len(ratio))) if len(ratio) > 1 else math.inf


def agreement(found: Divergence, causes: Sequence[DisagreementCause]) -> Agreement:
    """Return whether the sides agree up to rounding, disagree, or whether the data cannot decide."""
    off = abs(found.mean_ratio - 1) > max(3 * found.standard_error, 0.01)
    if found.mean_abs <= ROUNDING and not off and found.max_abs <= _OUTLIER:
        return "agree" if found.doubtful >= _DOUBTFUL or found.tokens >= _MANY else "undecided"
    if found.mean_abs > NOISE_LIMIT or off or any(cause.named for cause in causes):
        return "disagree"
    return "undecided"
