"""Loops against a search by definition, planted ones with their exact period and start, and none in what does not repeat."""

from __future__ import annotations

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.gencfg.runaway.loops import CHARACTERS, TOKENS, Loop, find_text_loop, find_token_loop

SETTINGS = settings(deadline=None, max_examples=300)


def packed(ids: list[int]) -> bytes:
    return struct.pack(f"={len(ids)}i", *ids)


def by_definition(units: list[int]) -> tuple[int, int] | None:
    """The least period and its least start, by the words of the module."""
    size = len(units)
    for period in range(1, min(TOKENS.period, size - 1) + 1):
        start = size - period
        while start > 0 and units[start - 1] == units[start - 1 + period]:
            start -= 1
        if size - start >= max(TOKENS.span, TOKENS.repeats * period):
            return period, start
    return None


@SETTINGS
@given(head=st.lists(st.integers(0, 2), max_size=60), unit=st.lists(st.integers(0, 2), min_size=1, max_size=40), length=st.integers(0, 160))
def test_every_answer_is_the_definitions(head: list[int], unit: list[int], length: int) -> None:
    units = head + (unit * 160)[:length]
    found = find_token_loop(packed(units), len(units))
    assert (None if found is None else (found.period, found.start)) == by_definition(units)


@SETTINGS
@given(data=st.data(), period=st.integers(1, TOKENS.period), head=st.integers(0, 300), more=st.integers(0, 700))
def test_a_planted_loop_is_found_with_its_period_and_start(data: st.DataObject, period: int, head: int, more: int) -> None:
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    unit = chance.sample(range(1000, 200_000), period)  # distinct ids: no shorter period can hide in it
    before = [chance.randrange(1000) for _ in range(head)]  # and none before it belongs to it
    repeated = max(TOKENS.span, TOKENS.repeats * period) + more
    ids = before + (unit * (repeated // period + 1))[:repeated]
    assert find_token_loop(packed(ids), len(ids)) == Loop(period, head, len(ids))


@SETTINGS
@given(seed=st.integers(0, 2**32), size=st.integers(0, 2000))
def test_random_ids_hold_no_loop(seed: int, size: int) -> None:
    chance = random.Random(seed)
    assert find_token_loop(packed([chance.randrange(50_000) for _ in range(size)]), size) is None


@SETTINGS
@given(seed=st.integers(0, 2**32), size=st.integers(0, 5000))
def test_random_text_holds_no_loop(seed: int, size: int) -> None:
    text = "".join(random.Random(seed).choices("etaoin shrdlu", k=size))
    assert find_text_loop(text, size) is None


def test_bytes_across_two_ids_are_no_repetition() -> None:
    ids = [0x00010000 if index % 2 else 0x00000001 for index in range(20)]  # an odd number of bytes on, the pattern repeats too
    assert find_token_loop(packed(ids), len(ids)) is None
    assert find_token_loop(packed(ids * 2), 40) == Loop(2, 0, 40)


def test_one_repeat_less_than_the_bounds_is_none() -> None:
    for period in (1, 5, 11, 40, 256):
        least = max(TOKENS.span, TOKENS.repeats * period)
        ids = list(range(9000, 9000 + period)) * least
        assert find_token_loop(packed(ids[: least - 1]), least - 1) is None
        assert find_token_loop(packed(ids[:least]), least) == Loop(period, 0, least)
    ids = list(range(TOKENS.period + 1)) * 5
    assert find_token_loop(packed(ids), len(ids)) is None  # longer than the longest period


ORDINARY = (
    "OutputSequence, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    "ha ha ha ha ha ha ha ha ha ha",
    "\n".join(f"{number}. item number {number}" for number in range(200)),
    "| a | b |\n|---|---|\n" + "\n".join(f"| {number} | {number * number} |" for number in range(50)),
    "def f(x):\n    return x\n\n\ndef g(x):\n    return x\n\n\ndef h(x):\n    return x\n",
    "0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0",
    "----------------------------------------------------------------------------",
)


def test_ordinary_writing_holds_no_loop() -> None:
    assert [text for text in ORDINARY if find_text_loop(text, len(text)) is not None] == []


@SETTINGS
@given(head=st.text(st.characters(exclude_categories=()), max_size=200), period=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_a_planted_text_loop_is_found(head: str, period: int, seed: int) -> None:
    unit = "".join(random.Random(seed).sample([chr(code) for code in range(0x4E00, 0x9FFF)], period))
    head = "".join(letter for letter in head if not "\u4e00" <= letter <= "\u9fff")
    repeated = max(CHARACTERS.span, CHARACTERS.repeats * period)
    text = head + (unit * (repeated // period + 1))[:repeated]
    assert find_text_loop(text, len(text)) == Loop(period, len(head), len(text))


def test_the_worst_case_is_quick() -> None:
    """Every period looks right at first and none is: the last unit of the probe's length stands everywhere, one step too short."""
    import time

    text = ("a" * 94 + "b") * 200_000
    start = time.monotonic()
    assert find_text_loop(text[:-1], len(text) - 1) == Loop(95, 0, len(text) - 1)
    assert find_text_loop("a" * 5_000_000 + "b" + "a" * 95, 5_000_096) is None
    assert time.monotonic() - start < 5
