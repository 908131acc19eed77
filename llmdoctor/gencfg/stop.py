"""What ends decoding: the eos ids compared with, the limit, and whether any eos can come out at all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from llmdoctor.core.text import is_id
from llmdoctor.gencfg.layers import Fields
from llmdoctor.gencfg.modelconfig import LoadedModel, config_value, vocabulary_of
from llmdoctor.gencfg.types import GenerateCall, Stop
from llmdoctor.gencfg.versions import Minor

FORBIDDING_BIAS = -50.0  # e**-50 of a probability: less than one in 10**21


def stop_of(fields: Fields, call: GenerateCall, minor: Minor, model: LoadedModel) -> Stop:
    """Return what ends a call whose fields are final. Never raises: values that are not token ids are left out."""
    eos = eos_ids(fields.value("eos_token_id"))
    pad = fields.value("pad_token_id")
    if pad is None and eos:
        pad = eos[0]
    limit = _limit(fields, call, minor, model)
    because = _why_never(fields=fields, call=call, eos=eos, limit=limit, minor=minor, model=model)
    return Stop(eos, _pad(pad), limit, because is not None, because)


def eos_ids(value: Any) -> tuple[int, ...]:
    """The ids that torch makes of eos_token_id: an int, a list of ints, of lists; floats are cut, True is 1."""
    if isinstance(value, list):
        return tuple(token for entry in value for token in eos_ids(entry))
    whole = isinstance(value, int) or (isinstance(value, float) and abs(value) < 2**62)
    return (int(value),) if whole else ()


def _pad(value: Any) -> int | None:
    """The id that torch makes of pad_token_id."""
    ids = eos_ids(value)
    return ids[0] if ids else None


def _limit(fields: Fields, call: GenerateCall, minor: Minor, model: LoadedModel) -> int | None:
    length = fields.value("max_length")
    prompt = 1 if config_value(model, "is_encoder_decoder") is True else call.prompt_length
    least = 1 if minor < (4, 38) else 0  # 4.37 lets a prompt of max_length pass, and decodes a token before it looks
    whole = math.ceil(length) if isinstance(length, int | float) and abs(length) < 2**53 else None
    return None if whole is None else max(whole - prompt, least)


def _why_never(fields: Fields, call: GenerateCall, eos: tuple[int, ...], limit: int | None, minor: Minor, model: LoadedModel) -> str | None:
    """Return why no token ends a sequence, as a clause; None if one can."""
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
    if minor < (4, 41) and call.user_config is not None and fields["eos_token_id"].origin.layer not in ("user-config", "kwargs"):
        return None  # the minimum's processors were made before the loop took the model's eos
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
