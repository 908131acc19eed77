"""The engines as data: order of stages, defaults, what each accepts and what it says otherwise. One table an engine, read from its source.

`order` names stages of :mod:`llmdoctor.sample.stages`; a stage runs where its option is named and is not one of the engine's "off" values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Range:
    """What an engine accepts of an option: low (or more than low) to high, or one of `also`; `says` is its message otherwise."""

    option: str
    says: str
    low: float = float("-inf")
    high: float = float("inf")
    over: bool = False
    under: bool = False
    also: tuple[float, ...] = ()

    def accepts(self, value: float) -> bool:
        """Whether the engine takes `value`; NaN never."""
        low = value > self.low if self.over else value >= self.low
        high = value < self.high if self.under else value <= self.high
        return (low and high) or value in self.also


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine. `off` are the values that turn a stage off, `scope` the tokens that a penalty counts.

    `ties` says which of several equal logits at the k-th stay; `logprobs` what kind of log-probabilities it returns by default.
    """

    name: str
    version: str
    source: str
    order: tuple[str, ...]
    takes: frozenset[str]
    unknown: str
    ranges: tuple[Range, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    off: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scope: Mapping[str, Literal["all", "output", "window"]] = field(default_factory=dict)
    ties: Literal["all", "low"] = "all"
    hidden: bool = False  # takes sampling settings of generation_config.json for what a request leaves out
    logprobs: Literal["raw", "temperature", "processed"] = "processed"


_FILTERS = ("temperature", "top_k", "top_p", "min_p")
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
_BOTH = "The following `model_kwargs` are not used by the model: {names}"

TRANSFORMERS = Engine(
    "transformers",
    "5.23.0",
    "generation/utils.py _get_logits_processor, generation/logits_process.py",
    (
        "logit_bias",
        "repetition_penalty",
        "greedy",
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
    ),
    frozenset((*_FILTERS, "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "logit_bias")),
    "ValueError: " + _BOTH,
    (
        Range("repetition_penalty", "ValueError: `penalty` has to be a strictly positive float, but is {value}", 0, over=True),
        Range("temperature", "ValueError: `temperature` (={value}) has to be a strictly positive float", 0, over=True),
        Range("top_h", "ValueError: `top_h` must be in the range (0, 1].", 0, 1, over=True),
        Range("top_k", "ValueError: `top_k` has to be a strictly positive integer, but is {value}", 0),
        Range("top_p", "ValueError: `top_p` has to be a float > 0 and < 1, but is {value}", 0),
        Range("min_p", "ValueError: `min_p` has to be a float in the [0, 1] interval, but is {value}", 0, 1),
        Range("typical_p", "ValueError: `typical_p` has to be a float > 0 and < 1, but is {value}", 0, over=True),
    ),
    {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
    {"temperature": (1.0,), "top_k": (0,), "repetition_penalty": (1.0,)},
    {"repetition_penalty": "all"},
    hidden=True,
)
VLLM = Engine(
    "vllm",
    "0.33.0",
    "sampling_params.py, v1/sample/sampler.py, v1/sample/ops/topk_topp_sampler.py (PyTorch path)",
    ("logit_bias", "repetition_penalty", "frequency_penalty", "presence_penalty", "greedy", "temperature", "min_p", "top_k", "top_p"),
    frozenset((*_FILTERS, *_PENALTIES, "logit_bias")),
    "TypeError: Unexpected keyword argument {first}",
    (
        Range("presence_penalty", "VLLMValidationError: presence_penalty must be in [-2, 2], got {value}.", -2, 2),
        Range("frequency_penalty", "VLLMValidationError: frequency_penalty must be in [-2, 2], got {value}.", -2, 2),
        Range(
            "repetition_penalty",
            "VLLMValidationError: repetition_penalty must be greater than zero and finite, got {value}.",
            0,
            over=True,
            under=True,
        ),
        Range("temperature", "VLLMValidationError: temperature must be in [0, 2], got {value}.", 0, 2),
        Range("top_p", "VLLMValidationError: top_p must be in (0, 1], got {value}.", 0, 1, over=True),
        Range("top_k", "VLLMValidationError: top_k must be 0 (disable), or at least 1, got {value}.", -1),
        Range("min_p", "VLLMValidationError: min_p must be in [0, 1], got {value}.", 0, 1),
    ),
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"top_k": (0, -1), "min_p": (0.0,), "top_p": (1.0,)},
    {"repetition_penalty": "all", "frequency_penalty": "output", "presence_penalty": "output"},
    hidden=True,
    logprobs="raw",
)
SGLANG = Engine(
    "sglang",
    "0.5.23",
    "srt/sampling/sampling_params.py, srt/sampling/penaltylib, srt/layers/sampler.py (pytorch backend)",
    ("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "greedy", "temperature", "joint"),
    frozenset((*_FILTERS, *_PENALTIES, "logit_bias")),
    "TypeError: Unexpected keyword argument {first}",
    (
        Range("temperature", "ValueError: temperature must be a non-negative finite number, got {value}.", 0, under=True),
        Range("top_p", "ValueError: top_p must be in (0, 1], got {value}.", 0, 1, over=True),
        Range("min_p", "ValueError: min_p must be in [0, 1], got {value}.", 0, 1),
        Range("top_k", "ValueError: top_k must be -1 (disable) or at least 1, got {value}.", 1, also=(-1,)),
        Range("frequency_penalty", "ValueError: frequency_penalty must be in [-2, 2], got {value}.", -2, 2),
        Range("presence_penalty", "ValueError: presence_penalty must be in [-2, 2], got {value}.", -2, 2),
        Range(
            "repetition_penalty",
            "ValueError: repetition_penalty must be in (0, 2] (1.0 = no penalty), got {value}.",
            0,
            2,
            over=True,
        ),
    ),
    {"temperature": 1.0, "top_k": -1, "top_p": 1.0, "min_p": 0.0},
    {"top_k": (-1, 2**30), "top_p": (1.0,), "min_p": (0.0,)},
    {"repetition_penalty": "output", "frequency_penalty": "output", "presence_penalty": "output"},
    "low",
    hidden=True,
    logprobs="temperature",
)
LLAMA_CPP = Engine(
    "llama.cpp",
    "0c1e570",
    "common/common.h common_params_sampling, src/llama-sampler.cpp (default order, without DRY and XTC)",
    (
        "logit_bias",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "top_k",
        "typical_p",
        "top_p",
        "min_p",
        "temperature",
        "greedy",
    ),
    frozenset((*_FILTERS, *_PENALTIES, "typical_p", "penalty_last_n", "logit_bias")),
    "llama.cpp has no {names}",
    (),
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "penalty_last_n": 64},
    {},
    {"repetition_penalty": "window", "frequency_penalty": "window", "presence_penalty": "window"},
    "low",
    logprobs="raw",  # the server's post_sampling_probs is off
)
TGI = Engine(
    "tgi",
    "00cef24 (read, not run)",
    "router/src/validation.rs, server/text_generation_server/utils/{tokens,logits_process}.py",
    ("repetition_penalty", "frequency_penalty", "greedy", "temperature", "top_k", "top_p", "typical_p"),
    frozenset(("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "frequency_penalty")),
    "TGI has no {names}",
    (
        Range("temperature", "`temperature` must be strictly positive", 0, over=True),
        Range("repetition_penalty", "`repetition_penalty` must be strictly positive", 0, over=True),
        Range("frequency_penalty", "`frequency_penalty` must be >= -2.0 and <= 2.0", -2, 2),
        Range("top_p", "`top_p` must be > 0.0 and < 1.0", 0, 1, over=True, under=True),
        Range("typical_p", "`typical_p` must be > 0.0 and < 1.0", 0, 1, over=True, under=True),
        Range("top_k", "`top_k` must be strictly positive", 1),
    ),
    {"temperature": 1.0, "do_sample": False},
    {"temperature": (1.0,)},
    {"repetition_penalty": "all", "frequency_penalty": "all"},
)
GPT_FAST = Engine(
    "gpt-fast",
    "0055c42 (read, not run)",
    "generate.py logits_to_probs",
    ("greedy", "temperature", "top_k"),
    frozenset(("temperature", "top_k")),
    "gpt-fast's sample() has no {names}",
    (Range("top_k", "IndexError: torch.topk(logits, {value}) has no k-th value", 1),),
    {"temperature": 0.8, "top_k": 200},
)
ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (TRANSFORMERS, VLLM, SGLANG, LLAMA_CPP, TGI, GPT_FAST)}
