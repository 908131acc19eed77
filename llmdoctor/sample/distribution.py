"""The distribution that `sample draw` draws from or tests against: given as probabilities, or made of logits by an engine."""

from __future__ import annotations

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.logits import parse_logits
from llmdoctor.sample.stages import refusal, run
from llmdoctor.sample.types import Doubles, Floats, SamplingParams


def given_probs(text: str, step: int) -> Doubles:
    """Return the distribution [V] of --probs FILE or numbers. Raises QuestionError unless it sums to 1."""
    recorded = parse_logits(text)
    if not 0 <= step < recorded.steps:
        raise QuestionError(f"{recorded.path}: --step {step}: expected 0 to {recorded.steps - 1}")
    probs: Doubles = recorded.rows(step, step + 1)[0].astype(np.float64)
    if (probs < 0).any():
        raise QuestionError(f"--probs {text[:60]}: token {int((probs < 0).argmax())} has {probs.min():g}, expected probabilities")
    if abs(probs.sum() - 1) > 1e-3:
        raise QuestionError(f"--probs {text[:60]}: the sum is {probs.sum():.6g}, expected 1")
    probs /= probs.sum()
    return probs


def claimed_probs(engine: SamplingEngine, settings: SamplingParams, row: Floats) -> Doubles:
    """Return the distribution [V] that an engine makes of a row of logits [V]. Raises QuestionError if it refuses the settings."""
    error = refusal(engine, settings)
    if error is not None:
        raise QuestionError(f"{engine.name} refuses these settings: {error}")
    with np.errstate(all="ignore"):
        probs = run(engine, settings, row)[-1].row.probs(len(row))
    if not np.isfinite(probs).all():
        raise QuestionError("the logits overflow float32 at this temperature: probabilities are NaN")
    return probs
