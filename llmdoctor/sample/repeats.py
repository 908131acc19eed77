"""Equal sequences: draws that share a seed are one draw, and must not be counted as several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.text import plural
from llmdoctor.requests.listed import Listed, Responses

_CHANCE = 1e-4  # two draws of a sequence that are equal with a smaller probability share their seed


def _limit(count: int) -> float:
    """The log-probability below which a sequence is not drawn twice by chance among `count`."""
    return math.log(_CHANCE / max(1, count * (count - 1) // 2))


def without_repeats(responses: Responses, temperature: float) -> Responses:
    """Return the responses without those whose tokens an earlier one has too, unless they are so likely that chance repeats them.

    `temperature` is the one that the listed log-probabilities are divided by before a draw.
    """
    groups = responses.groups()
    seen: dict[tuple[str, ...], None] = {}
    kept: list[Responses] = []
    for one in groups:
        tokens = tuple(step.token for step in one.steps)
        if tokens in seen and sum(_logprob(step, temperature) for step in one.steps) < _limit(len(groups)):
            continue
        seen[tokens] = None
        kept.append(one)
    if len(kept) == len(groups):
        return responses
    found = kept[0]
    for one in kept[1:]:
        found.add(one)
    note = f"{plural(len(groups) - len(kept), 'response')} left out: equal to an earlier one token by token, as with a shared seed"
    found.notes = [*responses.notes, note]
    return found


def beyond_chance(rows: Iterable[NDArray[Any]], tokens: Sequence[int], temperature: float, *, count: int) -> bool:
    """Return whether `tokens` are not drawn twice by chance among `count` sequences; `rows` are the logits [V] in front of each."""
    total, limit = 0.0, _limit(count)
    for row, token in zip(rows, tokens, strict=False):
        x = np.asarray(row, np.float64) / temperature
        total += min(0.0, float(x[token] - np.logaddexp.reduce(x)))
        if total < limit:
            return True
    return False


def _logprob(step: Listed, temperature: float) -> float:
    """The log-probability of the drawn token among the listed ones at a temperature: at least what it is among all, without a cut."""
    values = np.array([step.logprob, *(value for token, value in step.top if token != step.token)]) / temperature
    return float(values[0] - np.logaddexp.reduce(values)) if values[0] > -np.inf else 0.0
