"""What generate() refuses in its later steps: the mode of decoding, the cache it needs, and the values that processors compute with.

Read in generation/utils.py (`generate`, `_get_logits_processor`), logits_process.py and configuration_utils.py (`get_generation_mode`), and
held against real runs by conformance/conform.py.
"""

from __future__ import annotations

from typing import Any

from llmdoctor.core.text import is_id
from llmdoctor.gencfg.layers import Fields, derived
from llmdoctor.gencfg.modelconfig import LoadedModel, config_value, has_window, vocabulary_of, window_of
from llmdoctor.gencfg.raising import Raised, as_python
from llmdoctor.gencfg.types import GenerateCall
from llmdoctor.gencfg.versions import Minor

_NO_CACHE = "assisted generate requires `use_cache=True`"


def check_modes(fields: Fields, call: GenerateCall, minor: Minor, model: LoadedModel) -> None:
    """Raise what the decoding itself would raise. Raises Raised."""
    _check_healing(fields, call, minor)
    beams = fields.value("num_beams")
    if _given(call, "streamer") and isinstance(beams, int) and beams > 1:
        raise Raised("ValueError", "`streamer` cannot be used with beam search (yet!). Make sure that `num_beams` is set to 1.")
    _check_cache_classes(fields, minor, model)
    mode = _mode(fields)
    _check_mode(fields, call, minor, mode)
    _check_assisted(fields, minor, mode, model)
    _check_beam_count(fields, minor, mode)
    _check_values(fields, minor)
    alone = config_value(model, "is_encoder_decoder") is True and "decoder_input_ids" not in call.kwargs
    alone = alone or (call.prompt_known and call.prompt_length == 1)
    _check_tokens(fields, minor, vocabulary_of(model), starts_alone=alone)
    given = next((name for name in ("cache", "past_key_values") if _given(call, name)), None)
    if minor >= (4, 41) and fields.value("cache_implementation") is not None and given is not None:
        name = "cache" if minor >= (5, 24) else given
        raise Raised("ValueError", f"Passing both `cache_implementation` (used to initialize certain caches) and `{name}` (a Cache object)")


def _mode(fields: Fields) -> str:
    """GenerationConfig.get_generation_mode(), without the modes that extend another."""
    value = fields.value
    if value("constraints") is not None or value("force_words_ids") is not None:
        return "constrained"
    if value("num_beams") == 1:
        if value("do_sample") is not False:
            return "sample"
        top_k, alpha = value("top_k"), value("penalty_alpha")
        contrastive = top_k is not None and as_python(lambda: top_k > 1) and alpha is not None and as_python(lambda: alpha > 0)
        return "contrastive" if contrastive else "greedy"
    groups = value("num_beam_groups")
    return "groups" if groups is not None and as_python(lambda: groups > 1) else "beams"


def _check_mode(fields: Fields, call: GenerateCall, minor: Minor, mode: str) -> None:
    """Modes that moved to the Hub (from 4.56), and what they wanted before."""
    value = fields.value
    dola = value("dola_layers") is not None and minor >= (4, 42) and mode in ("greedy", "sample")
    moved = mode == "contrastive" or dola if minor < (4, 57) else mode in ("contrastive", "constrained", "groups") or dola
    if minor >= (4, 56) and moved:
        trusted = call.kwargs.get("trust_remote_code")
        if trusted is None or not trusted.value:
            raise Raised(
                "ValueError",
                "This mode of decoding requires `trust_remote_code=True` in your `generate` call, since it loads from the Hub.",
            )
        return
    if minor >= (4, 57):
        return
    if mode == "contrastive" and not value("use_cache"):
        raise Raised("ValueError", "Contrastive search requires `use_cache=True`")
    layers = value("dola_layers")
    if dola and not (layers in ("low", "high") or isinstance(layers, list)):
        raise Raised("ValueError", "dola_layers must be either 'low', 'high' or a list of integers.")
    if layers is not None and not dola and (4, 42) <= minor < (4, 52):
        raise Raised("ValueError", "You've set `dola_layers`, which triggers DoLa generate: only supported with Greedy Search and Sample.")
    if mode == "constrained":
        _check_constrained(fields)
    penalty = value("diversity_penalty")
    if penalty is not None and as_python(lambda: penalty > 0.0):
        for name in ("num_beams", "num_beam_groups"):
            if not isinstance(value(name), int) or value(name) < 2:
                raise Raised("ValueError", f"`{name}` should be an integer strictly larger than 1.")


