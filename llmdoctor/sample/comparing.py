"""Two sides' log-probabilities of the same tokens: how far they are apart, and why. Differences are log p(trainer) - log p(engine)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.sample.types import Doubles, Ids

Agreement = Literal["agree", "disagree", "undecided"]
_LARGEST = 50.0  # nats in a single ratio: more is computed as that
_ROUNDING, _NOISE = 0.02, 0.05  # mean |difference| up to which two sides agree, and up to which precision alone may explain it
_CLIP = 0.2  # PPO's clip range, each side of 1
_TRUNCATION = 2.0  # the usual cap of truncated importance sampling
_OUTLIER = 1.0  # nats beyond which a token is called an outlier if nearly all others agree


@dataclass(frozen=True, slots=True)
class Divergence:
    """How two sides differ over N tokens; ratio = exp(trainer - engine), all in nats.

    k1 = mean(engine - trainer) estimates KL(engine, trainer) without bias, k3 = mean(ratio - 1 - log ratio); if the engine's side is truncated,
    k3 misses the mass that was cut off, and their gap 1 - mean ratio shows it. `standard_error` is that of the mean ratio.
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

    @property
    def gap(self) -> float:
        """k1 - k3 = 1 - mean ratio."""
        return self.k1 - self.k3


@dataclass(frozen=True, slots=True)
class DisagreementCause:
    """One explanation of the differences: its name, the share of them that it explains, the evidence and what to change; `tokens` it names."""

    name: str
    explains: float
    evidence: str
    fix: str
    tokens: tuple[int, ...] = ()


def compare_sides(trainer: Doubles, engine: Doubles, sequences: Ids | None = None) -> Divergence:
    """Return how two sides differ; both finite [N], N at least 1. `sequences` [N] are the sequence of each token, for the standard error."""
    delta = trainer - engine
    ratio = np.exp(np.clip(delta, -_LARGEST, _LARGEST))
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
        ppl_ratio=float(math.exp(min(_LARGEST, max(-_LARGEST, -float(delta.mean()))))),
        clipped=float(np.mean(np.abs(ratio - 1) > _CLIP)),
        effective=float(ratio.sum() ** 2 / (ratio**2).sum()),
        truncated_mean=float(np.minimum(ratio, _TRUNCATION).mean()),
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
    if found.mean_abs <= _ROUNDING and not off and found.max_abs <= _OUTLIER:
        return "agree"
    if found.mean_abs > _NOISE or off or (causes and causes[0].name != "precision noise"):
        return "disagree"
    return "undecided"


def find_causes(trainer: Sequence[Doubles], engine: Sequence[Doubles], temperature: float | None = None) -> tuple[DisagreementCause, ...]:
    """Return the explanations that fit, the best first; [] if the sides agree up to rounding.

    Each one predicts the differences; what it explains is the share of the mean |difference| that is gone after it. `temperature` is the one
    that was asked for, if known. Values that are not finite are left out.
    """
    t, e = np.concatenate(list(trainer)), np.concatenate(list(engine))
    good = np.isfinite(t) & np.isfinite(e)
    places = np.flatnonzero(good)
    t, e = t[good], e[good]
    total = float(np.abs(t - e).mean()) if len(t) else 0.0
    if total <= 1e-3:
        return ()
    found = [
        _shifted(trainer, engine, total),
        _outliers(t, e, places),
        _cut(t, e),
        _temperature(t, e, temperature),
        _noise(t, e),
    ]
    fits = sorted((cause for cause in found if cause is not None), key=lambda cause: -cause.explains)
    if total > _NOISE and (not fits or fits[0].explains < 0.5):
        fits.insert(0, _weights(t, e))
    return tuple(fits)


