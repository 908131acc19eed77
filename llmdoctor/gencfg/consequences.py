"""The effect of a difference in one field on the output, as a clause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmdoctor.gencfg.types import Effective

Consequence = Callable[[Any, Any], str]


def consequence(field: str, left: Effective, right: Effective) -> str:
    """Return the effect on the output if `field` has the value of `right` and not that of `left`."""
    one, other = _value(left, field), _value(right, field)
    if field == "eos_token_id":
        return _eos(left, right)
    if field in ("max_new_tokens", "max_length"):
        return _length(left, right)
    if field in _SAMPLING and not _samples(left) and not _samples(right):
        return "no effect: neither side samples"
    effect = _EFFECTS.get(field)
    return effect(one, other) if effect is not None else "the two calls are configured differently"


def _value(effective: Effective, field: str) -> Any:
    resolved = effective.fields.get(field)
    return None if resolved is None else resolved.value


def _samples(effective: Effective) -> bool:
    return bool(_value(effective, "do_sample"))


def _eos(left: Effective, right: Effective) -> str:
    for name, side in (("right", right), ("left", left)):
        if side.stop.unknown is not None:
            return f"unknown for the {name}: {side.stop.unknown}"
    if right.stop.never_stops and not left.stop.never_stops:
        return f"the right runs to {_limit(right)}"
    if left.stop.never_stops and not right.stop.never_stops:
        return f"the left runs to {_limit(left)}"
    if left.stop.never_stops:
        return "neither side stops"
    lost = [str(token) for token in left.stop.eos_token_id if token not in right.stop.eos_token_id]
    gained = [str(token) for token in right.stop.eos_token_id if token not in left.stop.eos_token_id]
    parts = [f"the right runs past {', '.join(lost)}"] if lost else []
    parts += [f"the left runs past {', '.join(gained)}"] if gained else []
    return "; ".join(parts) or "both stop at the same tokens"


def _limit(effective: Effective) -> str:
    return "no limit" if effective.stop.limit is None else f"{effective.stop.limit} tokens"


def _temperature(left: Any, right: Any) -> str:
    if _number(left) and _number(right):
        side = "right" if right < left else "left"
        low = min(left, right)
        return f"the {side} is sharper{', close to greedy' if low < 0.1 else ''}"
    return "the distributions differ"


def _top_k(left: Any, right: Any) -> str:
    return f"the left draws from {_kept(left)}, the right from {_kept(right)}"


def _kept(k: Any) -> str:
    return f"the {int(k)} most likely tokens" if _number(k) and k > 0 else "all tokens"


def _top_p(left: Any, right: Any) -> str:
    if _number(left) and _number(right):
        return f"the {'right' if right < left else 'left'} cuts the tail at {min(left, right):g} of the mass"
    return "one side cuts the tail"


def _do_sample(_left: Any, right: Any) -> str:
    return "the right samples, the left is greedy" if right else "the left samples, the right is greedy"


def _length(left: Effective, right: Effective) -> str:
    if left.stop.limit == right.stop.limit:
        return "the same limit in the end"
    return f"the left ends after {_limit(left)} at the latest, the right after {_limit(right)}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _always(text: str) -> Consequence:
    return lambda _left, _right: text


_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")
_EFFECTS: dict[str, Consequence] = {
    "temperature": _temperature,
    "top_k": _top_k,
    "top_p": _top_p,
    "do_sample": _do_sample,
    "min_new_tokens": _always("the shorter answers of one side are forbidden on the other"),
    "min_length": _always("the shorter answers of one side are forbidden on the other"),
    "min_p": _always("one side cuts tokens far less likely than the best one"),
    "repetition_penalty": _always("tokens already seen weigh differently, eos among them once it was seen"),
    "no_repeat_ngram_size": _always("one side forbids repeats that the other allows"),
    "num_beams": _always("one side searches, the other does not: other texts, and eos is handled by the search"),
    "pad_token_id": _always("finished rows are filled with another token; stopping is not affected"),
    "bos_token_id": _always("matters only if generation starts without a prompt"),
    "decoder_start_token_id": _always("matters only for encoder-decoder models"),
    "suppress_tokens": _always("one side can never produce these tokens"),
    "stop_strings": _always("one side ends at text that the other runs past"),
    "cache_implementation": _always("memory and speed; the tokens only within rounding"),
    "use_cache": _always("speed; the tokens only within rounding"),
    "output_scores": _always("what is returned, not what is generated"),
    "output_logits": _always("what is returned, not what is generated"),
    "return_dict_in_generate": _always("what is returned, not what is generated"),
}
