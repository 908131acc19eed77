"""What top-n log-probabilities say of one step: everything that is not listed could lie anywhere, so every answer is an interval.

The unlisted mass is laid out in several ways, from as few tokens as the list allows to as many as a vocabulary has; each is a sketch like that of
recorded logits, and goes through the same cuts in the engine's own order. What holds for all of them holds for sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmdoctor.requests.logprob_files import Listed
from llmdoctor.sample.judge import claimed
from llmdoctor.sample.sketch import Sketch
from llmdoctor.sample.tables import SamplingEngine
from llmdoctor.sample.types import Doubles, Ids, SamplingParams

_VOCAB = 300_000  # tokens a vocabulary may have
_LEVELS = 6  # ways to lay out the unlisted mass, besides those that a cut singles out
_ROUNDING, _LOGIT = 2e-3, 1e-2  # of a mass and in nats: engines round their log-probabilities
_TIES = 2  # an engine's rank counts every token that ties: in bfloat16 that many times more than a top_k that keeps them


@dataclass(frozen=True, slots=True)
class Law:
    """How the recorded log-probabilities become what is drawn from: the engine's order, the temperature, and the cuts that are still to come."""

    engine: SamplingEngine
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    @classmethod
    def of(cls, kind: str, engine: SamplingEngine, settings: SamplingParams) -> Law:
        """The law of raw log-probabilities, of those after the temperature, or of processed ones."""
        temperature, k, p, m = claimed(settings)
        if kind == "processed":
            return cls(engine)
        return cls(engine, temperature if kind == "raw" else 1.0, k, p, m)


@dataclass(frozen=True, slots=True)
class StepBounds:
    """One step under the claim: rank (None: beyond the list), mass before the token and log-probability as [low, high], what removes it.

    `sure` is how many of the listed tokens are in the support whatever the unlisted ones are.
    """

    rank: int | None
    mass_before: tuple[float, float]
    logprob: tuple[float, float]
    support: tuple[int, int | None]
    removed_by: str
    sure: int


def bounds_of(steps: Sequence[Listed], law: Law, greedy: bool = False) -> list[StepBounds]:
    """Every step's bounds."""
    layouts = layouts_of(steps, law)
    strict, loose = _cuts(law, -1), _cuts(law, 1)
    cut = [sketch.cut(law.engine, law.temperature, *strict)[0] for sketch in layouts]
    wide = [sketch.cut(law.engine, law.temperature, *loose) for sketch in layouts]
    least, most = np.min(cut, axis=0), np.max([kept for kept, _ in wide], axis=0)
    z_high = np.max([z for _, z in wide], axis=0)
    cutting = law.top_p is not None
    before = [
        sketch.nucleus(law.engine, law.temperature, law.top_k if cutting else None, law.min_p if cutting else None)[0] for sketch in layouts
    ]
    low, high = np.min(before, axis=0), np.max(before, axis=0)
    starts = layouts[0].starts()
    found = []
    for at, step in enumerate(steps):
        size, place = len(step.top), step.place
        if not size:
            found.append(StepBounds(None, (0.0, 1.0), (-math.inf, 0.0), (1, law.top_k), "", 0))
            continue
        entry = size if place is None else int(starts[at, place])
        mass = (float(low[at, entry]), 1.0 if place is None else float(high[at, entry]))
        sure = min(int(least[at]), size)
        beyond = int(most[at]) > size
        removed = _removed(step, law, int(most[at]), greedy)
        value = (step.logprob - step.top[0][1]) / law.temperature
        z_low = math.log(sum(math.exp((v - step.top[0][1]) / law.temperature) for _, v in step.top[:sure]))
        certain = place is not None and place < sure
        logprob = (-math.inf, -math.inf) if removed else (value - float(z_high[at]) if certain else -math.inf, min(0.0, value - z_low))
        support = (sure, (law.top_k if beyond else int(most[at])))
        found.append(StepBounds(step.rank if place is None else entry + 1, mass, logprob, support, removed, sure))
    return found


