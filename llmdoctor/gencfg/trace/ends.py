"""How each row of a generate() ended, from its token ids alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EndConditions:
    """What could end a row: `eos` ids, `limit` new tokens (None: none known), `stop_strings` with `decode` (ids -> text) to look for them,
    and whether there was a `custom` stopping criterion. Once a row has ended it is filled up with `pad` where the call has an eos (transformers
    5.23.0 generation/utils.py _sample, has_eos_stopping_criteria). `terminators` are the ids that end a turn for this model, whether or not
    the call listens to them."""

    eos: Collection[int]
    terminators: Collection[int]
    limit: int | None
    pad: int | None = None
    stop_strings: Sequence[str] = ()
    decode: Callable[[Sequence[int]], str] | None = None
    custom: bool = False


def ending(new: Sequence[int], rules: EndConditions) -> dict[str, Any]:
    """The contract's object of one sequence, but for its prompt: new_tokens, stop_reason, and the position (from 0, among the new tokens)
    and id of the first terminator after which decoding went on."""
    length, reason = _end(new, rules)
    passed = next((index for index in range(length - 1) if new[index] in rules.terminators), None)
    return {
        "new_tokens": length,
        "stop_reason": reason,
        "passed_terminator_at": passed,
        "passed_terminator": None if passed is None else new[passed],
    }


def _end(new: Sequence[int], rules: EndConditions) -> tuple[int, str]:
    eos = next((index + 1 for index, token in enumerate(new) if token in rules.eos), None)
    string = _stop_string(new, rules)
    if string is not None and (eos is None or string < eos):
        return string, "stop_string"
    if eos is not None:
        # Padding that is an eos looks like one: if something else may have ended the row, the end is not known.
        return (eos - 1, "other") if rules.custom and new[eos - 1] == rules.pad else (eos, "eos")
    if rules.custom and rules.eos and (length := _unpadded(new, rules.pad)) < len(new):
        return length, "other"
    return len(new), "length" if rules.limit is not None and len(new) >= rules.limit else "other"


def _stop_string(new: Sequence[int], rules: EndConditions) -> int | None:
    """How many tokens it takes until a stop string stands in the text; None where there is none in it."""
    decode, strings = rules.decode, rules.stop_strings
    if decode is None or not strings:
        return None

    def found(count: int) -> bool:
        text = decode(new[:count])
        return any(string in text for string in strings)

    return bisect_left(range(len(new)), True, key=found) if found(len(new)) else None


def _unpadded(new: Sequence[int], pad: int | None) -> int:
    """The length without the padding behind it."""
    length = len(new)
    while length > 0 and new[length - 1] == pad:
        length -= 1
    return length
