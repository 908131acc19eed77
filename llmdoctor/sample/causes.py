"""Why two sides' log-probabilities of the same tokens differ: each cause predicts something that can fail, and is named only if it alone is left.

Differences are log p(trainer) - log p(engine) in nats. A cause is `named` if the numbers agree with it and contradict the other ones; causes that the
numbers do not contradict, without proving them, are possible ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdoctor.sample.bands import CERTAIN, NOISE_LIMIT, Band, arithmetic, fit_band
from llmdoctor.sample.types import DisagreementCause, Doubles, Ids
from llmdoctor.sample.unscored import unscored

LARGEST = 50.0  # nats in a single ratio: more is computed as that
_OUTLIER, _PROOF = 1.0, 3.0  # nats beyond which a token is an outlier if nearly all others agree, and beyond which no noise explains it
_SAME_TEXT, _OTHER_TEXT = 0.85, 0.5  # correlation from which on two lists are of the same tokens, and up to which they are of others
_CLOSE = 0.9  # correlation below which weights or inputs differ by more than an update
_ALIGNED = 24  # tokens that such a correlation needs
_MATCH = 12.0  # nats of evidence that two lists are the same numbers: tokens times log(spread / remaining difference)
_MOST_FITTED = 50_000  # tokens that a temperature is fitted to, evenly chosen
_MOST_PAIRS = 256  # sequences whose order is looked at
_EXPLAINED = 0.1  # of the difference that may remain after a shift before another cause is looked for
_STRAY = 0.02  # the share of tokens that may contradict a cause: arithmetic
_SIGNS = 60  # moved tokens of one sign that a cut needs, or _ZEROS of them exactly 0
_ZEROS, _DOUBT = 3, 0.05  # tokens that are certain on one side and that the other side doubts by so many nats
_SHARP = 15  # tokens that a temperature must have moved the right way
_ENOUGH = 50  # tokens from which on what fits no cause is called different weights or inputs


def find_causes(trainer: Sequence[Doubles], engine: Sequence[Doubles], temperature: float | None = None) -> tuple[DisagreementCause, ...]:
    """Return the causes that the numbers allow, named ones first; () if the sides agree up to rounding.

    `temperature` is the one that was requested, if known. Values that are not finite are left out.
    """
    t, e, places = finite_pairs(trainer, engine)
    total = float(np.abs(t - e).mean()) if len(t) else 0.0
    if total <= 1e-3:
        return ()
    constant = _constant(t, e)
    if constant is not None:
        return (constant,)
    reordered = _reordered(trainer, engine, total)
    if reordered is not None:
        return (reordered,)
    shift = _shifted(trainer, engine, total)
    if shift is not None:
        moved, aligned = shift
        others = find_causes(*aligned, temperature) if (moved.explains or 0) < 1 - _EXPLAINED else ()
        return (moved, *(cause for cause in others if cause.named))
    zeros = unscored(t, e, places)
    if zeros is not None:
        return (zeros,)
    far = _far(t - e)
    found = [] if far is None else [_outliers(t, e, places, far)]
    if far is not None:
        t, e = np.delete(t, far), np.delete(e, far)
    if float(np.abs(t - e).mean()) > 1e-3:
        found += _of_all_tokens(t, e, temperature, bool(found))
    return tuple(sorted(found, key=lambda cause: not cause.named))


def finite_pairs(trainer: Sequence[Doubles], engine: Sequence[Doubles]) -> tuple[Doubles, Doubles, Ids]:
    """Return both sides' values [N] where both are finite, and the index of each among all tokens."""
    t, e = np.concatenate(list(trainer)), np.concatenate(list(engine))
    places = np.flatnonzero(np.isfinite(t) & np.isfinite(e))
    return t[places], e[places], places


def _alike(remaining: float, total: float, count: int) -> bool:
    """Whether `count` tokens that differ by `remaining` nats on average, instead of `total`, are the same numbers."""
    return remaining <= 0.25 * total and count * math.log(total / max(remaining, 1e-6)) >= _MATCH and count >= 3


