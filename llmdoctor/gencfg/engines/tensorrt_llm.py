"""TensorRT-LLM's LLM API: read in tensorrt_llm/sampling_params.py (SamplingParams._setup)."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.gencfg.engines.server import ServerRules, resolve_server, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall

VERSION = "1.0.0"
RULES = ServerRules(
    name="tensorrt-llm",
    version=VERSION,
    place="tensorrt_llm/sampling_params.py",
    parameters={
        "max_new_tokens": ("max_tokens", 32),
        "min_new_tokens": ("min_tokens", 0),
        "temperature": ("temperature", 1.0),
        "top_p": ("top_p", 1.0),
        "top_k": ("top_k", 0),
        "min_p": ("min_p", 0.0),
        "repetition_penalty": ("repetition_penalty", 1.0),
        "presence_penalty": ("presence_penalty", 0.0),
        "frequency_penalty": ("frequency_penalty", 0.0),
        "num_return_sequences": ("n", 1),
        "stop_strings": ("stop", None),
        "ignore_eos": ("ignore_eos", False),
        "seed": ("seed", None),
    },
    limit=32,
    stop_ids=tokenizer_eos,
)


def _resolve(call: GenerateCall, facts: ModelFacts, _version: str) -> Effective:
    return resolve_server(RULES, call, facts)


def _stop_fix(ids: Sequence[int]) -> str:
    return f"SamplingParams(end_id={ids[0] if ids else None}, stop_token_ids={list(ids[1:])})"


ENGINE = GenerationEngine(
    name="tensorrt-llm",
    title="TensorRT-LLM",
    distribution="tensorrt_llm",
    known=(VERSION,),
    evidence="read",
    source="NVIDIA/TensorRT-LLM tensorrt_llm/sampling_params.py, commit 000a01de",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={**{name: default for name, (_, default) in RULES.parameters.items()}, "do_sample": False, "max_new_tokens": None},
    stops="TensorRT-LLM stops at end_id of SamplingParams, the tokenizer's eos_token by default, and at stop_token_ids and stop.",
    ignores="TensorRT-LLM ignores generation_config.json and eos_token_id of config.json.",
    stop_fix=_stop_fix,
)
