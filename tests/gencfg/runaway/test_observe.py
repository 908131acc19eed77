"""One sequence: planted terminators found where they stand, padding told from running on, ends told from what is known."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.gencfg.runaway.end_marks import WELL_KNOWN, EndMark, EndMarks, infer, well_known
from llmdoctor.gencfg.runaway.observe import Observation, Observer
from llmdoctor.requests.sequences import OutputSequence, pack

SETTINGS = settings(deadline=None, max_examples=300)
END, EOS, PAD = 11, 10, 9
NAMED = EndMarks((EndMark("<|im_end|>", END, "model"), EndMark("<|endoftext|>", EOS, "model")), frozenset({PAD}))
UNPADDED = EndMarks(NAMED.marks)
TEXTS = EndMarks(tuple(well_known()))


def observe(ids: list[int], said: Any = None, limit: int | None = None, marks: EndMarks = NAMED) -> Observation:
    return Observer(marks, None).observe(OutputSequence(line=1, ids=pack(ids), text=None, tokens=len(ids), reported=said, limit=limit))


def read(text: str, said: Any = None, marks: EndMarks = TEXTS) -> Observation:
    return Observer(marks, None).observe(OutputSequence(line=1, ids=None, text=text, tokens=None, reported=said, limit=None))


@SETTINGS
@given(seed=st.integers(0, 2**32), at=st.integers(0, 300), behind=st.integers(1, 300), reported=st.sampled_from([None, "length"]))
def test_a_planted_terminator_is_found_at_its_position(seed: int, at: int, behind: int, reported: str | None) -> None:
    chance = random.Random(seed)
    ids = [chance.randrange(100, 70_000) for _ in range(at + 1 + behind)]
    ids[at] = END
    observed = observe(ids, reported)
    assert observed.passed is not None
    assert (observed.passed.id, observed.at, observed.wasted, observed.length) == (END, at, behind, len(ids))


@SETTINGS
@given(seed=st.integers(0, 2**32), size=st.integers(0, 300), pads=st.integers(0, 50), pad=st.sampled_from([PAD, END, EOS, 0, -100]))
def test_a_sequence_that_stopped_and_was_padded_passed_nothing(seed: int, size: int, pads: int, pad: int) -> None:
    chance = random.Random(seed)
    observed = observe([*(chance.randrange(100, 70_000) for _ in range(size)), END, *[pad] * pads])
    assert (observed.passed, observed.ended, observed.length, observed.padded) == (None, "eos", size + 1, pads > 0)


@SETTINGS
@given(ids=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=80), reported=st.sampled_from([None, "eos", "length", "stop", "other"]))
def test_any_ids_can_be_looked_at(ids: list[int], reported: Any) -> None:
    observed = observe(ids, reported, 40)
    assert 0 <= observed.length <= len(ids)
    if observed.passed is not None:
        assert ids[observed.at] == observed.passed.id
        assert all(token not in (END, EOS) for token in ids[: observed.at])


def test_bytes_across_two_ids_are_no_terminator() -> None:
    low, high = END << 16, END >> 16
    assert observe([low, high, low, high, 5]).passed is None


@pytest.mark.parametrize(
    ("ids", "said", "limit", "ended"),
    [
        ([1, 2, END], None, None, "eos"),
        ([1, 2, END], "stop", None, "eos"),
        ([1, 2, END], None, 3, "eos"),
        ([1, 2, 3], None, 3, "length"),
        ([1, 2, 3], None, 4, "unknown"),
        ([1, 2, 3], None, None, "unknown"),
        ([1, 2, 3], "stop", 3, "stop"),
        ([1, 2, PAD, PAD], None, 4, "unknown"),
        ([], None, 4, "unknown"),
        ([END, END, END, END], None, 4, "eos"),
    ],
)
def test_how_it_ended(ids: list[int], said: Any, limit: int | None, ended: str) -> None:
    observed = observe(ids, said, limit)
    assert (observed.ended, observed.passed) == (ended, None)


def test_a_run_to_the_limit_in_terminators_passed_the_first() -> None:
    """ignore_eos: the engine says length, and what follows is not padding."""
    observed = observe([1, 2, END, END, END, END], "length")
    assert observed.passed is not None
    assert (observed.at, observed.wasted) == (2, 3)


def test_id_0_is_padding_only_where_something_says_so() -> None:
    assert observe([5, 6, 0, 0, 0], None).length == 5
    assert observe([5, 6, 0, 0, 0], "stop").length == 2
    assert observe([5, 6, 0, 0, 0], "length").length == 5
    assert observe([5, 6, 0, 0, 0], None, marks=EndMarks(NAMED.marks, frozenset({0}))).length == 2


def test_one_id_again_and_again_is_padding_where_no_pad_is_known() -> None:
    assert observe([5, END, 77, 77, 77], None, marks=UNPADDED).passed is None
    assert observe([5, END, 77, 77, 77], None).passed is not None
    assert observe([5, END, 77], None, marks=UNPADDED).passed is not None


def test_a_second_terminator_at_the_end_stops_it() -> None:
    observed = observe([5, END, 6, 7, EOS, PAD, PAD])
    assert observed.passed is not None
    assert (observed.at, observed.wasted, observed.length, observed.ended) == (1, 3, 5, "eos")


def test_a_loop_before_a_terminator_and_behind_one() -> None:
    observed = observe([*[1, 2, 3] * 20, END])
    assert (observed.ended, observed.loop is not None and observed.loop.period) == ("eos", 3)
    observed = observe([7, END, *[1, 2, 3] * 20], "length")
    assert observed.loop is not None
    assert (observed.loop.period, observed.loop.start, observed.at) == (3, 2, 1)


@pytest.mark.parametrize("token", WELL_KNOWN)
def test_every_well_known_token_is_seen_in_text(token: str) -> None:
    observed = read(f"An answer.{token}\nuser\nMore of it")
    assert observed.passed is not None
    assert (observed.passed.text, observed.at, observed.wasted) == (token, 10, 16)
    assert (read(f"An answer.{token}").ended, read(f"An answer.{token}").passed) == ("eos", None)
    assert read(f"An answer.{token}<pad><pad>\n").passed is None
    assert read(f"An answer.{token}", "length").ended == "length"


@pytest.mark.parametrize(
    "text",
    [
        "In HTML <s>this</s> is struck out, and nothing ended.",
        "The token `<|im_end|>` ends a turn; the string '</s>' another's.",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "An answer with no token at all",
        "",
    ],
)
def test_text_that_passes_nothing(text: str) -> None:
    assert read(text).passed is None


def test_a_named_terminator_needs_no_context() -> None:
    assert read("<s>this</s> more", marks=EndMarks((EndMark("</s>", None, "option"),))).passed is not None


ROWS = st.lists(st.lists(st.integers(20, 40), min_size=1, max_size=30), min_size=4, max_size=20)


@SETTINGS
@given(rows=ROWS)
def test_what_ends_rows_and_fills_them_up_is_inferred(rows: list[list[int]]) -> None:
    width = max(map(len, rows)) + 4
    padded = [
        OutputSequence(line=1, ids=pack([*row, 7, *[3] * (width - len(row) - 1)]), text=None, tokens=width, reported=None, limit=None)
        for row in rows
    ]
    marks = infer(EndMarks(), padded)
    assert {mark.id for mark in marks.marks} <= {7, 3}
    if len({len(row) for row in rows}) > 1:
        assert [mark.id for mark in marks.marks] == [7]
        assert marks.pads == {3}


def test_a_full_stop_is_not_taken_for_the_terminator() -> None:
    chance = random.Random(3)
    rows = [[token for _ in range(5) for token in (*(chance.randrange(100, 900) for _ in range(9)), 13)] for _ in range(50)]
    rows = [row[: 10 * chance.randrange(2, 5)] for row in rows]
    assert (
        infer(
            EndMarks(), [OutputSequence(line=1, ids=pack(row), text=None, tokens=len(row), reported=None, limit=None) for row in rows]
        ).marks
        == ()
    )


def test_padding_of_a_batch_is_inferred_where_the_terminator_is_named() -> None:
    """One pad alone behind a terminator tells nothing; the other rows of its batch do."""
    marks = EndMarks((EndMark(None, END, "option"),))
    rows = [[*range(100, 100 + size), END, *[77] * (20 - size)] for size in (10, 12, 15, 19)]
    known = infer(marks, [OutputSequence(line=1, ids=pack(row), text=None, tokens=len(row), reported=None, limit=None) for row in rows])
    assert known.pads == {77}
    assert [observe(row, marks=known).passed for row in rows] == [None] * 4
    loops = [[*range(100, 100 + size), *[77] * (20 - size)] for size in (10, 12, 15, 17)]
    assert (
        infer(marks, [OutputSequence(line=1, ids=pack(row), text=None, tokens=len(row), reported=None, limit=None) for row in loops]).pads
        == frozenset()
    )
