"""Keyword arguments of generate() that GenerationConfig does not have, by version."""

from __future__ import annotations

from collections.abc import Mapping

from llmdoctor.gencfg.raising import Raised
from llmdoctor.gencfg.types import SourcedValue
from llmdoctor.gencfg.versions import Minor

# Arguments of generate() itself, and of a causal language model's forward(): never "not used by the model".
GENERATE_ARGUMENTS = frozenset(
    "inputs generation_config logits_processor stopping_criteria prefix_allowed_tokens_fn synced_gpus assistant_model streamer "
    "negative_prompt_ids negative_prompt_attention_mask".split()
)
FORWARD_ARGUMENTS = frozenset(
    "input_ids attention_mask position_ids past_key_values inputs_embeds labels use_cache output_attentions output_hidden_states "
    "cache_position pixel_values image_grid_thw video_grid_thw pixel_values_videos second_per_grid_ts rope_deltas image_sizes "
    "token_type_ids decoder_input_ids decoder_attention_mask encoder_outputs mm_token_type_ids".split()
)
_SINCE = {
    "tokenizer": (4, 41),
    "assistant_tokenizer": (4, 46),
    "custom_generate": (4, 52),
    "trust_remote_code": (4, 53),
    "logits_to_keep": (4, 49),
    "cache": (5, 24),  # past_key_values until then; the old name still works
}
# Arguments of Llama's forward() for a time; from 4.57 the names in TransformersKwargs are known to every model.
_BETWEEN = {
    "return_dict": ((0, 0), (4, 51)),
    "num_logits_to_keep": ((4, 45), (4, 49)),
    "output_router_logits": ((4, 57), (99, 0)),
    "num_items_in_batch": ((4, 57), (99, 0)),
}


def unused_arguments(rest: Mapping[str, SourcedValue], minor: Minor) -> None:
    """Raise as generate() does if neither the config nor the model has a keyword argument (_validate_model_kwargs)."""
    known = GENERATE_ARGUMENTS | FORWARD_ARGUMENTS | {name for name, since in _SINCE.items() if minor >= since}
    known |= {name for name, (since, until) in _BETWEEN.items() if since <= minor < until}
    unused = [name for name, setting in rest.items() if name not in known and setting.value is not None]
    if (4, 46) <= minor < (4, 51) and "return_dict" in rest and rest["return_dict"].value is not None:
        raise Raised("TypeError", "forward() got multiple values for keyword argument 'return_dict'")
    if unused:
        raise Raised(
            "ValueError",
            f"The following `model_kwargs` are not used by the model: {unused} "
            "(note: typos in the generate arguments will also show up in this list)",
        )


# Arguments whose effect is not modelled, and what they could change of the answer.
_UNMODELLED = {
    "inputs_embeds": "inputs_embeds is not modelled: without input_ids max_length is lowered by the number of embeddings (generation/utils.py)",
    "assistant_model": "assistant_model is not modelled: assisted decoding refuses a batch, and a static cache from 4.45 to 5.23",
    "cache": "cache is not modelled: a cache that is too short fails during decoding",
    "past_key_values": "past_key_values is not modelled: a cache that is too short fails during decoding",
    "decoder_input_ids": "decoder_input_ids is not modelled: max_length counts them",
    "encoder_outputs": "encoder_outputs is not modelled",
    "stopping_criteria": "stopping_criteria is not modelled: it can end a sequence earlier",
    "logits_processor": "logits_processor is not modelled: it can forbid or force the end of a sequence",
    "prefix_allowed_tokens_fn": "prefix_allowed_tokens_fn is not modelled: it can forbid the end of a sequence",
    "custom_generate": "custom_generate is not modelled: its code replaces the decoding loop",
}


def unmodelled_arguments(kwargs: Mapping[str, SourcedValue]) -> list[str]:
    """Return a clause for the verdict for each argument of generate() whose effect is not modelled."""
    return [clause for name, clause in _UNMODELLED.items() if name in kwargs and kwargs[name].value is not None]