def _check_constrained(fields: Fields) -> None:
    words = fields.value("force_words_ids")
    if words == []:
        raise Raised(
            "ValueError",
            "`force_words_ids` has to either be a `List[List[List[int]]]` or `List[List[int]]` of positive integers, but is [].",
        )
    if isinstance(words, list) and not isinstance(words[0], list):
        kind = "ValueError" if isinstance(words[0], str) else "TypeError"
        raise Raised(kind, f"`force_words_ids` has to be a list of lists of positive integers, but is {words}.")
    if words is None and fields.value("constraints") == []:
        raise Raised("ValueError", "max() arg is an empty sequence")
    if fields.value("num_beams") == 1:
        raise Raised("ValueError", "`num_beams` has to be an integer strictly greater than 1, but is 1.")


def _check_assisted(fields: Fields, minor: Minor, mode: str, model: LoadedModel) -> None:
    """Prompt lookup and early exit (generate(): assisted generation)."""
    number = fields.value("prompt_lookup_num_tokens")
    if minor >= (4, 45) and fields.value("is_assistant"):
        raise Raised("TypeError", "'NoneType' object is not subscriptable")
    if minor >= (5, 14) and fields.value("use_mtp") and config_value(model, "num_mtp_layers") is None:
        raise Raised("ValueError", "Could not find `num_mtp_layers` in the model config. This model probably has no associated mtp weights")
    if number is None:
        return
    if mode not in ("greedy", "sample"):
        if minor < (4, 52):
            raise Raised(
                "ValueError",
                "You've set `assistant_model`, which triggers assisted generate: only supported with Greedy Search and Sample.",
            )
        return
    if fields.value("num_return_sequences") not in (None, 1):
        raise Raised(
            "ValueError", f"num_return_sequences has to be 1 when doing assisted generate, but is {fields.value('num_return_sequences')}."
        )
    if not fields.value("use_cache"):
        kind, text = ("RuntimeError", "Assisted decoding requires a cache") if minor >= (5, 24) else ("ValueError", _NO_CACHE)
        raise Raised(kind, text)
    if (5, 1) <= minor < (5, 18):
        fields.put("cache_implementation", derived("dynamic_full", "generate(): assisted decoding rolls its cache back"))
    elif fields.value("cache_implementation") is not None and (4, 57) <= minor < (5, 1):
        fields.put("cache_implementation", derived(None, "generate() uses a dynamic cache for assisted decoding"))
    elif fields.value("cache_implementation") in ("static", "hybrid", "sliding_window") and (4, 41) <= minor < (5, 24):
        raise Raised("ValueError", "assisted generate is not supported with Static cache classes`")
    if as_python(lambda: number <= 0):
        raise Raised("ValueError", "Invalid max_matching_ngram_size or num_output_tokens")


def _check_beam_count(fields: Fields, minor: Minor, mode: str) -> None:
    """num_beams up to 4.49 (BeamSearchScorer), and later (_expand_inputs_for_generation); num_return_sequences=0 when sampling."""
    beams, count = fields.value("num_beams"), fields.value("num_return_sequences")
    if beams is None or isinstance(beams, str | list | dict) or (count is None and minor >= (5, 0)):
        raise Raised("TypeError", "'>' not supported between instances of 'int' and 'NoneType'")
    if mode == "beams" and beams != 1 and (isinstance(beams, float) or beams < 1):
        if minor < (4, 50):
            raise Raised("ValueError", f"`num_beams` has to be an integer strictly greater than 1, but is {beams}.")
        kind = "TypeError" if isinstance(beams, float) else "ZeroDivisionError" if beams == 0 else "RuntimeError"
        raise Raised(kind, f"num_beams is {beams}")
    penalty = fields.value("length_penalty")
    if mode not in ("sample", "greedy") and isinstance(penalty, str):
        raise Raised("TypeError", "unsupported operand type(s) for ** or pow(): 'int' and 'str'")
    if mode == "sample" and count == 0 and minor < (4, 56):
        raise Raised("IndexError" if (4, 44) <= minor < (4, 52) else "RuntimeError", "cannot work with 0 sequences")
    if isinstance(count, float) and count > beams:
        raise Raised("TypeError", "repeat_interleave() received an invalid combination of arguments")


def _check_healing(fields: Fields, call: GenerateCall, minor: Minor) -> None:
    tokenizer = call.kwargs.get("tokenizer")
    if minor >= (4, 42) and fields.value("token_healing") and (tokenizer is None or tokenizer.value is None):
        raise Raised(
            "ValueError",
            "When generating with token healing, you must pass the model's tokenizer to the `tokenizer` argument of `generate`.",
        )