def layouts_of(steps: Sequence[Listed], law: Law) -> list[Sketch]:
    """The steps with their unlisted mass laid out in each way: listed tokens first, then the unlisted, those that top_k would keep apart."""
    count, width = len(steps), max((len(step.top) for step in steps), default=0)
    sizes = np.array([len(step.top) for step in steps])
    values = np.full((count, width + 2), -np.inf)
    for index, step in enumerate(steps):
        values[index, : sizes[index]] = [value for _, value in step.top]
    mass = np.maximum(1.0 - np.exp(values).sum(axis=1), 0.0)
    least = np.array([math.exp(step.top[-1][1]) if step.top else 1.0 for step in steps])
    first = np.array([math.exp(step.top[0][1]) if step.top else 1.0 for step in steps])
    room = np.maximum(law.top_k - sizes, 0) if law.top_k else np.full(count, _VOCAB)
    at = np.array([sizes[index] if step.place is None else step.place for index, step in enumerate(steps)], np.int64)
    x = np.array([step.logprob for step in steps])
    sketches = []
    for level in _levels(mass, least, first, room, law):
        v, n = values.copy(), np.isfinite(values).astype(float)
        tokens = np.where(mass > 1e-9, mass / level, 0.0)
        near = np.minimum(tokens, room)
        rows = np.arange(count)
        with np.errstate(divide="ignore"):
            v[rows, sizes] = v[rows, sizes + 1] = np.log(level)
        n[rows, sizes], n[rows, sizes + 1] = near, tokens - near
        sketches.append(Sketch(v, n, at, x, rows))
    return sketches


def _levels(mass: Doubles, least: Doubles, first: Doubles, room: Ids, law: Law) -> list[Doubles]:
    """Probabilities of an unlisted token: between the least listed one and an even spread, the one that fills top_k, the one at min_p's edge."""
    even = np.minimum(np.maximum(mass / _VOCAB, 1e-30), least)
    levels = [least ** (1 - share) * even**share for share in np.linspace(0, 1, _LEVELS)]
    levels.append(np.clip(mass / np.maximum(room, 1), even, least))
    if law.min_p:
        scale = law.temperature if law.engine.cuts_after_temperature else 1.0
        levels.append(np.clip(first * law.min_p**scale * 1.0001, even, least))
    return [np.maximum(level, 1e-30) for level in levels]


def _cuts(law: Law, side: int) -> tuple[int | None, float | None, float | None]:
    """top_k, top_p and min_p, a little narrower (-1) or wider (1) than they are."""
    p = None if law.top_p is None else law.top_p + side * _ROUNDING
    return law.top_k, p, None if not law.min_p else law.min_p * math.exp(-side * _LOGIT)


def _removed(step: Listed, law: Law, most: int, greedy: bool) -> str:
    """The cut that removes the token whatever the unlisted ones are; "" where none does for sure. Of equal ones at an edge all may stay."""
    size, place, top = len(step.top), step.place, step.top[0][1]
    above = sum(value > step.logprob + 1e-6 for _, value in step.top)
    if greedy:
        return "greedy" if step.logprob < top - 1e-3 else ""
    if law.top_k is not None and (above >= law.top_k or (step.rank or 0) > _TIES * law.top_k):
        return "top_k"
    scale = law.temperature if law.engine.cuts_after_temperature else 1.0
    if law.min_p and (step.logprob - top) / scale < math.log(law.min_p) - _LOGIT:
        return "min_p"
    edge = step.top[min(most, size) - 1][1]
    outside = most <= (size if place is None else place) and step.logprob < edge - 1e-6
    return "top_p" if law.top_p is not None and outside else ""


def sure_sketch(steps: Sequence[Listed], sure: Sequence[int]) -> Sketch:
    """The listed tokens that are in the support for sure: given that one of them was drawn, which one follows known odds."""
    kept = [at for at, step in enumerate(steps) if step.place is not None and step.place < sure[at] and sure[at] > 1]
    width = max((sure[at] for at in kept), default=0)
    v, n = np.zeros((len(kept), width)), np.zeros((len(kept), width))
    for row, at in enumerate(kept):
        listed = [value for _, value in steps[at].top[: sure[at]]]
        v[row], n[row, : len(listed)] = listed[-1], 1.0
        v[row, : len(listed)] = listed
    places = np.array([steps[at].place for at in kept], np.int64)
    rows: NDArray[np.int64] = np.arange(len(kept))
    return Sketch(v, n, places, v[rows, places] if kept else np.zeros(0), np.array(kept, np.int64))
