"""TensorRT-LLM's LLM API: read in tensorrt_llm/sampling_params.py (SamplingParams._setup)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmdoctor.core.release import release
from llmdoctor.gencfg.engines.server import ServerRules, generation_eos, resolve_server, together, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall

_OLD, VERSION = "1.0.0", "1.3.0"
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
    stop_ids=together(tokenizer_eos, generation_eos),
    unlimited="LLM.generate() without temperature, top_k and top_p is greedy",
)
OLD_RULES = replace(RULES, version=_OLD, stop_ids=tokenizer_eos)


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    """Return the settings; the release that first took the ids of generation_config.json (pull request 10389, January 2026) is not known exactly."""
    if release(version) >= release(VERSION):
        return resolve_server(RULES, call, facts, version)
    if release(version) < (1, 2, 0) or not generation_eos(call, facts):
        return resolve_server(OLD_RULES, call, facts, version)
    doubt = f"whether {version} also stops at eos_token_id of generation_config.json was not verified (added in January 2026)"
    return resolve_server(OLD_RULES, call, facts, version, (doubt,))


def _stop_fix(ids: Sequence[int]) -> str:
    return f"SamplingParams(end_id={ids[0] if ids else None}, stop_token_ids={list(ids[1:])})"


ENGINE = GenerationEngine(
    name="tensorrt-llm",
    title="TensorRT-LLM",
    distribution="tensorrt_llm",
    known=(_OLD, VERSION),
    evidence="read",
    source="NVIDIA/TensorRT-LLM tensorrt_llm/sampling_params.py, commit 000a01de; the ids of generation_config.json: the title of pull request 10389",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={**{name: default for name, (_, default) in RULES.parameters.items()}, "do_sample": False, "max_new_tokens": None},
    stops="TensorRT-LLM stops at end_id of SamplingParams, the tokenizer's eos_token by default, at stop_token_ids and stop, and from 1.3 "
    "at eos_token_id of generation_config.json.",
    ignores="TensorRT-LLM ignores every other field of generation_config.json, and eos_token_id of config.json.",
    stop_fix=_stop_fix,
)
