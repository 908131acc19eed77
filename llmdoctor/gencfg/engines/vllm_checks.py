"""vLLM's checks of a request's sampling parameters, and the context length that it takes from config.json. Lines are those of 0.33.0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmdoctor.gencfg.engines.vllm_releases import VllmRelease, vllm_release
from llmdoctor.gencfg.types import GenerateCall, Origin, SourcedValue

NEWEST_RELEASE = vllm_release()
EPSILON, LOWEST_TEMPERATURE = 1e-5, 1e-2  # sampling_params.py:32 _SAMPLING_EPS, :33 _MAX_TEMP
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
# Rotary scalings whose factor max_position_embeddings already contains (config/model.py:2613).
_SCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def refusal(values: Mapping[str, Any], release: VllmRelease = NEWEST_RELEASE) -> str | None:
    """SamplingParams._verify_args and _verify_greedy_sampling (sampling_params.py:634, :769), in their order: the message, or None."""
    temperature = values["temperature"]
    if 0 < temperature < LOWEST_TEMPERATURE:
        temperature = LOWEST_TEMPERATURE
    return (
        _verify_count(values["num_return_sequences"], release)
        or _verify_penalties(values)
        or _verify_warpers(values, temperature, release)
        or _verify_lengths(values)
        or (f"n must be 1 when using greedy sampling, got {values['num_return_sequences']}." if _many_greedy(values, temperature) else None)
    )


def _many_greedy(values: Mapping[str, Any], temperature: float) -> bool:
    return bool(temperature < EPSILON and values["num_return_sequences"] > 1)


def _verify_count(n: Any, release: VllmRelease) -> str | None:
    if not isinstance(n, int):
        return f"n must be an int, but is of type {type(n)}"
    if release.most_sequences is not None and n > release.most_sequences:
        more = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        return f"n must be at most {release.most_sequences}, got {n}. {more}"
    return f"n must be at least 1, got {n}." if n < 1 else None


def _verify_penalties(values: Mapping[str, Any]) -> str | None:
    for name in ("presence_penalty", "frequency_penalty"):
        if not -2.0 <= values[name] <= 2.0:
            return f"{name} must be in [-2, 2], got {values[name]}."
    penalty = values["repetition_penalty"]
    if not math.isfinite(penalty):
        return f"repetition_penalty must be a finite number, got {penalty}."
    return f"repetition_penalty must be greater than zero, got {penalty}." if penalty <= 0.0 else None


def _verify_warpers(values: Mapping[str, Any], temperature: float, release: VllmRelease) -> str | None:
    checks = (
        (not math.isfinite(temperature), f"temperature must be a finite number, got {temperature}."),
        (temperature < 0.0, f"temperature must be non-negative, got {temperature}."),
        (release.hottest is not None and temperature > release.hottest, f"temperature must be in [0, 2], got {temperature}."),
        (not 0.0 < values["top_p"] <= 1.0, f"top_p must be in (0, 1], got {values['top_p']}."),
        (values["top_k"] < -1, f"top_k must be 0 (disable), or at least 1, got {values['top_k']}."),
        (not isinstance(values["top_k"], int), f"top_k must be an integer, got {type(values['top_k']).__name__}"),
        (not 0.0 <= values["min_p"] <= 1.0, f"min_p must be in [0, 1], got {values['min_p']}."),
    )
    return next((message for wrong, message in checks if wrong), None)


def _verify_lengths(values: Mapping[str, Any]) -> str | None:
    most, least = values["max_new_tokens"], values["min_new_tokens"]
    if most is not None and most < 1:
        return f"max_tokens must be at least 1, got {most}."
    if least < 0:
        return f"min_tokens must be greater than or equal to 0, got {least}."
    if most is not None and least > most:
        return f"min_tokens must be less than or equal to max_tokens={most}, got {least}."
    stop = values["stop_strings"]
    strings = [stop] if isinstance(stop, str) else stop or []
    return "stop cannot contain an empty string." if any(not string for string in strings) else None


def model_length(call: GenerateCall) -> int | None:
    """Return max_model_len as vLLM derives it from config.json (config/model.py:2545); None if config.json does not give it."""
    config = call.config or {}
    text, origin = text_config(config)
    if origin is None:
        text = {name: setting.value for name, setting in config.items()}
    lengths = [text[key] for key in _LENGTHS if _is_length(text.get(key))]
    if _is_length(text.get("model_max_length")):
        lengths = [text["model_max_length"]]
    if not lengths:
        return None
    rope = text.get("rope_scaling") or text.get("rope_parameters") or plain(config, "rope_scaling") or {}
    rope = rope if isinstance(rope, Mapping) else {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind in ("longrope", "su") and _is_length(text.get("original_max_position_embeddings")):
        return int(text["original_max_position_embeddings"])
    factor = rope.get("factor", 1.0)
    if kind in _SCALED or not isinstance(factor, int | float) or not 0 < factor < 1e6 or "gemma3" in str(plain(config, "model_type")):
        factor = 1.0
    return int(min(lengths) * factor)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def text_config(config: Mapping[str, SourcedValue]) -> tuple[Mapping[str, Any], Origin | None]:
    """Return the language model's object inside config.json, and its origin; ({}, None) if there is none."""
    for name in _TEXT_CONFIGS:
        if name in config and isinstance(config[name].value, Mapping) and config[name].value:
            return config[name].value, config[name].origin
    return {}, None


def plain(config: Mapping[str, SourcedValue] | None, name: str) -> Any:
    return config[name].value if config and name in config else None