def _shifted(trainer: Sequence[Doubles], engine: Sequence[Doubles], total: float) -> DisagreementCause | None:
    """The same numbers, one or two tokens apart."""
    best: tuple[float, int] | None = None
    for lag in (-2, -1, 1, 2):
        away = [
            np.abs(t[max(0, lag) : len(t) + min(0, lag)] - e[max(0, -lag) : len(e) + min(0, -lag)])
            for t, e in zip(trainer, engine, strict=True)
        ]
        joined = np.concatenate(away)
        joined = joined[np.isfinite(joined)]
        if len(joined) >= 8 and (best is None or joined.mean() < best[0]):
            best = (float(joined.mean()), lag)
    if best is None or best[0] > 0.25 * total:
        return None
    lag = best[1]
    ahead, behind = ("trainer", "engine") if lag > 0 else ("engine", "trainer")
    evidence = (
        f"the {ahead}'s values, shifted by {abs(lag)} token, are the {behind}'s: mean difference {best[0]:.4f} instead of {total:.4f}"
    )
    fix = "The labels are shifted by one token on one side: log p of token i comes from the logits at position i - 1."
    return DisagreementCause("shifted by one", 1 - best[0] / total, evidence, fix)


def _outliers(t: Doubles, e: Doubles, places: Ids) -> DisagreementCause | None:
    """A few tokens that carry nearly all of the difference."""
    away = np.abs(t - e)
    far = np.flatnonzero(away > max(_OUTLIER, 30 * float(np.median(away))))
    if not len(far) or len(far) > max(3, len(away) // 50):
        return None
    rest = np.delete(away, far)
    if len(rest) and float(rest.mean()) > _NOISE:
        return None
    order = far[np.argsort(-away[far])]
    named = ", ".join(f"{int(places[at])} (ratio {math.exp(min(_LARGEST, float(t[at] - e[at]))):.3g})" for at in order[:5])
    without = float(np.exp(np.clip(np.delete(t - e, far), -_LARGEST, _LARGEST)).mean()) if len(rest) else 1.0
    evidence = f"{len(far)} of {len(away)} tokens differ, index {named}; without them the mean ratio is {without:.4f}"
    fix = "Look at these tokens: special tokens, a stop token that one side does not score, or a token that was changed after it was drawn."
    explains = float(away[far].sum() / away.sum())
    return DisagreementCause("a few outliers", explains, evidence, fix, tuple(int(places[at]) for at in order[:20]))


def _cut(t: Doubles, e: Doubles) -> DisagreementCause | None:
    """One side renormalised over what a cut left: every difference has one sign, and none is larger than the cut allows."""
    delta = t - e
    moved = np.abs(delta) > 1e-3
    if moved.sum() < 8:
        return None
    below = float(np.mean(delta[moved] < 0))
    if 0.01 < below < 0.99 or float(np.abs(delta).max()) > 3.0:
        return None
    side = "engine" if below > 0.5 else "trainer"
    kept = float(np.exp(-np.abs(delta).max()))
    share = max(below, 1 - below)
    evidence = (
        f"{share:.0%} of the differences have one sign: the {side}'s are renormalised over a cut (top_p, top_k or min_p) that kept at least "
        f"{kept:.2f} of the mass"
    )
    fix = "Compare raw with raw (vLLM: logprobs_mode=\"raw_logprobs\"), or apply the engine's sampling mask to the trainer's logits before the softmax."
    return DisagreementCause("a cut on one side", 0.97 * share, evidence, fix)


def _temperature(t: Doubles, e: Doubles, requested: float | None) -> DisagreementCause | None:
    """One side divided by a temperature.

    If p_f is p^f, normalised again, with f > 1, then logit p_f >= f logit p for every token, whatever the other tokens are, and equality if
    there is only one other. Tokens below one half bound f from below, those above one half from above: the bounds must not cross.
    """
    delta = t - e
    if min(np.mean(delta > 1e-3), np.mean(delta < -1e-3)) < 0.02:
        return None  # of one sign: a cut
    found = [(*_power(cold, base), name) for cold, base, name in ((t, e, "trainer"), (e, t, "engine"))]
    factor, violated, colder = min(found, key=lambda item: item[1])
    if factor < 1.02 or violated > 0.05:
        return None
    hotter = "engine" if colder == "trainer" else "trainer"
    evidence = (
        f"logit p({colder}) is at least {factor:.2f} logit p({hotter}) for {1 - violated:.0%} of the tokens, as division by a temperature demands: "
        f"the {colder}'s values are divided by about {1 / factor:.2f} and the {hotter}'s are raw, or the {hotter}'s are divided by about {factor:.2f}"
    )
    if requested is not None:
        side = colder if abs(math.log(requested * factor)) < abs(math.log(requested / factor)) else hotter
        evidence += f"; with the requested temperature {requested:g}, it is the {side} that divides"
    fix = (
        'Use one kind on both sides: vLLM logprobs_mode="processed_logprobs" if the trainer divides its logits by the temperature, '
        "raw log-probabilities on both sides if it does not."
    )
    return DisagreementCause("temperature-scaled against raw", 0.98 * (1 - 2 * violated), evidence, fix)


def _power(cold: Doubles, base: Doubles) -> tuple[float, float]:
    """The power f that best makes `cold` out of `base`, and the share of tokens that contradict it by more than rounding."""
    sharp, plain = _logit(cold), _logit(base)
    usable = (np.abs(plain) > 0.1) & (np.abs(plain) < 12) & (np.abs(sharp) < 20)
    if usable.sum() < 12:
        return 1.0, 1.0
    sharp, plain = sharp[usable], plain[usable]
    ratio = sharp / plain
    low = ratio[plain < 0]
    high = ratio[plain > 0]
    least = float(np.quantile(low, 0.99)) if len(low) else 1.0
    most = float(np.quantile(high, 0.01)) if len(high) else max(least, 1.0)
    best = (1.0, 1.0)
    for factor in (least, most, (least + most) / 2):
        if factor > 1.0:
            violated = float(np.mean(sharp < factor * plain - 0.03 - 0.01 * np.abs(plain)))
            best = min(best, (factor, violated), key=lambda item: item[1])
    return best


def _logit(logp: Doubles) -> Doubles:
    clipped = np.clip(logp, -40.0, -1e-9)
    found: Doubles = clipped - np.log(-np.expm1(clipped))
    return found


def _noise(t: Doubles, e: Doubles) -> DisagreementCause | None:
    """Differences of both signs around zero, as bfloat16 or another routing of a mixture of experts makes them."""
    delta = t - e
    mean, spread = float(delta.mean()), float(delta.std())
    if abs(mean) > max(4 * spread / math.sqrt(len(delta)), 0.25 * float(np.abs(delta).mean())) or spread > 0.3:
        return None
    heavy = float(np.mean(np.abs(delta) > 4 * float(np.median(np.abs(delta))))) > 0.1
    kind = "as another routing of a mixture of experts makes it (heavy tails)" if heavy else "as bfloat16 arithmetic makes it"
    evidence = f"differences of both signs around 0 with standard deviation {spread:.3f}, {kind}; slightly different weights look the same"
    fix = "Compute both sides in float32 to see whether it remains; truncated importance sampling limits what it does."
    return DisagreementCause("precision noise", 0.45 if spread > 0.1 else 0.6, evidence, fix)


def _weights(t: Doubles, e: Doubles) -> DisagreementCause:
    """What remains: the two sides are different models."""
    pearson = _pearson(t, e)
    relation = "the two are not correlated" if pearson is None or pearson < 0.5 else f"the two are correlated ({pearson:.2f})"
    evidence = f"{relation}, and no shift, cut, temperature or outlier explains the differences"
    fix = (
        "Check that the engine serves the trainer's weights (the last weight update, LoRA merged, quantisation) and the same prompt tokens."
    )
    return DisagreementCause("different weights", 0.5, evidence, fix)
