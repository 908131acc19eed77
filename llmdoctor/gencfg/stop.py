"""What ends decoding: the eos ids compared with, the limit, and whether any eos can come out at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmdoctor.gencfg.layers import Fields
from llmdoctor.gencfg.model import Call, Stop
from llmdoctor.gencfg.modelconfig import LoadedModel, config_value, vocabulary_of
from llmdoctor.gencfg.versions import Minor

FORBIDDING_BIAS = -50.0  # e**-50 of a probability: less than one in 10**21


def stop_of(fields: Fields, call: Call, minor: Minor, model: LoadedModel) -> Stop:
    """The stop of a call whose fields are final. Never raises: what is no token id is left out."""
    eos = eos_ids(fields.value("eos_token_id"))
    pad = fields.value("pad_token_id")
    if pad is None and eos:
        pad = eos[0]
    limit = _limit(fields, call, model)
    because = _why_never(fields, eos, limit, minor, model)
    return Stop(eos, pad if is_id(pad) else None, limit, because is not None, because)


def eos_ids(value: Any) -> tuple[int, ...]:
    """The ids that torch makes of eos_token_id: an int, a list of ints, floats cut to ints."""
    values = value if isinstance(value, list) else [value]
    return tuple(int(entry) for entry in values if is_id(entry) or (isinstance(entry, float) and abs(entry) < 2**62))


def is_id(value: Any) -> bool:
    """Whether `value` is an int, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _limit(fields: Fields, call: Call, model: LoadedModel) -> int | None:
    length = fields.value("max_length")
    prompt = 1 if config_value(model, "is_encoder_decoder") is True else call.prompt_length
    return max(length - prompt, 0) if is_id(length) else None


def _why_never(fields: Fields, eos: tuple[int, ...], limit: int | None, minor: Minor, model: LoadedModel) -> str | None:
    """Why no token ends a sequence, as a clause; None where one can."""
    del minor
    if not eos:
        if fields.value("stop_strings"):
            return None
        return "there is no eos_token_id" if fields.value("eos_token_id") is None else "eos_token_id is empty"
    size = vocabulary_of(model)
    reachable = [token for token in eos if token >= 0 and (size is None or token < size)]
    if not reachable:
        outside = "negative" if max(eos) < 0 else f"outside the vocabulary of {size}"
        return f"every eos_token_id is {outside}"
    suppressed = _ids(fields.value("suppress_tokens"))
    if all(token in suppressed for token in reachable):
        return "suppress_tokens holds every eos_token_id"
    forbidden = _biased(fields.value("sequence_bias"))
    if all(token in forbidden or token in suppressed for token in reachable):
        return "sequence_bias makes every eos_token_id impossible"
    least = fields.value("min_new_tokens")
    if is_id(least) and limit is not None and least >= limit:
        return f"min_new_tokens ({least}) is not below the limit of {limit} new tokens"
    shortest, longest = fields.value("min_length"), fields.value("max_length")
    if is_id(shortest) and is_id(longest) and shortest >= longest:
        return f"min_length ({shortest}) is not below max_length ({longest})"
    return None


def _ids(value: Any) -> set[int]:
    return {entry for entry in value if is_id(entry)} if isinstance(value, list) else set()


def _biased(value: Any) -> set[int]:
    """The single tokens that sequence_bias ([[ids], bias] pairs) all but forbids."""
    pairs: Iterable[Any] = value if isinstance(value, list) else ()
    found = set()
    for pair in pairs:
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], list) and len(pair[0]) == 1:
            token, bias = pair[0][0], pair[1]
            if is_id(token) and isinstance(bias, int | float) and bias <= FORBIDDING_BIAS:
                found.add(token)
    return found
