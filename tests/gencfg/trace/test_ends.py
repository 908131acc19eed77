"""How a row ended, by its token ids alone, held against rows that were made to end so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.gencfg.trace.ends import EndConditions, ending

EOS, END, PAD = 2, 7, 0
WORDS = st.lists(st.integers(10, 30), max_size=12)


@given(words=WORDS, padding=st.integers(0, 5), limit=st.integers(20, 30))
def test_a_row_that_ends_at_eos(words: list[int], padding: int, limit: int) -> None:
    ended = ending([*words, EOS, *[PAD] * padding], EndConditions({EOS}, {EOS, END}, limit, PAD))
    assert ended == {"new_tokens": len(words) + 1, "stop_reason": "eos", "passed_terminator_at": None, "passed_terminator": None}


@given(before=WORDS, after=st.lists(st.integers(10, 30), min_size=1, max_size=12))
def test_a_terminator_that_nobody_listens_to_is_named_with_its_position(before: list[int], after: list[int]) -> None:
    row = [*before, END, *after]
    ended = ending(row, EndConditions(set(), {EOS, END}, len(row), PAD))
    assert ended == {"new_tokens": len(row), "stop_reason": "length", "passed_terminator_at": len(before), "passed_terminator": END}


@given(words=st.lists(st.integers(10, 30), min_size=1, max_size=12), padding=st.integers(1, 5), limit=st.integers(1, 30))
def test_a_row_that_something_else_ended_is_other_however_long_its_neighbours_are(words: list[int], padding: int, limit: int) -> None:
    ended = ending([*words, *[PAD] * padding], EndConditions({EOS}, {EOS, PAD}, limit, PAD, custom=True))
    assert (ended["new_tokens"], ended["stop_reason"], ended["passed_terminator_at"]) == (len(words), "other", None)


def test_without_anything_else_to_end_a_row_pad_is_a_token() -> None:
    assert ending([10, PAD, PAD], EndConditions({EOS}, {EOS}, 3, PAD))["stop_reason"] == "length"


def test_pad_that_is_eos_beside_a_criterion_cannot_be_told_from_an_end() -> None:
    assert ending([10, EOS, EOS], EndConditions({EOS}, {EOS}, 9, EOS, custom=True))["stop_reason"] == "other"
    assert ending([10, END, EOS], EndConditions({EOS, END}, {EOS}, 9, EOS, custom=True))["stop_reason"] == "eos"


def test_a_terminator_that_stands_last_was_not_passed() -> None:
    ended = ending([10, 11, END], EndConditions(set(), {END}, 3, PAD))
    assert (ended["stop_reason"], ended["passed_terminator_at"]) == ("length", None)


def test_pad_that_is_eos_ends_at_the_first_one() -> None:
    assert ending([10, EOS, EOS, EOS], EndConditions({EOS}, {EOS}, 10, EOS))["new_tokens"] == 2


WORDS_OF = {10: "a", 11: "b", 12: "END now", 13: "E", 14: "ND", PAD: "", EOS: "</s>"}


def decode(ids: object) -> str:
    return "".join(WORDS_OF[token] for token in ids)  # type: ignore[attr-defined]


@given(
    before=st.lists(st.sampled_from([10, 11, 13]), max_size=8),
    end=st.sampled_from([[12], [13, 14]]),
    fill=st.sampled_from([[PAD], [EOS], [10, 11]]),
    more=st.integers(0, 4),
)
def test_a_stop_string_ends_with_the_token_that_completed_it(before: list[int], end: list[int], fill: list[int], more: int) -> None:
    """Whatever stands behind it: padding, padding that is eos, or, in a call without eos, tokens of a row that waits for its neighbours."""
    eos = set() if fill == [10, 11] else {EOS}
    ended = ending(
        [*before, *end, *fill * more],
        EndConditions(eos=eos, terminators={EOS}, limit=len(before) + 2, pad=fill[0], stop_strings=["END"], decode=decode),
    )
    assert (ended["stop_reason"], ended["new_tokens"], ended["passed_terminator_at"]) == ("stop_string", len(before) + len(end), None)


def test_an_eos_before_the_string_is_the_end() -> None:
    assert (
        ending([10, EOS, 12], EndConditions(eos={EOS}, terminators={EOS}, limit=9, pad=PAD, stop_strings=["END"], decode=decode))[
            "stop_reason"
        ]
        == "eos"
    )
