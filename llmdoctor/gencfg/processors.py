"""What the constructors of the logits processors refuse (generation/logits_process.py, in the order of `_get_logits_processor`).

Each rule evaluates the library's own expression on the same values, so that a wrong type raises what Python raises there.
"""

from __future__ import annotations

from typing import Any

from llmdoctor.gencfg.layers import Fields
from llmdoctor.gencfg.modelconfig import LoadedModel, vocabulary_of, window_of
from llmdoctor.gencfg.raising import Raised, as_python, refuse
from llmdoctor.gencfg.types import GenerateCall
from llmdoctor.gencfg.versions import Minor


def check_processors(fields: Fields, call: GenerateCall, minor: Minor, model: LoadedModel) -> None:
    """The constructors that generate() runs (generation/logits_process.py) and what else raises before the first token."""
    value = fields.value
    _check_bias(value("sequence_bias"), minor)
    _check_penalties(fields, minor)
    _check_ids(fields, minor)
    _check_minimum(fields, minor, model)
    if value("do_sample"):
        _check_warpers(fields, minor)
    _check_sliding_cache(fields, minor, model)
    strings = value("stop_strings")
    tokenizer = call.kwargs.get("tokenizer")
    if minor >= (4, 41) and strings is not None and (tokenizer is None or tokenizer.value is None):
        raise Raised(
            "ValueError",
            "There are one or more stop strings, either in the arguments to `generate` or in the model's generation config, but we could not "
            "locate a tokenizer. When generating with stop strings, you must pass the model's tokenizer to the `tokenizer` argument of `generate`.",
        )


def _check_sliding_cache(fields: Fields, minor: Minor, model: LoadedModel) -> None:
    """4.42 to 4.53: a hybrid cache wants a model with a sliding window (cache_utils.py HybridCache)."""
    name = fields.value("cache_implementation")
    if fields.value("use_cache") is False and minor >= (4, 45):
        return
    if (4, 42) <= minor <= (4, 53) and name == "hybrid" and window_of(model) is None:
        raise Raised(
            "ValueError",
            f"Setting `cache_implementation` to '{name}' requires the model config supporting sliding window attention, please check if there "
            "is a `sliding_window` field in the model config and it's not set to None.",
        )


def _check_penalties(fields: Fields, minor: Minor) -> None:
    value = fields.value
    for name in ("encoder_repetition_penalty", "repetition_penalty"):
        penalty = value(name)
        if penalty is not None and penalty != 1.0:
            refuse(
                lambda penalty=penalty: not isinstance(penalty, float) or not penalty > 0,  # type: ignore[misc]
                f"`penalty` has to be a strictly positive float, but is {penalty}",
            )
    for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):
        size = value(name)
        if size is not None and as_python(lambda size=size: size > 0):  # type: ignore[misc]
            refuse(lambda size=size: not isinstance(size, int), f"`ngram_size` has to be a strictly positive integer, but is {size}")  # type: ignore[misc]
    del minor


def _check_bias(bias: Any, minor: Minor) -> None:
    if bias is None:
        return
    if minor < (4, 45):
        raise Raised("ValueError", f"`sequence_bias` has to be a non-empty dictionary, but is {bias}.")

    def valid(pair: Any) -> bool:
        return (
            isinstance(pair[0], list)
            and all(isinstance(token, int) and token >= (0 if minor >= (5, 18) else 1) for token in pair[0])
            and isinstance(pair[1], float)
        )

    refuse(
        lambda: not isinstance(bias, list) or len(bias) == 0,
        f"`sequence_bias` has to be a non-empty dictionary, or non-empty list of lists but is {bias}.",
    )
    refuse(
        lambda: any(not valid(pair) or len(pair) == 0 for pair in bias),
        f"Each element in `sequence_bias` has to be a non-empty list of lists of positive integers and float, but is {bias}.",
    )


def _check_ids(fields: Fields, minor: Minor) -> None:
    words = fields.value("bad_words_ids")
    if words is not None:
        refuse(lambda: not isinstance(words, list) or len(words) == 0, f"`bad_words_ids` has to be a non-empty list, but is {words}.")
        refuse(lambda: any(not isinstance(word, list) for word in words), f"`bad_words_ids` has to be a list of lists, but is {words}.")
        refuse(
            lambda: any(any(not isinstance(token, int) or token < 0 for token in word) for word in words),
            f"Each list in `bad_words_ids` has to be a list of positive integers, but is {words}.",
        )
    del minor


def _check_minimum(fields: Fields, minor: Minor, model: LoadedModel) -> None:
    """The processors that keep eos away need it inside the vocabulary up to 4.40, and integers everywhere."""
    eos = fields.value("eos_token_id")
    if eos is None:
        return
    shortest, least = fields.value("min_length"), fields.value("min_new_tokens")
    active = False
    for name, count in (("min_length", shortest), ("min_new_tokens", least)):
        if count is not None and as_python(lambda count=count: count > 0):  # type: ignore[misc]
            active = True
            refuse(lambda count=count: not isinstance(count, int), f"`{name}` has to be a non-negative integer, but is {count}")  # type: ignore[misc]
    size = vocabulary_of(model)
    ids = eos if isinstance(eos, list) else [eos]
    if active and minor < (4, 40) and size is not None and any(isinstance(token, int) and token >= size for token in ids):
        raise Raised("IndexError", f"index {max(ids)} is out of bounds for dimension 1 with size {size}")


def _check_warpers(fields: Fields, minor: Minor) -> None:
    value = fields.value
    temperature, top_k, top_p, typical = value("temperature"), value("top_k"), value("top_p"), value("typical_p")
    if temperature is not None and temperature != 1.0:
        refuse(
            lambda: not isinstance(temperature, float) or not temperature > 0,
            f"`temperature` (={temperature}) has to be a strictly positive float, otherwise your next token scores will be invalid.",
        )
    top_h, min_p = value("top_h"), value("min_p")
    if top_h is not None and minor >= (5, 0):
        refuse(lambda: not 0 < top_h <= 1, "`top_h` must be in the range (0, 1].")
    if top_k is not None and top_k != 0:
        refuse(lambda: not isinstance(top_k, int) or top_k <= 0, f"`top_k` has to be a strictly positive integer, but is {top_k}")
    if top_p is not None and as_python(lambda: top_p < 1.0):
        refuse(lambda: top_p < 0 or top_p > 1.0, f"`top_p` has to be a float > 0 and < 1, but is {top_p}")
    if min_p is not None and minor >= (4, 41):
        refuse(lambda: not 0 <= min_p <= 1.0, f"`min_p` has to be a float in the [0, 1] interval, but is {min_p}")
    if typical is not None and as_python(lambda: typical < 1.0):
        refuse(lambda: not (typical > 0 and typical < 1), f"`typical_p` has to be a float > 0 and < 1, but is {typical}")
    for name in ("epsilon_cutoff", "eta_cutoff"):
        cutoff = value(name)
        if cutoff is not None:
            as_python(lambda cutoff=cutoff: 0.0 < cutoff < 1.0)  # type: ignore[misc]
