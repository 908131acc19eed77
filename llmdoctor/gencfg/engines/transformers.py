"""transformers' generate(): the effective config of a call, from GenerationConfig's rules by version (see gencfg/resolve.py)."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.resolve import resolve
from llmdoctor.gencfg.types import Effective, GenerateCall
from llmdoctor.gencfg.versions import known_versions

# The fields that change what generate() decodes, and the values at which they do not.
NEUTRAL = {
    "do_sample": False,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "diversity_penalty": 0.0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "early_stopping": False,
    "min_length": 0,
    "min_new_tokens": 0,
    "stop_strings": [],
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "guidance_scale": 1.0,
}
_ACTS_ON = frozenset(
    (
        *NEUTRAL,
        *("eos_token_id", "max_new_tokens", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id"),
        *("forced_eos_token_id", "sequence_bias", "top_h", "penalty_alpha", "exponential_decay_length_penalty", "watermarking_config"),
    )
)


def _resolve(call: GenerateCall, _: ModelFacts, version: str) -> Effective:
    return resolve(call, version)


def _stop_fix(ids: Sequence[int]) -> str:
    return f"GenerationConfig(..., eos_token_id={list(ids)})"


ENGINE = GenerationEngine(
    name="transformers",
    title="transformers",
    distribution="transformers",
    known=known_versions(),
    evidence="measured",
    source="transformers generation/utils.py _prepare_generation_config, and real calls of 12 versions (conformance/)",
    resolve=_resolve,
    acts_on=_ACTS_ON,
    neutral=NEUTRAL,
    stops="generate() stops at eos_token_id of the effective GenerationConfig, and at stop_strings if a tokenizer is passed.",
    ignores="generate() ignores the tokenizer's eos_token, and config.json's eos_token_id if generation_config.json exists.",
    stop_fix=_stop_fix,
    keeps_assignments=True,
)
