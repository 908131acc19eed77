"""Two sets of log-probabilities of the same tokens: what a policy ratio made of them says, and which kind recorded ones are."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.arrays import load_array
from llmdoctor.sample.steps import Steps
from llmdoctor.sample.tokens import read_values
from llmdoctor.sample.types import Doubles

_KEYS = ("logprobs", "token_logprobs", "logprob", "old_logprobs")
_SAME = 1e-4  # nats between two kinds that are one
_LARGEST = 50.0  # nats in a single ratio: more is shown as that


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two sets of log-probabilities differ. `new` is the trainer's, `old` the engine's; ratio = exp(new - old).

    k1 = mean(old - new) estimates KL(old, new) without bias, k3 = mean(ratio - 1 - log ratio); where `old` is truncated k3 misses
    the mass that was cut off, and their gap shows it.
    """

    tokens: int
    mean_abs: float
    max_abs: float
    pearson: float | None
    mean_ratio: float
    k1: float
    k3: float
    nats: float
    ppl_ratio: float

    @property
    def gap(self) -> float:
        """k1 - k3 = 1 - mean ratio."""
        return self.k1 - self.k3


def compare(new: Doubles, old: Doubles) -> Comparison:
    """Both finite [N], N at least 1."""
    delta = new - old
    ratio = np.exp(np.clip(delta, -_LARGEST, _LARGEST))
    spread = float(new.std() * old.std())
    pearson = float(((new - new.mean()) * (old - old.mean())).mean() / spread) if spread > 0 else None
    return Comparison(
        len(new),
        float(np.abs(delta).mean()),
        float(np.abs(delta).max()),
        pearson,
        float(ratio.mean()),
        float(-delta.mean()),
        float((ratio - 1 - delta).mean()),
        float(-delta.sum()),
        float(math.exp(min(_LARGEST, max(-_LARGEST, -float(delta.mean()))))),
    )


def read_logprobs(path: str) -> list[float]:
    """Log-probabilities of drawn tokens: a JSON list, an object with logprobs, JSON lines of either, or .npy. Raises QuestionError."""
    if path.endswith(".npy"):
        array = load_array(path)
        if array.dtype.kind != "f" or array.ndim != 1:
            raise QuestionError(f"{path}: holds {array.dtype} of {array.ndim} dimensions, expected log-probabilities [steps]")
        return _checked([float(value) for value in array], path)
    value = read_values(path, "log-probabilities")
    try:
        return _checked(list(_numbers(value, path)), path)
    except (RecursionError, OverflowError):
        raise QuestionError(f"{path}: nested too deeply, or a number too large: expected a JSON list of log-probabilities") from None


def _numbers(value: Any, path: str) -> list[float]:
    if isinstance(value, dict):
        key = next((key for key in _KEYS if key in value), None)
        if key is None:
            raise QuestionError(f"{path}: no logprobs in it, found {', '.join(list(value)[:6]) or 'nothing'}")
        return _numbers(value[key], path)
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item, path)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [math.inf if value > sys.float_info.max else -math.inf if value < -sys.float_info.max else float(value)]
    raise QuestionError(f"{path}: {str(value)[:40]!r} is no log-probability")


def _checked(values: list[float], path: str) -> list[float]:
    for index, value in enumerate(values):
        if math.isnan(value) or value > 1e-3:
            raise QuestionError(f"{path}: item {index} is {value}, expected a log-probability (at most 0)")
    return values


def kind_of(recorded: Sequence[float], steps: Steps, scaled: Doubles) -> tuple[str, dict[str, float]]:
    """Which kind `recorded` log-probabilities of a replayed generation are: raw, temperature (scaled) or processed.

    Returns the nearest kind ("unknown" where none is near) and the mean distance to each. `scaled` [S] are those after the temperature.
    """
    if len(recorded) != steps.count:
        raise QuestionError(f"{len(recorded)} log-probabilities and {steps.count} steps: expected one a step")
    values = np.asarray(recorded)
    kinds = {"raw": steps.logprob_raw, "temperature": scaled, "processed": steps.logprob_near}
    far = {name: float(np.abs(np.where(np.isfinite(values), values, -_LARGEST) - theirs).mean()) for name, theirs in kinds.items()}
    least = min(far.values())
    best = next(name for name, by in far.items() if by <= least + _SAME)  # without a temperature raw and scaled are one
    return (best if far[best] < 0.05 else "unknown"), far
