"""What transformers refuses or warns about: GenerationConfig.validate() and the making of special tokens, by version.

Each rule evaluates the library's own expression on the same values, so that a wrong type raises what Python raises there.
"""

from __future__ import annotations

from typing import Any

from llmdoctor.gencfg.layers import Fields, derived
from llmdoctor.gencfg.modelconfig import LoadedModel, config_value
from llmdoctor.gencfg.raising import Raised, Warnings, as_python, refuse
from llmdoctor.gencfg.versions import Minor, cache_implementations

# (field, value that means "not set") in the order of GenerationConfig.validate().
SAMPLING_FLAGS: tuple[tuple[str, Any], ...] = (
    ("temperature", 1.0),
    ("top_p", 1.0),
    ("min_p", None),
    ("top_h", None),
    ("typical_p", 1.0),
    ("top_k", 50),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
)
BEAM_FLAGS: tuple[tuple[str, Any], ...] = (("early_stopping", False), ("length_penalty", 1.0))
GENERATE_ONLY = (
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "synced_gpus",
    "assistant_model",
    "streamer",
    "negative_prompt_ids",
    "negative_prompt_attention_mask",
)


def check_config(fields: Fields, minor: Minor, warnings: Warnings, *, loading: bool = False) -> None:
    """GenerationConfig.validate() (generation/configuration_utils.py).

    `loading` is for a config that GenerationConfig.__init__ has just made. Raises Raised where the library raises.
    """
    value = fields.value
    stopping = {True, False, "never"} | ({None} if minor >= (5, 0) else set())
    refuse(
        lambda: value("early_stopping") not in stopping, f"`early_stopping` must be a boolean or 'never', but is {value('early_stopping')}."
    )
    if minor >= (4, 38) and value("max_new_tokens") is not None:
        refuse(lambda: value("max_new_tokens") <= 0, f"`max_new_tokens` must be greater than 0, but is {value('max_new_tokens')}.")
    weight = value("assistant_ensemble_weight")
    if weight is not None and minor >= (5, 14):
        refuse(lambda: not 0.0 < weight < 1.0, f"`assistant_ensemble_weight` must be in the open interval `(0.0, 1.0)`, but is {weight}.")
    issues: list[str] = []
    if minor >= (4, 41) and value("pad_token_id") is not None and as_python(lambda: value("pad_token_id") < 0):
        issues.append("pad_token_id")
    if minor < (4, 52) and value("num_beams") is None:
        fields.put("num_beams", derived(1, "GenerationConfig.validate(): num_beams None means 1"))
    _check_cache(fields, minor, loading=loading)
    _check_watermark(fields, minor)
    issues += _ignored_flags(fields, minor)
    _check_beams(fields, minor)
    _check_returned(fields, minor)
    if minor >= (5, 17):
        _check_forced(fields)
    for name in (*GENERATE_ONLY, *(("use_model_defaults",) if (4, 52) <= minor < (5, 0) else ())):
        if name in fields:
            message = f"Argument `{name}` is not a valid argument of `GenerationConfig`. It should be passed to `generate()` directly."
            raise Raised("ValueError", message)
    if issues:
        warnings.log(f"The following generation flags are not valid and may be ignored: {issues}.")


def _check_cache(fields: Fields, minor: Minor, *, loading: bool) -> None:
    given = fields.value("cache_config")
    if (4, 54) <= minor < (4, 56) and loading and given is not None and not isinstance(given, dict):
        raise Raised("AttributeError", f"'{type(given).__name__}' object has no attribute 'to_dict'")
    if loading and (4, 45) <= minor < (4, 49) and fields.value("cache_implementation") == "static" and given is None:
        raise Raised("TypeError", "StaticCacheConfig.__init__() missing 2 required positional arguments: 'batch_size' and 'max_cache_len'")
    wanting = ("quantized", "static") if minor >= (4, 45) else ("quantized",)
    name, known = fields.value("cache_implementation"), cache_implementations(minor)
    allowed = (*known, "paged") if minor >= (5, 0) else known
    if name is not None and known:
        refuse(lambda: name not in allowed, f"Invalid `cache_implementation` ({name}). Choose one of: {allowed}")
    if (4, 42) <= minor < (4, 54) and given is not None and name not in wanting:
        raise Raised(
            "ValueError", f"You provided a `cache_config` but the cache implementation you are using ({name}) does not require any config."
        )
    compile_config = fields.value("compile_config")
    nulled = "compile_config" in fields and fields["compile_config"].origin.layer != "library-default" and (4, 47) <= minor < (4, 52)
    if (compile_config is not None or nulled) and minor >= (4, 47):
        kind = type(compile_config)
        raise Raised(
            "ValueError", f"You provided `compile_config` as an instance of {kind}, but it must be an instance of `CompileConfig`."
        )


