"""SGLang, 0.3.6 to 0.5.23. Lines are those of 0.5.23.

configs/model_config.py:2190 (ids of the two files) and :2210 (defaults, read by entrypoints/openai/serving_chat.py:416 alone),
managers/schedule_batch.py:1854 (what ends a sequence), sampling/sampling_params.py:149 (max_new_tokens 128),
entrypoints/openai/protocol.py:378 and :1214.

What differs between releases: generation_config.json's eos_token_id counts from 0.4.9.post2 (configs/model_config.py, get_hf_eos_token_id),
config.json's from 0.4.2; before, the tokenizer's eos_token alone ends a sequence (managers/schedule_batch.py, check_finished). Sampling defaults of
generation_config.json count from 0.5.3.post1 (configs/model_config.py, get_default_sampling_params).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmdoctor.core.release import release
from llmdoctor.gencfg.engines.class_eos import class_eos
from llmdoctor.gencfg.engines.server import ServerRules, config_eos, generation_eos, named_tokens, resolve_server, together, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts, ServeOptions
from llmdoctor.gencfg.types import Effective, GenerateCall, SourcedValue

KNOWN = (
    *(
        "0.3.6",
        "0.4.0",
        "0.4.1",
        "0.4.2",
        "0.4.3",
        "0.4.6",
        "0.4.7",
        "0.4.8",
        "0.4.9",
        "0.4.10",
        "0.5.1",
        "0.5.2",
        "0.5.3",
        "0.5.4",
        "0.5.5",
    ),
    *("0.5.6", "0.5.8", "0.5.10", "0.5.12", "0.5.15", "0.5.18", "0.5.20", "0.5.23"),
)
VERSION = KNOWN[-1]
_DEFAULTS = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")  # get_default_sampling_params; --sampling-defaults model


def _config_eos(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
    """Return eos_token_id of the config object: config.json's, or the default of its class if the file has no such key."""
    config = call.config or {}
    return config_eos(call, facts) if "eos_token_id" in config else list(class_eos(config).values())


RULES = ServerRules(
    name="sglang",
    version=VERSION,
    place="sglang/srt/sampling/sampling_params.py",
    parameters={
        "max_new_tokens": ("max_new_tokens", None),
        "min_new_tokens": ("min_new_tokens", 0),
        "temperature": ("temperature", 1.0),
        "top_p": ("top_p", 1.0),
        "top_k": ("top_k", 0),
        "min_p": ("min_p", 0.0),
        "repetition_penalty": ("repetition_penalty", 1.0),
        "frequency_penalty": ("frequency_penalty", 0.0),
        "presence_penalty": ("presence_penalty", 0.0),
        "num_return_sequences": ("n", 1),
        "stop_strings": ("stop", None),
        "ignore_eos": ("ignore_eos", False),
        "seed": ("sampling_seed", None),
    },
    limit="context",
    stop_ids=together(_config_eos, generation_eos, tokenizer_eos, named_tokens("<|eom_id|>")),
    file_defaults=_DEFAULTS,
    unlimited="a chat request without max_tokens may fill the context (/generate and Engine.generate() end after 128 tokens, /v1/completions after 16)",
)


def rules_at(version: str) -> ServerRules:
    """Return the rules of one release."""
    numbers, post = release(version), int(version.partition(".post")[2] or 0)
    known = next((each for each in reversed(KNOWN) if release(each) <= numbers), KNOWN[0])
    stop_ids, defaults = RULES.stop_ids, RULES.file_defaults
    if (*numbers, post) < (0, 5, 3, 1):
        defaults = ()
    if (*numbers, post) < (0, 4, 9, 2):
        stop_ids = together(_config_eos, tokenizer_eos, named_tokens("<|eom_id|>"))
    if numbers < (0, 4, 2):
        stop_ids = together(tokenizer_eos, named_tokens("<|eom_id|>"))
    return replace(RULES, version=known, stop_ids=stop_ids, file_defaults=defaults)


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    return resolve_server(rules_at(version), call, facts, version)


def _stop_fix(ids: Sequence[int]) -> str:
    return f'"stop_token_ids": {list(ids)}   in the sampling_params of the request'


ENGINE = GenerationEngine(
    name="sglang",
    title="SGLang",
    distribution="sglang",
    known=KNOWN,
    evidence="measured",
    source="sglang 0.3.6 to 0.5.23: get_hf_eos_token_id of six releases was run (conformance/make_engine_rows.py); read: srt/configs/model_config.py, "
    "srt/managers/schedule_batch.py, srt/entrypoints/openai/protocol.py",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={**{name: default for name, (_, default) in RULES.parameters.items()}, "do_sample": False, "max_new_tokens": None},
    stops="SGLang stops at eos_token_id of config.json and of generation_config.json, at the tokenizer's eos_token, at <|eom_id|> if the "
    "tokenizer has it, and at stop_token_ids and stop of the request. A request that is sent as token ids to a server without a tokenizer "
    "has only the ids of the two files and its own.",
    ignores="SGLang ignores do_sample, stop_strings, suppress_tokens and the limits of generation_config.json; only its chat endpoint takes "
    "sampling defaults from that file.",
    stop_fix=_stop_fix,
    has_own_ends=True,
    file_defaults=_DEFAULTS,
    serve=tuple(
        ServeOptions(
            words=words,
            model="--model-path",
            tokenizer="--tokenizer-path",
            defaults="--sampling-defaults",
            own_defaults="openai",
            context="--context-length",
        )
        for words in (("-m", "sglang.launch_server"), ("sglang", "serve"))
    ),
)