def _shifted(
    trainer: Sequence[Doubles], engine: Sequence[Doubles], total: float
) -> tuple[DisagreementCause, tuple[list[Doubles], list[Doubles]]] | None:
    """The same numbers, or those of the same tokens, one or two places apart: the cause, and both sides so aligned."""
    best = None
    for lag in (-2, -1, 1, 2):
        ts = [t[max(0, lag) : len(t) + min(0, lag)] for t in trainer]
        es = [e[max(0, -lag) : len(e) + min(0, -lag)] for e in engine]
        t, e, _ = finite_pairs(ts, es)
        if len(t) and (best is None or np.abs(t - e).mean() < best[0]):
            best = float(np.abs(t - e).mean()), lag, len(t), _pearson(t, e), (ts, es)
    if best is None:
        return None
    remaining, lag, count, pearson, aligned = best
    as_it_is = _pearson(*finite_pairs(trainer, engine)[:2])
    same_text = count >= _ALIGNED and pearson >= _SAME_TEXT and as_it_is <= _OTHER_TEXT
    if not _alike(remaining, total, count) and not same_text:
        return None
    late, early = ("trainer", "engine") if lag > 0 else ("engine", "trainer")
    tokens = "one token" if abs(lag) == 1 else "two tokens"
    evidence = (
        f"the {late}'s values are the {early}'s, {tokens} later: {_remaining(remaining, total, count)} "
        f"(correlation {pearson:.2f}, not {as_it_is:.2f})"
    )
    fix = "One side stores its values in other places: log p of token i comes from the logits at position i - 1, and belongs at place i on both sides."
    return DisagreementCause("shifted by one", True, 1 - remaining / total, evidence, fix), aligned


def _pearson(t: Doubles, e: Doubles) -> float:
    """The correlation, without the 2% of the tokens that differ most; 0 if one side is constant."""
    away = np.abs(t - e)
    near = away <= np.quantile(away, 1 - _STRAY)
    t, e = t[near], e[near]
    spread = float(t.std() * e.std())
    return float(((t - t.mean()) * (e - e.mean())).mean() / spread) if spread > 0 else 0.0


def _remaining(remaining: float, total: float, count: int) -> str:
    return f"so aligned, {count} tokens differ by {remaining:.4f} nats on average instead of {total:.4f}"


def _reordered(trainer: Sequence[Doubles], engine: Sequence[Doubles], total: float) -> DisagreementCause | None:
    """The same sequences, in another order."""
    if not 2 <= len(trainer) <= _MOST_PAIRS:
        return None
    away = np.full((len(trainer), len(engine)), np.inf)
    width = max(map(len, [*trainer, *engine]))
    e = np.stack([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in engine])
    for index, row in enumerate(trainer):
        t = np.pad(row, (0, width - len(row)), constant_values=np.nan)
        same = (np.isfinite(t) == np.isfinite(e)).all(axis=1) & np.isfinite(t).any()
        if same.any():
            away[index, same] = np.nanmean(np.abs(t - e[same]), axis=1)
    best = away.argmin(axis=1)
    if len(set(best.tolist())) < len(best) or (best == np.arange(len(best))).all():
        return None
    count = sum(int(np.isfinite(row).sum()) for row in trainer)
    counts = [int(np.isfinite(row).sum()) for row in trainer]
    remaining = float(np.average(away.min(axis=1), weights=counts))
    if not _alike(remaining, total, count):
        return None
    other = np.flatnonzero(best != np.arange(len(best)))
    evidence = (
        f"{len(other)} of {len(best)} sequences stand in other places (the trainer's sequence {other[0]} is the engine's {best[other[0]]}): "
        f"{_remaining(remaining, total, count)}"
    )
    fix = "Bring both sides into one order before they are compared: by the id of the prompt and of the sample, not by the order of completion."
    return DisagreementCause("sequences in another order", True, 1 - remaining / total, evidence, fix)


def _constant(t: Doubles, e: Doubles) -> DisagreementCause | None:
    """One side holds one number for every token: no log-probabilities."""
    for name, mine, theirs in (("engine", e, t), ("trainer", t, e)):
        if len(mine) >= 4 and np.ptp(mine) == 0 and np.ptp(theirs) > 0.1:
            evidence = f"the {name}'s value is {mine[0]:g} for all {len(mine)} tokens: these are no log-probabilities of a softmax"
            fix = (
                "Record log-probabilities on that side: a placeholder was stored, or greedy decoding's processed distribution (log 1 = 0)."
            )
            return DisagreementCause("constant values on one side", True, None, evidence, fix)
    return None