def _ignored_flags(fields: Fields, minor: Minor) -> list[str]:
    """Return the flags that the mode of decoding does not read; transformers warns and goes on."""
    ignored = []
    greedy = fields.value("do_sample") is False or (minor >= (5, 0) and not fields.value("do_sample"))
    if greedy and (minor < (5, 0) or fields.value("do_sample") is False):
        ignored += [name for name, off in SAMPLING_FLAGS if name in fields and fields.value(name) is not None and fields.value(name) != off]
    beams = fields.value("num_beams")
    if beams == 1 or (minor >= (5, 0) and beams is None):
        for name, off in BEAM_FLAGS:
            if fields.value(name) is not None and fields.value(name) != off:
                ignored.append(name)
    return ignored


def _check_beams(fields: Fields, minor: Minor) -> None:
    """Constrained and group beam search, as long as the library had them."""
    value = fields.value
    if minor >= (4, 57) or value("num_beams") in (1, None):
        return
    constrained = value("constraints") is not None or value("force_words_ids") is not None
    if constrained and minor >= (4, 39):
        refuse(lambda: value("do_sample") is True, "one of `constraints`, `force_words_ids` is not `None`, and `do_sample` is True.")
        groups = value("num_beam_groups")
        refuse(
            lambda: groups is not None and groups != 1,
            "one of `constraints`, `force_words_ids` is not `None`, and `num_beam_groups` is not 1.",
        )
        if minor >= (4, 52):
            return
    if as_python(lambda: value("diversity_penalty") != 0.0 or value("num_beam_groups") != 1):
        prefix = "`diversity_penalty` is not 0.0 or `num_beam_groups` is not 1, triggering group beam search. "
        refuse(lambda: value("do_sample") is True, prefix + "`do_sample` must be set to `False`")
        refuse(lambda: value("num_beams") % value("num_beam_groups") != 0, prefix + "`num_beams` should be divisible by `num_beam_groups`")
        refuse(lambda: value("diversity_penalty") == 0.0, prefix + "`diversity_penalty` should be greater than `0.0`")


def _check_returned(fields: Fields, minor: Minor) -> None:
    count, beams = fields.value("num_return_sequences"), fields.value("num_beams")
    if minor >= (5, 0):
        wanted = count is not None and as_python(lambda: count > 1)
        greedy = not fields.value("do_sample")
    else:
        wanted = count != 1
        greedy = fields.value("do_sample") is False
    if not wanted:
        return
    if beams == 1 or (beams is None and minor >= (5, 0)):
        if greedy:
            message = f"Greedy methods without beam search do not support `num_return_sequences` different than 1 (got {count})."
            raise Raised("ValueError", message)
    else:
        refuse(lambda: count > beams, f"`num_return_sequences` ({count}) has to be smaller or equal to `num_beams` ({beams}).")


def _check_forced(fields: Fields) -> None:
    suppressed = fields.value("suppress_tokens")
    if suppressed is None:
        return
    as_python(lambda: set(suppressed))
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = fields.value(name)
        if forced is not None:
            _refuse_forced(name, forced, suppressed)


def _refuse_forced(name: str, forced: Any, suppressed: Any) -> None:
    tokens = as_python(lambda: {forced} if isinstance(forced, int) else set(forced))
    if tokens and as_python(lambda: tokens.issubset(set(suppressed))):
        raise Raised("ValueError", f"Every token in `{name}` ({sorted(tokens)}) is also in `suppress_tokens`.")


def check_special_tokens(fields: Fields, minor: Minor, warnings: Warnings, model: LoadedModel) -> None:
    """_prepare_special_tokens: eos and pad become tensors of int64, and what torch refuses is refused here."""
    eos = fields.value("eos_token_id")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if minor >= (4, 41):
            _tensor(fields.value(name))
    if minor < (4, 41):
        _old_tokens(fields, minor)
    encoder_decoder = config_value(model, "is_encoder_decoder") is True
    start = [fields.value("decoder_start_token_id"), fields.value("bos_token_id")]
    if minor < (4, 42):  # _get_decoder_start_token_id falls back to the model's
        start += [model.fields.value("decoder_start_token_id"), model.fields.value("bos_token_id")]
    if encoder_decoder and all(token is None for token in start):
        message = "`decoder_start_token_id` or `bos_token_id` has to be defined for encoder-decoder generation."
        raise Raised("ValueError", message)
    if fields.value("pad_token_id") is None and eos not in (None, []):
        first = eos[0] if isinstance(eos, list) else eos
        if minor < (5, 13):  # from then on silent for a single sequence (generation/utils.py, _prepare_special_tokens)
            warnings.log(f"Setting `pad_token_id` to `eos_token_id`:{first} for open-end generation.")
    elif fields.value("pad_token_id") is None and eos == []:
        raise Raised(
            "IndexError", "index 0 is out of bounds for dimension 0 with size 0" if minor >= (4, 41) else "list index out of range"
        )
    ids = eos if isinstance(eos, list) else [eos]
    if minor >= (4, 41) and any(isinstance(token, int) and token < 0 for token in ids):
        warnings.log(
            f"`eos_token_id` should consist of positive integers, but is {ids}. "
            "Your generation will not stop until the maximum length is reached."
        )


