"""The engines as earlier releases order their stages, each entry with what it changes in the one after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmdoctor.sample import cuts
from llmdoctor.sample.entry import Range
from llmdoctor.sample.tables import LLAMA_CPP, PENALTIES, SGLANG, VLLM, llama_cpp_reads, sglang_reads


def _with(ranges: Sequence[Range], changed: Range) -> tuple[Range, ...]:
    """Return `ranges` with the range of one option changed."""
    return tuple(changed if one.option == changed.option else one for one in ranges)


def _sglang_reads_unpenalised(values: dict[str, Any]) -> dict[str, Any]:
    """As above; repetition_penalty is accepted, and no penalizer reads it."""
    return sglang_reads({name: value for name, value in values.items() if name != "repetition_penalty"})


def _ollama_reads(values: dict[str, Any]) -> dict[str, Any]:
    """samplers.go: temperature 0 or less is greedy; penalties are not read."""
    return llama_cpp_reads({name: value for name, value in values.items() if name not in PENALTIES})


_NO_HOTTEST = "temperature must be non-negative, got {value}."
VLLM_HOT = replace(
    VLLM,
    version="0.23.0 (read, not run)",
    since=(0, 9),
    read=("0.9.2", "0.10.0", "0.10.2", "0.11.2", "0.13.0", "0.16.0", "0.18.1", "0.20.2", "0.22.1", "0.23.0"),
    ranges=_with(VLLM.ranges, Range("temperature", f"ValueError: {_NO_HOTTEST}", 0)),
)
VLLM_V1 = replace(
    VLLM_HOT,
    version="0.8.5 (read, not run)",
    since=(0, 8),
    read=("0.8.5",),
    ranges=_with(VLLM_HOT.ranges, Range("top_k", "ValueError: top_k must be -1 (disable), or at least 1, got {value}.", 1, also=(-1,))),
)
VLLM_V0 = replace(
    VLLM_V1,
    version="0.7.3 (V0 engine, read, not run)",
    since=(),
    read=("0.7.3",),
    source="model_executor/layers/sampler.py (V0): penalties, temperature, top_k and top_p, min_p",
    order=("min_tokens", "logit_bias", *PENALTIES, "greedy", "temperature", "top_k", "top_p", "min_p"),
    logprobs="processed",
)
# verify() accepts 0 <= repetition_penalty <= 2
_SGLANG_LOOSE = _with(SGLANG.ranges, Range("repetition_penalty", "ValueError: repetition_penalty must be in [0, 2], got {value}.", 0, 2))
SGLANG_UNPENALISED = replace(
    SGLANG,
    version="0.5.9 (read, not run)",
    since=(0, 4, 8),
    read=("0.4.8", "0.4.9", "0.4.10", "0.5.1", "0.5.2", "0.5.3", "0.5.5", "0.5.8", "0.5.9"),
    source="srt/sampling/penaltylib: no repetition penalizer; srt/layers/sampler.py: log-probabilities after the temperature",
    ranges=_SGLANG_LOOSE,
    reads=_sglang_reads_unpenalised,
)
SGLANG_UNBIASED = replace(
    SGLANG_UNPENALISED, version="0.4.7 (read, not run)", since=(0, 4, 7), read=("0.4.7",), takes=SGLANG.takes - {"logit_bias"}
)
SGLANG_TOP_P = replace(
    SGLANG_UNBIASED,
    version="0.4.6 (read, not run)",
    since=(0, 4, 4),
    read=("0.4.4", "0.4.5", "0.4.6"),
    source="srt/layers/sampler.py top_p_normalize_probs_torch: log-probabilities after temperature and top_p",
    logprobs="processed",
    unlisted=("top_k", "min_p"),
    raw_logprobs="SGLang 0.5 with SGLANG_RETURN_ORIGINAL_LOGPROB=1",
)
SGLANG_PROMPT = replace(
    SGLANG_TOP_P,
    version="0.4.3 (read, not run)",
    since=(0, 4, 2),
    read=("0.4.2", "0.4.3"),
    source="srt/sampling/penaltylib/penalizers/repetition_penalty.py _cumulate_input_tokens: the prompt counts",
    scope={"repetition_penalty": "all", "frequency_penalty": "output", "presence_penalty": "output"},
    reads=sglang_reads,
)
SGLANG_RAW = replace(
    SGLANG_PROMPT,
    version="0.4.1 (read, not run)",
    since=(),
    read=("0.3.0", "0.3.6", "0.4.0", "0.4.1"),
    source="srt/layers/logits_processor.py: log_softmax before the temperature",
    logprobs="raw",
    unlisted=(),
)
_OLLAMA_DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
OLLAMA_LLAMA_CPP = replace(
    LLAMA_CPP,
    name="ollama",
    version="0117cd8 (read, not run)",
    source="llama.cpp's sampler, for the models that Ollama runs with llama.cpp",
    defaults={**_OLLAMA_DEFAULTS, "repetition_penalty": 1.1},
)
OLLAMA = replace(
    OLLAMA_LLAMA_CPP,
    source="Ollama's own sampler (sample/samplers.go); its top_k comes before the temperature, which changes nothing",
    order=("greedy", "temperature", "top_k", "top_p", "min_p"),
    defaults=_OLLAMA_DEFAULTS,
    scope={},
    reads=_ollama_reads,
    top_p=cuts.top_p_ascending,
    min_p=cuts.min_p_probs,
    other_orders=(OLLAMA_LLAMA_CPP,),
)

# Of one engine the newest version first.
OLDER = (VLLM_HOT, VLLM_V1, VLLM_V0, SGLANG_UNPENALISED, SGLANG_UNBIASED, SGLANG_TOP_P, SGLANG_PROMPT, SGLANG_RAW, OLLAMA)