def _far(delta: Doubles) -> Ids | None:
    """The places of a few tokens that carry the difference, if nearly all others agree."""
    away = np.abs(delta)
    far = np.flatnonzero(away > max(_OUTLIER, 30 * float(np.median(away))))
    if not len(far) or len(far) == len(away) or len(far) > max(3 if len(away) >= 30 else 1, len(away) // 50):
        return None
    return far if float(np.delete(away, far).mean()) <= NOISE_LIMIT else None


def _outliers(t: Doubles, e: Doubles, places: Ids, far: Ids) -> DisagreementCause:
    delta = t - e
    order = far[np.argsort(-np.abs(delta[far]))]
    named = ", ".join(f"{int(places[at])} (ratio {_ratio(delta[at])})" for at in order[:5])
    without = float(np.exp(np.clip(np.delete(delta, far), -LARGEST, LARGEST)).mean())
    evidence = (
        f"{len(far)} of {len(delta)} tokens differ by more than {_OUTLIER:g} nat, index {named}; the others by "
        f"{np.abs(np.delete(delta, far)).mean():.4f} on average, their mean ratio is {without:.4f}"
    )
    sure = bool(np.abs(delta[far]).max() > _PROOF) and len(delta) >= 8
    if not sure:
        evidence += "; a mixture of experts that routes one token elsewhere can do that too"
    fix = "Look at these tokens: special tokens, a stop token that one side does not score, or a token that was changed after it was drawn."
    share = float(np.abs(delta[far]).sum() / np.abs(delta).sum())
    return DisagreementCause("a few outliers", sure, share, evidence, fix, tokens=tuple(int(places[at]) for at in order[:20]))


def _ratio(delta: float) -> str:
    return f"{math.exp(min(LARGEST, max(-LARGEST, float(delta)))):.3g}"


def _of_all_tokens(t: Doubles, e: Doubles, temperature: float | None, outliers: bool) -> list[DisagreementCause]:
    """The causes that change every token: a cut, a temperature, both, arithmetic, weights or inputs."""
    signs = _SignCounts.of(t, e)
    some = np.linspace(0, len(t) - 1, min(len(t), _MOST_FITTED)).astype(np.int64)
    bands = (fit_band(t[some], e[some]), fit_band(e[some], t[some]))
    names = ("trainer", "engine")
    band, colder = min(zip(bands, names, strict=True), key=lambda pair: (pair[0].below, pair[0].above))
    scaled = _temperature(band, colder, signs, temperature)
    cut = _cut(signs, sure=signs.certain or (signs.raised >= _SIGNS and scaled is None))
    processed = _processed(band, colder) if signs.both else None
    if signs.certain:
        scaled = None
    found = [cause for cause in (cut, processed, scaled) if cause is not None]
    if any(cause.named for cause in found):
        return [cause for cause in found if cause.named][:1]
    if outliers and float(np.abs(t - e).mean()) <= NOISE_LIMIT:
        return []
    noise = _noise(t, e)
    small = noise is not None and float(np.abs(t - e).mean()) <= NOISE_LIMIT
    if small and noise is not None:
        return [noise, *found]
    return [*found, *([noise] if noise is not None else []), _weights(t, e, excluded=len(t) >= _ENOUGH and not found)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignCounts:
    """The signs of the differences that arithmetic cannot make: how many tokens moved up (`raised` on the side `side`) and down there."""

    side: str
    raised: int
    lowered: int
    count: int
    largest: float
    zeros: int
    pearson: float
    rare_raised: int

    @classmethod
    def of(cls, t: Doubles, e: Doubles) -> _SignCounts:
        """Return the signs, from the side that is larger more often."""
        slack = arithmetic(np.minimum(t, e))
        up, down = int(np.count_nonzero(e - t > slack)), int(np.count_nonzero(t - e > slack))
        side, mine, other = ("engine", e, t) if up >= down else ("trainer", t, e)
        raised, lowered = max(up, down), min(up, down)
        gain = mine - other
        zeros = int(np.count_nonzero((mine >= CERTAIN) & (gain > _DOUBT)))
        rare = int(np.count_nonzero((gain > slack) & (other < math.log(0.05))))
        return cls(
            side=side,
            raised=raised,
            lowered=lowered,
            count=len(t),
            largest=float(gain.max()),
            zeros=zeros,
            pearson=_pearson(t, e),
            rare_raised=rare,
        )

    @property
    def both(self) -> bool:
        """Whether tokens moved both ways, by more than arithmetic does."""
        return self.lowered > max(1, _STRAY * self.count)

    @property
    def certain(self) -> bool:
        """Whether one sign is neither chance nor a temperature: rare tokens were raised, or several are exactly certain on that side."""
        enough = (self.raised >= _SIGNS and self.rare_raised >= _SIGNS // 4) or (
            self.raised >= 8 and self.zeros >= _ZEROS and self.rare_raised >= _ZEROS and self.pearson >= _CLOSE
        )
        return self.one_sided and enough

    @property
    def one_sided(self) -> bool:
        """Whether a cut could have made the signs: hardly a token is lowered, none raised by more than a cut does."""
        return self.lowered <= _STRAY / 2 * self.count and self.largest <= _PROOF and self.pearson >= _OTHER_TEXT


def _cut(signs: _SignCounts, sure: bool) -> DisagreementCause | None:
    """One side renormalised over what a cut left: no token is less likely there, and none more so than the cut allows."""
    if not signs.one_sided or signs.raised < 3:
        return None
    evidence = (
        f"{signs.raised} tokens are more likely on the {signs.side}'s side by more than arithmetic, {signs.lowered} are less likely; the largest "
        f"gain is {signs.largest:.3f}: renormalised over a cut that kept {math.exp(-signs.largest):.2f} of the mass or more"
    )
    if signs.zeros:
        evidence += f"; {signs.zeros} tokens that the other side doubts have probability 1 there"
    fix = "Compare raw with raw (vLLM: logprobs_mode=\"raw_logprobs\"), or apply the engine's sampling mask to the trainer's logits before the softmax."
    return DisagreementCause("a cut on one side", sure, None, evidence, fix)


def _temperature(band: Band, colder: str, signs: _SignCounts, requested: float | None) -> DisagreementCause | None:
    """One side divided by a temperature: every token in the band that the division leaves open."""
    if band.factor < 1.02 or band.below > _STRAY or band.above > _STRAY:
        return None
    hotter = "engine" if colder == "trainer" else "trainer"
    wide = band.high / band.low > 1.02
    scale = f"between {1 / band.high:.2f} and {1 / band.low:.2f}" if wide else f"{1 / band.factor:.2f}"
    evidence = (
        f"{band.inside} of {band.count} tokens lie where division by a temperature can move them, {band.sharpened} of them likely tokens "
        f"that it must raise: the {colder}'s temperature is {scale} times the {hotter}'s"
    )
    if signs.zeros >= _ZEROS and signs.side == colder:
        evidence += f"; a cut beside it is possible: {signs.zeros} tokens that the {hotter} doubts have probability 1 there"
    if requested is not None:
        side = colder if abs(math.log(requested * band.factor)) < abs(math.log(requested / band.factor)) else hotter
        evidence += f"; with the requested temperature {requested:g}, it is the {side} that divides"
    fix = (
        'Use one kind on both sides: vLLM logprobs_mode="processed_logprobs" if the trainer divides its logits by the temperature, '
        "raw log-probabilities on both sides if it does not."
    )
    sure = band.sharpened >= _SHARP and band.lowered >= 3 and band.exceeds_chance
    return DisagreementCause("temperature-scaled against raw", sure, None, evidence, fix)


def _processed(band: Band, colder: str) -> DisagreementCause | None:
    """A temperature and a cut on one side: sharpened as a temperature does, and raised more than it alone can."""
    if band.factor < 1.02 or band.below > _STRAY or (band.above <= _STRAY and band.certain < _ZEROS):
        return None
    hotter = "engine" if colder == "trainer" else "trainer"
    evidence = (
        f"the {colder}'s values are sharpened as by a temperature of about {1 / band.factor:.2f}, and raised more than a temperature alone can: "
        f"{band.certain} tokens that the {hotter} doubts have probability 1 there"
    )
    fix = f"Compare raw with raw, or give the {hotter}'s logits the {colder}'s temperature and sampling mask before the softmax."
    sure = band.sharpened >= _SHARP and band.lowered >= 3 and band.exceeds_chance and band.certain >= _ZEROS
    return DisagreementCause("processed against raw", sure, None, evidence, fix)


def _noise(t: Doubles, e: Doubles) -> DisagreementCause | None:
    """Differences of both signs around zero, as bfloat16, another routing of a mixture of experts, or slightly other weights make them."""
    delta = t - e
    mean, spread = float(delta.mean()), float(delta.std())
    if abs(mean) > max(4 * spread / math.sqrt(len(delta)), 0.25 * float(np.abs(delta).mean())) or spread > 0.3:
        return None
    heavy = float(np.mean(np.abs(delta) > 4 * float(np.median(np.abs(delta))))) > 0.1
    kind = ", with heavy tails as another routing of a mixture of experts makes them" if heavy else ", as bfloat16 arithmetic makes them"
    evidence = f"differences of both signs around 0 with standard deviation {spread:.3f}{kind}; slightly different weights look the same"
    fix = "Compute both sides in float32 to see whether it remains; truncated importance sampling limits what it does."
    return DisagreementCause("precision noise", False, None, evidence, fix)


def _weights(t: Doubles, e: Doubles, excluded: bool) -> DisagreementCause:
    """What remains: another model, or other inputs to the same one."""
    pearson = _pearson(t, e)
    relation = "the two sides are not correlated" if pearson < 0.5 else f"the two sides are correlated ({pearson:.2f})"
    evidence = f"{relation}, and no shift, order, padding, cut, temperature or outlier fits"
    if not excluded:
        evidence = (
            f"{relation}; {len(t)} tokens do not exclude a cut or a temperature"
            if len(t) < _ENOUGH
            else f"{relation}, and nothing else is proven"
        )
    fix = (
        "Check that the engine serves the trainer's weights (the last weight update, LoRA merged, quantisation), that both sides get the same "
        "prompt tokens, that dropout is off, and that labels are shifted before the gather."
    )
    return DisagreementCause("different weights or inputs", excluded and pearson < _CLOSE, None, evidence, fix)
