"""How a row ended, by its token ids alone, held against rows that were made to end so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.gencfg.trace.ends import Rules, ending

EOS, END, PAD = 2, 7, 0
WORDS = st.lists(st.integers(10, 30), max_size=12)


@given(words=WORDS, padding=st.integers(0, 5), limit=st.integers(20, 30))
def test_a_row_that_ends_at_eos(words: list[int], padding: int, limit: int) -> None:
    told = ending([*words, EOS, *[PAD] * padding], Rules({EOS}, {EOS, END}, limit, PAD))
    assert told == {"new_tokens": len(words) + 1, "stop_reason": "eos", "passed_terminator_at": None, "passed_terminator": None}


@given(before=WORDS, after=st.lists(st.integers(10, 30), min_size=1, max_size=12))
def test_a_terminator_that_nobody_listens_to_is_named_with_its_position(before: list[int], after: list[int]) -> None:
    row = [*before, END, *after]
    told = ending(row, Rules(set(), {EOS, END}, len(row), PAD))
    assert told == {"new_tokens": len(row), "stop_reason": "length", "passed_terminator_at": len(before), "passed_terminator": END}


@given(words=WORDS, padding=st.integers(0, 5))
def test_a_row_that_something_else_ended_is_other(words: list[int], padding: int) -> None:
    told = ending([*words, *[PAD] * padding], Rules({EOS}, {EOS}, 40, PAD))
    assert (told["new_tokens"], told["stop_reason"]) == (len(words), "other")


def test_a_terminator_that_stands_last_was_not_passed() -> None:
    told = ending([10, 11, END], Rules(set(), {END}, 3, PAD))
    assert (told["stop_reason"], told["passed_terminator_at"]) == ("length", None)


def test_pad_that_is_eos_ends_at_the_first_one() -> None:
    assert ending([10, EOS, EOS, EOS], Rules({EOS}, {EOS}, 10, EOS))["new_tokens"] == 2


def test_a_stop_string_ends_with_the_token_that_completed_it() -> None:
    words = {10: "a", 11: "b", 12: "END now", 0: ""}

    def decode(ids: object) -> str:
        return "".join(words[token] for token in ids)  # type: ignore[attr-defined]

    rules = Rules({EOS}, {EOS}, 10, PAD, ["END"], decode)
    assert ending([10, 11, 12, 0, 0], rules)["stop_reason"] == "stop_string"
    assert ending([10, 12, 11], rules)["stop_reason"] == "other"
