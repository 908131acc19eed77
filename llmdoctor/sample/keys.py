"""The keys of claims and requests: which are settings, which cannot change what is drawn, which can and are not modelled here.

Read from transformers 5.23.0 (GenerationConfig), vLLM 0.33.0 (sampling_params.py, openai protocol), SGLang 0.5.23 (sampling_params.py), llama.cpp's
server README and OpenAI's reference.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import is_id
from llmdoctor.sample.types import SamplingParams

ALIASES = {
    "temp": "temperature",
    "typ_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
    "min_new_tokens": "min_tokens",
}
_NESTED = ("generation_config", "extra_body", "sampling_params", "parameters", "options", "generation_settings", "generation_kwargs")
_SETTINGS = frozenset(
    {setting.name for setting in fields(SamplingParams)} | {"engine", "num_beams", "length_penalty", "suppress_tokens", "stop_token_ids"}
)
_UNMODELLED = frozenset(
    "begin_suppress_tokens no_repeat_ngram_size encoder_repetition_penalty encoder_no_repeat_ngram_size bad_words_ids "
    "min_length forced_bos_token_id forced_eos_token_id exponential_decay_length_penalty sequence_bias "
    "guidance_scale watermarking_config diversity_penalty num_beam_groups penalty_alpha dola_layers force_words_ids constraints "
    "bad_words allowed_token_ids logits_processors logits_processor custom_logit_processor custom_params response_format structured_outputs "
    "guided_json guided_regex guided_choice guided_grammar guided_decoding regex json_schema ebnf structural_tag grammar "
    "xtc_probability xtc_threshold mirostat dry_multiplier dynatemp_range top_n_sigma adaptive_target samplers "
    "top_a tfs_z watermark smoothing_factor use_beam_search penalty_prompt format top_p_min top_p_reset_ids top_p_decay "
    "beam_search_diversity_rate beam_width_array embedding_bias apply_batched_logits_processor assistant_ensemble "
    "thinking_token_budget thinking_budget logprob_token_ids".split()
)
_HARMLESS = frozenset(
    "model messages prompt prompt_ids prompt_token_ids input input_ids inputs text tools tool_choice parallel_tool_calls functions function_call "
    "max_tokens max_new_tokens max_completion_tokens max_output_tokens max_length n_predict truncate truncate_prompt_tokens n best_of "
    "num_return_sequences stream stream_options stop stop_strings stop_regex stop_sequences include_stop_str_in_output ignore_eos "
    "logprobs top_logprobs prompt_logprobs return_logprob logprob_start_len top_logprobs_num n_probs post_sampling_probs top_n_tokens details "
    "decoder_input_details echo seed sampling_seed user metadata store service_tier id request_id custom_id method url kind note comment "
    "eos_token_id pad_token_id bos_token_id decoder_start_token_id use_cache cache_implementation cache_config return_legacy_cache "
    "return_dict_in_generate output_attentions output_hidden_states output_scores output_logits renormalize_logits remove_invalid_values "
    "early_stopping max_time use_model_defaults transformers_version _from_model_config _commit_hash cache_prompt id_slot "
    "n_keep n_discard n_indent min_keep t_max_predict_ms timings_per_token return_tokens lora samplers_order ignore dry_base "
    "dry_allowed_length dry_penalty_last_n dry_sequence_breakers mirostat_tau mirostat_eta dynatemp_exponent adaptive_decay "
    "skip_special_tokens spaces_between_special_tokens "
    "detokenize add_special_tokens add_generation_prompt continue_final_message chat_template chat_template_kwargs documents reasoning "
    "reasoning_effort reasoning_format priority return_tokens_as_token_ids return_token_ids return_full_text mm_processor_kwargs vllm_xargs "
    "attention_mask pixel_values image_grid_thw streamer synced_gpus assistant_model prompt_lookup_num_tokens num_assistant_tokens "
    "num_assistant_tokens_schedule assistant_confidence_threshold assistant_early_exit assistant_lookbehind target_lookbehind is_assistant "
    "max_matching_ngram_size low_memory prefill_chunk_size compile_config disable_compile token_healing trust_remote_code "
    "backend_sampling flat_logprobs extra_args repetition_detection return_hidden_states object created "
    "type name max_sequence_length timeout extra_headers extra_query api_key base_url api_base organization session_id tags "
    "num_retries drop_params custom_llm_provider stop_text speculative_config draft_model tokens_predicted tokens_evaluated "
    "verbosity modalities audio prediction prompt_cache_key safety_identifier web_search_options output_kind all_stop_token_ids "
    "skip_clone suffix instructions previous_response_id truncation include background conversation "
    "kv_transfer_params cache_salt media_io_kwargs data_parallel_rank truncation_side prompt_embeds stop_reason bot "
    "reasoning_in_content generation_prompt thinking_forced_open chat_format grammar_lazy grammar_triggers preserved_tokens "
    "t_max_prompt_ms n_ctx n_vocab return_progress response_fields penalize_nl input_prefix image_data n_cmpl sampling_seq "
    "message_spans no_stop_trim stream_interval token_ids_logprob return_text_in_logprobs rid lora_path session_params adapter_id "
    "num_ctx num_predict num_keep num_gpu num_thread main_gpu use_mmap keep_alive raw think num_batch low_vram f16_kv numa end_id "
    "pad_id return_log_probs return_context_logits return_generation_logits exclude_input_from_output lookahead_config "
    "additional_model_outputs apply_chat_template random_seed is_encoder_decoder cache_position".split()
)
_LLAMA_CPP_ORDER = ("penalties", "dry", "top_n_sigma", "top_k", "tfs_z", "typical_p", "top_p", "min_p", "xtc", "temperature")
_OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
_ALSO_OFF: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("guidance_scale", "encoder_repetition_penalty", "num_beam_groups"), (1, 1.0)),
    "top_n_sigma": (-1, -1.0),
    "adaptive_target": (-1, -1.0),
    "xtc_threshold": (0.1,),
    "tfs_z": (1, 1.0),
    "response_format": ({"type": "text"},),
}


@dataclass(slots=True)
class ClaimKeys:
    """The keys of a claim, sorted: settings, the ids that end a sequence, what is on and not modelled, what is unknown, what cannot change the draws
    (`ignored`, with the reason; `harmless` are those of them that are on)."""

    settings: dict[str, Any] = field(default_factory=dict)
    eos: tuple[int, ...] = ()
    unmodelled: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    harmless: set[str] = field(default_factory=set)
    ignored: dict[str, str] = field(default_factory=dict)


def read_keys(value: Mapping[str, Any], source: str, without: Collection[str] = ()) -> ClaimKeys:
    """Return a claim's keys, sorted. Nested sampling_params and the like are unfolded first; the outer ones win. `without` are left out.

    Raises QuestionError for a key that is a misspelt setting: read as absent it would be another claim.
    """
    keys = ClaimKeys()
    for key in _NESTED:
        inner = value.get(key)
        if isinstance(inner, dict) and key not in without:
            deeper = read_keys(inner, source, without)
            keys.settings |= deeper.settings
            keys.eos = deeper.eos or keys.eos
            keys.unmodelled += deeper.unmodelled
            keys.unknown += deeper.unknown
            keys.ignored |= deeper.ignored
            keys.harmless |= deeper.harmless
    for key, item in value.items():
        if key in without:
            keys.ignored[str(key)] = "left out, as --without states"
        elif not (key in _NESTED and isinstance(item, dict)):
            _sort_key(keys, str(key), item, source)
    keys.unmodelled += [name for name in _constrained(value) if name not in without]
    return keys


def changes_no_draw(key: str) -> bool:
    """Return whether a key is known, and cannot change which tokens can be drawn."""
    return key in _HARMLESS


def _constrained(request: Mapping[str, Any]) -> list[str]:
    """Keys that make a request's answers other than plain draws: the best of several, a call of a function that a grammar holds to its form."""
    found = []
    best, count = request.get("best_of"), request.get("n") or 1
    if type(best) is int and type(count) is int and best > count:
        found.append("best_of")
    found += [name for name in ("tool_choice", "function_call") if (choice := request.get(name)) == "required" or isinstance(choice, dict)]
    tools = request.get("tools")
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    if any(isinstance(function, dict) and function.get("strict") is True for function in functions):
        found.append("tools")
    return found