def _tensor(value: Any) -> None:
    """torch.tensor(value, dtype=torch.long)."""
    if value is None:
        return
    flat = value if isinstance(value, list) else [value]
    for entry in flat:
        if isinstance(entry, str):
            kind = "TypeError" if isinstance(value, str) else "ValueError"
            raise Raised(kind, "new(): invalid data type 'str'" if kind == "TypeError" else "too many dimensions 'str'")
        if entry is None or isinstance(entry, dict):
            raise Raised("TypeError", f"'{type(entry).__name__}' object cannot be interpreted as an integer")
        if isinstance(entry, list) != isinstance(flat[0], list):
            raise Raised("TypeError", "not a sequence")
        if isinstance(entry, float) and not abs(entry) < 2**63:
            raise Raised("RuntimeError", "value cannot be converted to type int64 without overflow")
        if isinstance(entry, int) and not -(2**63) <= entry < 2**63:
            raise Raised("ValueError", "Overflow when unpacking long long")


def _old_tokens(fields: Fields, minor: Minor) -> None:
    """Up to 4.40 eos and pad stay Python values until the loop makes a tensor of eos and compares."""
    eos, pad = fields.value("eos_token_id"), fields.value("pad_token_id")
    if isinstance(pad, str | list | dict) or (pad is None and isinstance(eos, list) and eos and isinstance(eos[0], list)):
        raise Raised("TypeError", "sum(): argument 'input' (position 1) must be Tensor, not bool")
    flat = eos if isinstance(eos, list) else [eos]
    if isinstance(eos, float):
        if any(fields.value(name) for name in ("min_length", "min_new_tokens")):
            raise Raised("TypeError", "'float' object is not iterable")
        if minor < (4, 40):
            raise Raised("IndexError", "tuple index out of range")
    for entry in flat:
        if isinstance(entry, str):
            raise Raised("ValueError" if isinstance(eos, list) else "TypeError", "too many dimensions 'str'")
        if isinstance(entry, dict) or (entry is None and isinstance(eos, list)):
            raise Raised("RuntimeError", f"Could not infer dtype of {type(entry).__name__}")
        if isinstance(entry, list) != isinstance(flat[0], list):
            raise Raised("TypeError", "'list' object cannot be interpreted as an integer")
        if isinstance(entry, bool) and minor >= (4, 40):
            raise Raised("RuntimeError", "Unsupported input type encountered for isin(): Bool")
        if isinstance(entry, int) and not -(2**63) <= entry < 2**63:
            raise Raised("ValueError", "Overflow when unpacking long long")


def _check_watermark(fields: Fields, minor: Minor) -> None:
    """watermarking_config becomes a WatermarkingConfig, from 4.57 to 5.15 only where GenerationConfig.__init__ sees it."""
    given = fields.value("watermarking_config")
    if given is None or minor < (4, 41):
        return
    raw = fields["watermarking_config"].origin.layer in ("kwargs", "mutation")
    if (raw and (4, 57) <= minor < (5, 16)) or (not isinstance(given, dict) and minor >= (5, 0)):
        raise Raised("AttributeError", f"'{type(given).__name__}' object has no attribute 'validate'")
    if not isinstance(given, dict):
        raise Raised("TypeError", "WatermarkingConfig() argument after ** must be a mapping")
    known = ("greenlist_ratio", "bias", "hashing_key", "seeding_scheme", "context_width")
    if any(name not in known for name in given):
        raise Raised("TypeError", "WatermarkingConfig.__init__() got an unexpected keyword argument")
    ratio, width = given.get("greenlist_ratio", 0.25), given.get("context_width", 1)
    refuse(
        lambda: given.get("seeding_scheme", "lefthash") not in ("selfhash", "lefthash"), "`seeding_scheme` must be selfhash or lefthash."
    )
    refuse(lambda: not 0.0 <= ratio <= 1.0, f"`greenlist_ratio` should be in range between 0.0 and 1.0, but is {ratio}.")
    refuse(lambda: not width >= 1, f"`context_width` should be a positive integer, but is {width}.")
