"""How each row of a generate() ended, from its token ids alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rules:
    """What could end a row: `eos` ids, `limit` new tokens (None: none known), `stop_strings` with `decode` (ids -> text) to look for
    them, `pad` what finished rows are filled with. `terminators` are the ids that end a turn for this model, whether or not the call
    listens to them."""

    eos: Collection[int]
    terminators: Collection[int]
    limit: int | None
    pad: int | None = None
    stop_strings: Sequence[str] = ()
    decode: Callable[[Sequence[int]], str] | None = None


def ending(new: Sequence[int], rules: Rules) -> dict[str, Any]:
    """The contract's object of one sequence, but for its prompt: new_tokens, stop_reason, and the position (from 0, among the new tokens)
    and id of the first terminator after which decoding went on."""
    end = next((index for index, token in enumerate(new) if token in rules.eos), None)
    if end is not None:
        reason, length = "eos", end + 1
    else:
        length = len(new) if rules.limit is not None and len(new) >= rules.limit else _unpadded(new, rules.pad)
        reason = _reason(new[:length], rules)
        length = len(new) if reason == "length" else length
    passed = next((index for index in range(length - 1) if new[index] in rules.terminators), None)
    return {
        "new_tokens": length,
        "stop_reason": reason,
        "passed_terminator_at": passed,
        "passed_terminator": None if passed is None else new[passed],
    }


def _reason(new: Sequence[int], rules: Rules) -> str:
    if rules.stop_strings and rules.decode is not None and _has_string(new, rules.stop_strings, rules.decode):
        return "stop_string"
    return "length" if rules.limit is not None and len(new) >= rules.limit else "other"


def _has_string(new: Sequence[int], strings: Sequence[str], decode: Callable[[Sequence[int]], str]) -> bool:
    """Whether the last token completed a stop string; a token may bring more text behind it."""
    longest = max(map(len, strings))
    whole, before = decode(new[-longest - 8 :]), decode(new[-longest - 8 : -1])
    return any(string in whole and string not in before for string in strings)


def _unpadded(new: Sequence[int], pad: int | None) -> int:
    """The length without the padding behind it: a row that something else than eos has ended is filled up to the longest one."""
    length = len(new)
    while pad is not None and length > 0 and new[length - 1] == pad:
        length -= 1
    return length
