"""What the commands' options say, as the nouns of the job. Everything here raises QuestionError."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.arrays import parse_logits
from llmdoctor.sample.stages import refusal, run
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import Before, Doubles, Floats, Settings


@dataclass(frozen=True, slots=True)
class Ask:
    """What the command was asked; paths as given. `options` are the claim's settings that options state."""

    logits: str | None
    tokens: str | None = None
    claim: str | None = None
    options: Settings = field(default_factory=Settings)
    engine: str | None = None
    model: str | None = None
    prompt: str | None = None
    sequence: int | None = None
    step: int | None = None
    rows: int = 8
    alpha: float = 0.01
    tolerance: float | None = None
    dtype: str | None = None
    versus: str | None = None
    logprobs: str | None = None
    images: Sequence[str] = ()
    eos: Sequence[int] = ()
    scores: bool | None = None


def parse_ids(text: str | None, option: str) -> tuple[int, ...]:
    """Token ids: 1,2,3; () for None or an empty text."""
    if not text or not text.strip():
        return ()
    try:
        return tuple(int(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",") if part.strip())
    except ValueError:
        raise QuestionError(f"{option} {text[:60]}: expected token ids such as 1,2,3") from None


def parse_before(prompt: str | None, output: str | None) -> Before:
    """The tokens in front of a step."""
    return Before(parse_ids(prompt, "--prompt-tokens"), parse_ids(output, "--output-tokens"))


def parse_bias(text: str | None) -> dict[int, float] | None:
    """ID:BIAS,..."""
    if text is None:
        return None
    found = {}
    for part in text.split(","):
        token, _, bias = part.partition(":")
        try:
            found[int(token)] = float(bias)
        except ValueError:
            raise QuestionError(f"--logit-bias {part[:60]}: expected ID:BIAS, such as 151645:-5") from None
        if not found[int(token)] < math.inf:
            raise QuestionError(f"--logit-bias {part[:60]}: expected a number, or -inf for a token that is banned")
    return found


def check_engines(names: Sequence[str] | None) -> tuple[str, ...]:
    """The engines named, each one known."""
    for name in names or ():
        if name not in ENGINES:
            raise QuestionError(f"--engine {name}: expected one of {', '.join(ENGINES)}")
    return tuple(dict.fromkeys(names or ()))


def check_dtype(name: str | None) -> str | None:
    """A dtype's full name; bf16 and fp16 are understood."""
    known = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "half": "float16"}
    full = None if name is None else known.get(name, name.removeprefix("torch."))
    if full not in (None, "float32", "bfloat16", "float16"):
        raise QuestionError(f"--dtype {name}: expected float32, bfloat16 or float16")
    return full


def given_probs(text: str, step: int) -> Doubles:
    """A distribution that was given as such: --probs FILE or numbers. It must sum to 1."""
    recorded = parse_logits(text)
    if not 0 <= step < recorded.steps:
        raise QuestionError(f"{recorded.path}: --step {step}: expected 0 to {recorded.steps - 1}")
    probs: Doubles = recorded.rows(step, step + 1)[0].astype(np.float64)
    if (probs < 0).any():
        raise QuestionError(f"--probs {text[:60]}: token {int((probs < 0).argmax())} has {probs.min():g}, expected probabilities")
    if abs(probs.sum() - 1) > 1e-3:
        raise QuestionError(f"--probs {text[:60]}: sum to {probs.sum():.6g}, expected 1")
    probs /= probs.sum()
    return probs


def claimed_probs(engine: str, settings: Settings, row: Floats) -> Doubles:
    """The distribution [V] that an engine makes of a row of logits."""
    error = refusal(ENGINES[engine], settings)
    if error is not None:
        raise QuestionError(f"{engine} refuses these settings: {error}")
    with np.errstate(all="ignore"):
        probs = run(ENGINES[engine], settings, row)[-1].row.probs(len(row))
    if not np.isfinite(probs).all():
        raise QuestionError("the logits overflow float32 at this temperature: probabilities are NaN")
    return probs