def _check_cache_classes(fields: Fields, minor: Minor, model: LoadedModel) -> None:
    """Caches that want something of the model (cache_utils.py)."""
    name = fields.value("cache_implementation")
    if fields.value("use_cache") is False and minor >= (4, 44):
        return
    if name == "mamba" and (4, 43) <= minor < (4, 54):
        raise Raised("AttributeError" if minor < (4, 45) else "TypeError", "MambaCache does not fit this model's configuration")
    if name == "hybrid" and (4, 42) <= minor < (4, 54) and window_of(model) is None:
        raise Raised(
            "ValueError", "Setting `cache_implementation` to 'sliding_window' requires the model config supporting sliding window attention"
        )
    if name == "sliding_window" and (4, 42) <= minor < (4, 56) and not has_window(model):
        raise Raised("AttributeError", "the model's configuration has no attribute 'sliding_window'")


def _check_values(fields: Fields, minor: Minor) -> None:
    """Values of a type that a processor cannot compute with."""
    value = fields.value
    guidance, seconds, decay = value("guidance_scale"), value("max_time"), value("exponential_decay_length_penalty")
    if isinstance(guidance, str | list | dict):
        raise Raised("TypeError", "only integer tensors of a single element can be converted to an index")
    if isinstance(seconds, str | list | dict):
        raise Raised("TypeError", "'>' not supported between instances of 'float' and 'str'")
    if value("do_sample") and isinstance(value("top_k"), bool) and value("top_k"):
        raise Raised("TypeError", "topk(): argument 'k' (position 2) must be int, not bool")
    if isinstance(decay, str):
        raise Raised("TypeError", 'can only concatenate str (not "int") to str')
    if isinstance(decay, list) and len(decay) < 2:
        raise Raised("IndexError", "list index out of range")
    eos = value("eos_token_id")
    if (
        isinstance(decay, list)
        and minor >= (4, 41)
        and any(isinstance(token, int) and token < 0 for token in (eos if isinstance(eos, list) else [eos]))
    ):
        raise Raised("ValueError", f"`eos_token_id` has to be a list of positive integers, but is {eos}")
    if decay is not None and value("eos_token_id") is None:
        raise Raised("TypeError" if minor < (4, 41) else "RuntimeError", "Could not infer dtype of NoneType")


def _given(call: GenerateCall, name: str) -> bool:
    return name in call.kwargs and call.kwargs[name].value is not None


def _check_tokens(fields: Fields, minor: Minor, size: int | None, *, starts_alone: bool) -> None:
    """Lists of ids that processors make tensors of, and ids outside the vocabulary of `size`.

    `starts_alone` is true for an encoder-decoder, whose decoder begins with one token, and for a prompt of one token: only then
    forced_bos_token_id surely acts.
    """
    value = fields.value
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        tokens = value(name)
        if tokens is not None:
            as_python(lambda tokens=tokens: list(tokens))  # type: ignore[misc]
            if isinstance(tokens, str):
                raise Raised("TypeError" if minor < (4, 40) else "ValueError", "too many dimensions 'str'")
            if minor < (4, 40) and size is not None and any(isinstance(token, int) and token >= size for token in tokens):
                raise Raised("IndexError", f"index {max(tokens)} is out of bounds for dimension 0 with size {size}")
    forced = value("forced_eos_token_id")
    if isinstance(forced, str):
        raise Raised("TypeError", "new(): invalid data type 'str'")
    if minor >= (4, 41) and any(isinstance(token, int) and token < 0 for token in (forced if isinstance(forced, list) else [forced])):
        raise Raised("ValueError", f"`eos_token_id` has to be a list of positive integers, but is {forced}")
    beyond = [token for token in (forced if isinstance(forced, list) else [forced]) if size is not None and is_id(token) and token >= size]
    if beyond:
        raise Raised(
            "IndexError",
            f"index {beyond[0]} is out of bounds for dimension 1 with size {size}, at the last token before the limit, "
            "unless every sequence ends earlier",
        )
    first = value("forced_bos_token_id")
    if starts_alone and size is not None and is_id(first) and first >= size:
        raise Raised("IndexError", f"index {first} is out of bounds for dimension 1 with size {size}, at the first token")
    if value("forced_decoder_ids") is not None and (4, 45) <= minor < (4, 53):
        raise Raised("ValueError", "You have explicitly specified `forced_decoder_ids`. Please remove the `forced_decoder_ids` argument.")
    eos = value("eos_token_id")
    words = [word for word in value("bad_words_ids") or [] if word not in [[token] for token in (eos if isinstance(eos, list) else [eos])]]
    pairs: list[Any] = value("sequence_bias") if isinstance(value("sequence_bias"), list) else []
    for sequence in (*words, *(pair[0] for pair in pairs)):
        if sequence == [] and minor < (5, 23):
            raise Raised("IndexError", "tuple index out of range")
        if size is not None and any(token >= size for token in sequence):
            raise Raised("ValueError", f"The model vocabulary size is {size}, but the following tokens were being biased: {sequence}")
