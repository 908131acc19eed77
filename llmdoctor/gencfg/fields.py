"""Names of generation settings: sampling fields with their neutral values, names that are often mistaken, fields of single models."""

from __future__ import annotations

from llmdoctor.gencfg.versions import field_defaults, newest_known, rules_for

# What transformers' GenerationConfig.validate() calls sampling-only flags, and the values that mean "not set" (5.23.0, 4.57.6).
SAMPLING_DEFAULTS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "top_k": 50,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
# Names of other engines and common slips, by the field of transformers that is meant.
_OTHER_NAMES = {
    **dict.fromkeys(("max_tokens", "max_gen_len", "max_gen_toks", "num_predict", "n_predict", "max_output_tokens"), "max_new_tokens"),
    **dict.fromkeys(("repeat_penalty", "rep_penalty"), "repetition_penalty"),
    **dict.fromkeys(("stop", "stop_words", "stop_sequences", "stop_strs"), "stop_strings"),
    **dict.fromkeys(("stop_token_ids", "end_id", "eos_id", "eos_token_ids", "eos_ids", "eos"), "eos_token_id"),
    **dict.fromkeys(("pad_id", "pad"), "pad_token_id"),
    "temp": "temperature",
    "min_tokens": "min_new_tokens",
    "n": "num_return_sequences",
}
# Fields that the generate() of a single model reads from its generation config (transformers 5.23.0, models/*/generation_*.py), by the
# beginning of model_type.
_MODEL_FIELDS = {
    "whisper": "alignment_heads begin_suppress_tokens forced_decoder_ids is_multilingual lang_to_id language max_initial_timestamp_index "
    "no_timestamps_token_id num_segment_frames prev_sot_token_id return_timestamps task task_to_id",
    "bark": "semantic_config coarse_acoustics_config fine_acoustics_config sample_rate codebook_size",
    "musicgen": "audio_channels",
    "seamless": "text_decoder_lang_to_code_id t2u_lang_code_to_id vocoder_lang_code_to_id id_to_text char_to_id",
    "nllb": "forced_bos_token_id",
    "kyutai": "audio_window_size",
    "moshi": "depth_decoder_config",
    "csm": "depth_decoder_eos_token_id depth_decoder_max_length depth_decoder_temperature depth_decoder_do_sample",
    "dia": "guidance_scale",
}


def read_by_a_model(name: str, model_type: object) -> bool:
    """Return whether the generate() of this type of model reads a field that GenerationConfig does not have."""
    kind = model_type if isinstance(model_type, str) else ""
    return any(kind.startswith(prefix) and name in names.split() for prefix, names in _MODEL_FIELDS.items())


def near_field(name: str) -> str | None:
    """Return the field that a misspelt name most likely means; None if none is near."""
    import difflib

    fields = list(field_defaults(rules_for(newest_known())[0]))
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    if plain != name and plain in fields:
        return plain
    return next(iter(difflib.get_close_matches(plain, fields, 1, 0.86)), None)
