"""Which kind the recorded log-probabilities of a replayed generation are."""

from __future__ import annotations

import numpy as np

from llmdoctor.sample.steps import Steps
from llmdoctor.sample.types import Doubles

_SAME = 1e-4  # nats between two kinds that are one
_NEAR = 0.05  # nats on average within which a kind fits
_LOWEST = -50.0


def kind_of(recorded: Doubles, steps: Steps, scaled: Doubles) -> tuple[str, dict[str, float]]:
    """Return the kind nearest to `recorded` [S] ("unknown" if none is near), and the mean distance to each in nats.

    The kinds are raw, temperature (after penalties and temperature: `scaled` [S]) and processed.
    """
    kinds = {"raw": steps.logprob_raw, "temperature": scaled, "processed": steps.logprob_near}
    far = {name: float(np.abs(np.where(np.isfinite(recorded), recorded, _LOWEST) - theirs).mean()) for name, theirs in kinds.items()}
    least = min(far.values())
    best = next(name for name, by in far.items() if by <= least + _SAME)  # without a temperature raw and scaled are one
    return (best if far[best] < _NEAR else "unknown"), far