def _sort_key(keys: ClaimKeys, key: str, item: Any, source: str) -> None:
    name = ALIASES.get(key, key)
    if item is None:
        keys.ignored.setdefault(key[:40], "null: the same as not set")
    elif name in _SETTINGS:
        keys.settings[name] = item
    elif name == "eos_token_id":
        keys.eos = ids_of(item)
    elif name == "bad_words_ids" and _single_tokens(item):
        keys.settings["suppress_tokens"] = [*keys.settings.get("suppress_tokens", []), *(word[0] for word in item)]
    elif name in _UNMODELLED:
        if any(item == off for off in (*_OFF, *_ALSO_OFF.get(name, ()))) or (name == "samplers" and _usual_order(item)):
            keys.ignored[name] = "off"
        else:
            keys.unmodelled.append(name)
    elif name in _HARMLESS or name.startswith("speculative"):
        keys.ignored[key] = "cannot change which tokens can be drawn"
        if item not in _OFF:
            keys.harmless.add(name)
    else:
        meant = difflib.get_close_matches(name, sorted(_SETTINGS), 1, 0.85)
        if meant:
            raise QuestionError(f"{source}: {key[:40]}: no such setting, did you mean {meant[0]}?")
        keys.unknown.append(key[:40])


def _usual_order(samplers: Any) -> bool:
    """Whether llama.cpp's samplers are applied in its default order; servers of different age list different ones besides."""
    names = [ALIASES.get(name, name) for name in samplers if isinstance(name, str)] if isinstance(samplers, list) else []
    return [name for name in names if name in _LLAMA_CPP_ORDER] == [name for name in _LLAMA_CPP_ORDER if name in names] and {
        "top_k",
        "top_p",
        "min_p",
        "temperature",
    } <= set(names)


def _single_tokens(words: Any) -> bool:
    """Whether bad words are one token each: those are never drawn, longer ones depend on the tokens before."""
    return isinstance(words, list) and all(isinstance(word, list) and len(word) == 1 and is_id(word[0]) for word in words)


def ids_of(value: Any) -> tuple[int, ...]:
    """Return the token ids of an eos_token_id: one, or a list of them; anything else has none."""
    found = value if isinstance(value, list) else [value]
    return tuple(token for token in found if is_id(token) and 0 <= token < 2**31)
