"""llama.cpp: stop ids by token text, metadata and build, compared with its own server (conformance/make_llamacpp_rows.py).

Read in the llama.cpp of llama-cpp-python 0.3.36 (commit 0c1e57098): src/llama-vocab.cpp:2688 (end-of-generation tokens), common/common.h:232
(sampling defaults), common/common.cpp:1165 (general.sampling.*), gguf-py/gguf/vocab.py:183 and metadata.py:82 (what the conversion writes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import release
from llmdoctor.gencfg.engines.server import ServerRules, StopSource, config_eos, generation_eos, named_tokens, resolve_server, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall, Json, SourcedValue

KNOWN = ("b6301", "b6751", "b7710", "b8156", "b8672", "b9713", "b10229", "b11063", "b11549")  # rows: tests/gencfg/llamacpp_rows.jsonl
VERSION = KNOWN[-1]
# The tokens that end generation because of their text, by the first of these builds in which they do.
EOG_SINCE = {
    **dict.fromkeys(("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>"), "b6301"),
    **dict.fromkeys(("<|return|>", "<|call|>", "<|end_of_text|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>"), "b6301"),
    **dict.fromkeys(("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"), "b6301"),  # padding, file names and separators of code models
    **dict.fromkeys(("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"), "b6301"),
    **dict.fromkeys(("<|calls|>", "<|flush|>"), "b7710"),
    **dict.fromkeys(("</s>", "[EOS]", "[EOT]", "[PAD]"), "b8156"),
    **dict.fromkeys(("<turn|>", "<|tool_response>"), "b8672"),
    "<eos>": "b9713",
    "[e~[": "b10229",
}
SAMPLING_SINCE = "b9713"  # general.sampling.* of the file are the defaults of every request; in b8672 they were not
_TEXT_IN_GEMMA = "b9713"  # </s> beside <|tool_response> is ordinary text
# The conversion adds these end-of-turn tokens by the architecture (conversion/base.py:2350, chatglm.py:129, glm.py:42, dots3.py:84).
_CONVERTED = {
    **dict.fromkeys(("glm4", "glm4_moe", "glm4v", "glm4v_moe"), ("<|user|>", "<|observation|>")),
    "chatglm": ("<|user|>",),
    "dots3": ("<|endofassistant|>",),
}
PARAMETERS: Mapping[str, tuple[str, Json]] = {
    "max_new_tokens": ("n_predict", None),
    "temperature": ("temperature", 0.8),
    "top_p": ("top_p", 0.95),
    "top_k": ("top_k", 40),
    "min_p": ("min_p", 0.05),
    "repetition_penalty": ("repeat_penalty", 1.0),
    "presence_penalty": ("presence_penalty", 0.0),
    "frequency_penalty": ("frequency_penalty", 0.0),
    "stop_strings": ("stop", None),
    "ignore_eos": ("ignore_eos", False),
    "seed": ("seed", None),
}
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # of general.sampling.*, and of generation_config.json


def eog_texts(version: str) -> tuple[str, ...]:
    """Return the texts of the tokens that end generation in a build, whatever the metadata of the file say."""
    return tuple(text for text, since in EOG_SINCE.items() if release(since) <= release(version))


def texts_of(version: str) -> StopSource:
    """Return a source of the tokens that end generation because of their text: all of them, less those that another token excludes."""
    find = named_tokens(*eog_texts(version))

    def stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
        here = {text for text in eog_texts(version) if facts.id_of is not None and facts.id_of(text) is not None}
        # src/llama-vocab.cpp:2960: in gpt-oss <|end|> ends a message, no answer; :3005: in Gemma 4 </s> is ordinary text.
        dropped = {"<|end|>"} if here & {"<|call|>", "<|calls|>"} and here & {"<|return|>", "<|flush|>"} else set()
        dropped |= {"</s>"} if "<|tool_response>" in here and release(version) >= release(_TEXT_IN_GEMMA) else set()
        without = {facts.id_of(text) for text in dropped} if facts.id_of is not None else set()
        return [found for found in find(call, facts) if found.value not in without]

    return stop_ids


def _of_the_file(version: str) -> StopSource:
    """Return the stop ids of a GGUF file: those of its metadata and those by text."""
    named = texts_of(version)

    def stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
        fill = (call.generation_config or {}).get("fill_in_the_middle_ids")
        return [*generation_eos(call, facts), *named(call, facts), *([] if fill is None else [fill])]

    return stop_ids


def _of_the_conversion(version: str) -> StopSource:
    """Return the stop ids of the GGUF file that convert_hf_to_gguf.py makes of a model directory."""
    named = texts_of(version)

    def stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
        own = [found for found in config_eos(call, facts) if not isinstance(found.value, list)]
        kind = (call.config or {}).get("model_type")
        added = named_tokens(*_CONVERTED.get(kind.value if kind is not None and isinstance(kind.value, str) else "", ()))
        return [*(tokenizer_eos(call, facts) or own), *named(call, facts), *added(call, facts)]

    return stop_ids


def _rules(version: str, *, of_the_file: bool) -> ServerRules:
    return ServerRules(
        name="llama.cpp",
        version=next((known for known in reversed(KNOWN) if release(known) <= release(version)), KNOWN[0]),
        place="llama.cpp common/common.h",
        parameters=PARAMETERS,
        limit="context",
        stop_ids=_of_the_file(version) if of_the_file else _of_the_conversion(version),
        file_defaults=SAMPLING if release(version) >= release(SAMPLING_SINCE) else (),
    )


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    """Return the settings of a request. Raises QuestionError for a version that is no build number."""
    if "." in version:
        raise QuestionError(
            f"--engine llama.cpp@{version}: expected a build number such as {VERSION}, which llama.cpp prints with --version"
        )
    named = version if version.startswith("b") else f"b{version}"
    limits = []
    if not facts.is_gguf:
        limits.append(f"for the GGUF file that the conversion script of {named} makes of this directory")
    elif release(named) < release(SAMPLING_SINCE) and any(name in (call.generation_config or {}) for name in SAMPLING):
        limits.append(f"the file's general.sampling values are defaults in {SAMPLING_SINCE}, and were not in b8672")
    return resolve_server(_rules(named, of_the_file=facts.is_gguf), call, facts, named, tuple(limits))


def _stop_fix(ids: Sequence[int]) -> str:
    """Return how to add an end-of-turn id, the last of `ids`, to a GGUF file (the console script of the package gguf; tried on b11549)."""
    last = ids[-1] if ids else "ID"
    return f'gguf-new-metadata --special-token-by-id eot {last} OLD.gguf NEW.gguf   (pip install gguf), or "stop": [TEXT] in the request'


NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
ENGINE = GenerationEngine(
    name="llama.cpp",
    title="llama.cpp",
    distribution=None,
    known=KNOWN,
    evidence="measured",
    source="llama.cpp builds in xllamacpp, run on files made by conformance/make_llamacpp_rows.py; read: src/llama-vocab.cpp, common/common.h, "
    "gguf-py/gguf/vocab.py, metadata.py",
    resolve=_resolve,
    acts_on=frozenset((*PARAMETERS, "eos_token_id", "do_sample")),
    neutral={**NEUTRAL, "do_sample": False, "ignore_eos": False},
    stops="llama.cpp stops at the eos, eot and eom ids of the GGUF file, at its fill-in-the-middle ids, and at tokens with a known text "
    "(<|im_end|>, <|eot_id|>, <end_of_turn>, </s>, ...).",
    ignores="llama.cpp ignores eos_token_id of generation_config.json: convert_hf_to_gguf.py writes the tokenizer's eos_token into the GGUF file "
    "(config.json's if the tokenizer has none). It also writes temperature, top_k, top_p, min_p and repetition_penalty, which count from b9713.",
    stop_fix=_stop_fix,
    has_own_ends=True,
)
