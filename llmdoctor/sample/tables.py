"""The engines as data: one entry for each engine (and version), read from its source. What differs between engines is a field of the entry.

`order` names stages of :mod:`llmdoctor.sample.stages`; a stage runs if its parameter is set to a value that is not one of the engine's
"off" values. To add an engine, list it in NEWEST; entries of earlier releases are in `older_tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.sample import cuts
from llmdoctor.sample.entry import Range, SamplingEngine


def _vllm_reads(values: dict[str, Any]) -> dict[str, Any]:
    """sampling_params.py __post_init__: 0 < T < 0.01 becomes 0.01; T 0 is greedy and clears the cuts."""
    temperature = values.get("temperature")
    if temperature is None or temperature >= 0.01:
        return values
    if temperature > 0:
        return {**values, "temperature": 0.01}
    return {**{name: value for name, value in values.items() if name not in _FILTERS}, "do_sample": False}


def sglang_reads(values: dict[str, Any]) -> dict[str, Any]:
    """sampling_params.py: T < 1e-6 becomes top_k 1 at T 1; top_k 1 takes the argmax."""
    if (temperature := values.get("temperature")) is not None and temperature < 1e-6:
        values = {**values, "temperature": 1.0, "top_k": 1}
    return {**values, "do_sample": False} if values.get("top_k") == 1 else values


def llama_cpp_reads(values: dict[str, Any]) -> dict[str, Any]:
    """llama-sampler.cpp: T <= 0 keeps the largest of what the filters leave."""
    if (temperature := values.get("temperature")) is None or temperature > 0:
        return values
    return {**{name: value for name, value in values.items() if name != "temperature"}, "do_sample": False}


def _gpt_fast_reads(values: dict[str, Any]) -> dict[str, Any]:
    """generate.py logits_to_probs: max(temperature, 1e-5)."""
    temperature = values.get("temperature")
    return values if temperature is None else {**values, "temperature": max(temperature, 1e-5)}


_FILTERS = ("temperature", "top_k", "top_p", "min_p")
_MIN_TOKENS = ("min_tokens", "stop_token_ids")
PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")

TRANSFORMERS = SamplingEngine(
    name="transformers",
    version="5.23.0",
    source="generation/utils.py _get_logits_processor, generation/logits_process.py",
    order=(
        "suppress_tokens",
        "min_tokens",
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
    takes=frozenset(
        (
            *_FILTERS,
            "typical_p",
            "top_h",
            "epsilon_cutoff",
            "eta_cutoff",
            "repetition_penalty",
            "logit_bias",
            "suppress_tokens",
            *_MIN_TOKENS,
        )
    ),
    unknown="ValueError: The following `model_kwargs` are not used by the model: {list}",
    ranges=(
        Range("repetition_penalty", "ValueError: `penalty` has to be a strictly positive float, but is {value}", 0, over=True),
        Range("temperature", "ValueError: `temperature` (={value}) has to be a strictly positive float", 0, over=True),
        Range("top_h", "ValueError: `top_h` must be in the range (0, 1].", 0, 1, over=True),
        Range("top_k", "ValueError: `top_k` has to be a strictly positive integer, but is {value}", 0),
        Range("top_p", "ValueError: `top_p` has to be a float > 0 and < 1, but is {value}", 0),
        Range("min_p", "ValueError: `min_p` has to be a float in the [0, 1] interval, but is {value}", 0, 1),
        Range("typical_p", "ValueError: `typical_p` has to be a float > 0 and < 1, but is {value}", 0, over=True),
    ),
    defaults={"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
    off={"temperature": (1.0,), "top_k": (0,), "repetition_penalty": (1.0,)},
    scope={"repetition_penalty": "all"},
    model_files="generation_config",
    checks_unused=False,
    has_do_sample=True,
)
VLLM = SamplingEngine(
    name="vllm",
    version="0.33.0",
    since=(0, 24),
    read=("0.24.0", "0.25.1", "0.26.0", "0.27.1", "0.33.0"),
    source="sampling_params.py, v1/sample/sampler.py, v1/sample/ops/topk_topp_sampler.py (PyTorch path)",
    order=("min_tokens", "logit_bias", *PENALTIES, "greedy", "temperature", "min_p", "top_k", "top_p"),
    takes=frozenset((*_FILTERS, *PENALTIES, "logit_bias", *_MIN_TOKENS)),
    unknown="TypeError: Unexpected keyword argument {first}",
    ranges=(
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
    defaults={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    off={"top_k": (0, -1), "min_p": (0.0,), "top_p": (1.0,)},
    scope={"repetition_penalty": "all", "frequency_penalty": "output", "presence_penalty": "output"},
    logprobs="raw",
    raw_logprobs="vLLM's --logprobs-mode raw_logprobs (the default)",
    model_files="sampling",
    reads=_vllm_reads,
    bias_limit=100.0,  # sampling_params.py from_optional clamps it
)
SGLANG = SamplingEngine(
    name="sglang",
    version="0.5.23",
    since=(0, 5, 10),
    read=("0.5.10", "0.5.13", "0.5.16", "0.5.19", "0.5.23"),
    source="srt/sampling/sampling_params.py, srt/sampling/penaltylib, srt/layers/sampler.py (pytorch backend)",
    order=("min_tokens", "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "greedy", "temperature", "joint"),
    takes=frozenset((*_FILTERS, *PENALTIES, "logit_bias", *_MIN_TOKENS)),
    unknown="TypeError: Unexpected keyword argument {first}",
    ranges=(
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
    defaults={"temperature": 1.0, "top_k": -1, "top_p": 1.0, "min_p": 0.0},
    off={"top_k": (-1, 2**30), "top_p": (1.0,), "min_p": (0.0,)},
    scope={"repetition_penalty": "output", "frequency_penalty": "output", "presence_penalty": "output"},
    ties="low",
    logprobs="temperature",
    raw_logprobs="SGLANG_RETURN_ORIGINAL_LOGPROB=1",  # srt/layers/sampler.py
    model_files="sampling",
    reads=sglang_reads,
)
LLAMA_CPP = SamplingEngine(
    name="llama.cpp",
    version="0c1e570",
    read=("b8672", "b9873", "b11549"),  # defaults and order, as xllamacpp of these builds gives them
    source="common/common.h common_params_sampling, src/llama-sampler.cpp (default order, without DRY and XTC)",
    order=(
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
    takes=frozenset((*_FILTERS, *PENALTIES, "typical_p", "penalty_last_n", "logit_bias")),
    unknown="llama.cpp has no {names}",
    not_harmless=frozenset({"ignore_eos"}),  # tools/server: a bias of -inf on every token that ends a sequence
    ranges=(),
    defaults={"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "penalty_last_n": 64},
    off={},
    scope={"repetition_penalty": "window", "frequency_penalty": "window", "presence_penalty": "window"},
    ties="low",
    logprobs="raw",  # the server's post_sampling_probs is off
    raw_logprobs="n_probs without post_sampling_probs",
    reads=llama_cpp_reads,
    top_p=cuts.top_p_descending,
    min_p=cuts.min_p_logits,
    typical_p=cuts.typical_exact,
)
TGI = SamplingEngine(
    name="tgi",
    version="00cef24 (read, not run)",
    source="router/src/validation.rs, server/text_generation_server/utils/{tokens,logits_process}.py",
    order=("repetition_penalty", "frequency_penalty", "greedy", "temperature", "top_k", "top_p", "typical_p"),
    takes=frozenset(("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "frequency_penalty")),
    unknown="TGI has no {names}",
    ranges=(
        Range("temperature", "`temperature` must be strictly positive", 0, over=True),
        Range("repetition_penalty", "`repetition_penalty` must be strictly positive", 0, over=True),
        Range("frequency_penalty", "`frequency_penalty` must be >= -2.0 and <= 2.0", -2, 2),
        Range("top_p", "`top_p` must be > 0.0 and < 1.0", 0, 1, over=True, under=True),
        Range("typical_p", "`typical_p` must be > 0.0 and < 1.0", 0, 1, over=True, under=True),
        Range("top_k", "`top_k` must be strictly positive", 1),
    ),
    defaults={"temperature": 1.0, "do_sample": False},
    off={"temperature": (1.0,)},
    scope={"repetition_penalty": "all", "frequency_penalty": "all"},
    has_do_sample=True,
    frequency_by_length=True,
)
GPT_FAST = SamplingEngine(
    name="gpt-fast",
    version="0055c42 (read, not run)",
    source="generate.py logits_to_probs",
    order=("greedy", "temperature", "top_k"),
    takes=frozenset(("temperature", "top_k")),
    unknown="gpt-fast's sample() has no {names}",
    ranges=(Range("top_k", "IndexError: torch.topk(logits, {value}) has no k-th value", 1),),
    defaults={"temperature": 0.8, "top_k": 200},
    reads=_gpt_fast_reads,
)

NEWEST = (TRANSFORMERS, VLLM, SGLANG, LLAMA_CPP, TGI, GPT_FAST)
ENGINES: Mapping[str, SamplingEngine] = {engine.name: engine for engine in NEWEST}
