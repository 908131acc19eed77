"""The options of the sample commands, and the parsers of options that are text. Every parser raises QuestionError."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmdoctor.core.errors import QuestionError
from llmdoctor.sample.known_engines import find_engine
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams, TokenContext

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "half": "float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """What all sample commands share: `logits` is a file (or numbers), `settings` are the sampling parameters that options set."""

    logits: str | None = None
    settings: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions(SampleOptions):
    """Options of `sample replay`; paths as given.

    `alpha` is the share of true claims that may be called inconsistent, `tolerance` a mass beyond the nucleus, `step` and `sequence` count
    from 0. `scores` is True for --scores, False for --raw; `kind` is that of listed log-probabilities.
    """

    tokens: str | None = None
    claim: str | None = None
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
    kind: str | None = None
    without: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginesOptions(SampleOptions):
    """Options of `sample engines`: `context` holds the tokens in front of the step, `engines` the names (all if empty)."""

    context: TokenContext = field(default_factory=TokenContext)
    step: int = 0
    model: str | None = None
    defaults: bool = False
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawOptions(SampleOptions):
    """Options of `sample draw`: `count` draws with `seed`, or a `sampler` (module:function) or a file of `draws` to test."""

    probs: str | None = None
    engine: str = "transformers"
    step: int = 0
    count: int = 1000
    seed: int = 0
    only_counts: bool = False
    sampler: str | None = None
    draws: str | None = None
    output: str | None = None
    alpha: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCompareOptions:
    """Options of `sample compare`: the files of the two sides (without `engine`, `trainer` holds both); `temperature` is the requested one."""

    trainer: str
    engine: str | None = None
    temperature: float | None = None

    @property
    def engine_file(self) -> str:
        """Return the file of the engine's side."""
        return self.engine or self.trainer


def parse_ids(text: str | None, option: str) -> tuple[int, ...]:
    """Return the token ids of a text such as 1,2,3; () for None or an empty text."""
    if not text or not text.strip():
        return ()
    try:
        return tuple(int(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",") if part.strip())
    except ValueError:
        raise QuestionError(f"{option} {text[:60]}: expected token ids such as 1,2,3") from None


def parse_context(prompt: str | None, output: str | None) -> TokenContext:
    """Return the tokens in front of a step."""
    return TokenContext(parse_ids(prompt, "--prompt-tokens"), parse_ids(output, "--output-tokens"))


def parse_bias(text: str | None) -> dict[int, float] | None:
    """Return the biases of a text such as ID:BIAS,ID:BIAS."""
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
    """Return the names without repetitions, each one a known engine (NAME or NAME@VERSION)."""
    for name in names or ():
        if find_engine(name) is None:
            raise QuestionError(f"--engine {name}: expected one of {', '.join(ENGINES)}, or one of them with a version (vllm@0.7)")
    return tuple(dict.fromkeys(names or ()))


def check_alpha(alpha: float) -> None:
    """Raise QuestionError unless `alpha` can be a significance level."""
    if not 0 < alpha < 1:
        raise QuestionError(f"--alpha {alpha}: expected a number between 0 and 1")


def check_dtype(name: str | None) -> str | None:
    """Return the full name of a dtype; bf16, fp16, fp32 and half are understood."""
    full = None if name is None else _DTYPES.get(name, name.removeprefix("torch."))
    if full not in (None, "float32", "bfloat16", "float16"):
        raise QuestionError(f"--dtype {name}: expected float32, bfloat16 or float16")
    return full
