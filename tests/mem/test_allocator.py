"""The caching allocator as arithmetic: what it hands out, splits, joins and keeps."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.mem.allocator import LARGE_BUFFER, MIN_BLOCK, SMALL, SMALL_BUFFER, Allocator, Exact

SIZES = st.one_of(st.integers(1, 4096), st.integers(1, SMALL), st.integers(SMALL, 64 * 2**20))


def test_small_large_and_huge_segments() -> None:
    allocator = Allocator()
    assert allocator.take(1).size == MIN_BLOCK
    assert allocator.reserved == SMALL_BUFFER
    assert allocator.take(SMALL + 1).size == SMALL + MIN_BLOCK
    assert allocator.reserved == SMALL_BUFFER + LARGE_BUFFER
    assert allocator.take(25 * 2**20 + 1).size == 26 * 2**20  # rounded up to 2 MiB, less than 1 MiB left: not split


def test_a_remainder_of_at_most_a_mebibyte_stays_with_the_block() -> None:
    allocator = Allocator()
    first = allocator.take(9 * 2**20)
    second = allocator.take(10 * 2**20 - 512 * 1024)
    assert (first.size, second.size) == (9 * 2**20, 10 * 2**20 - 512 * 1024)
    third = allocator.take(2**20 + 512)
    assert third.size == 20 * 2**20 - first.size - second.size
    assert allocator.reserved == LARGE_BUFFER


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SIZES, st.integers(0, 10)), max_size=60))
def test_what_is_given_back_is_joined_and_used_again(steps: list[tuple[int, int]]) -> None:
    allocator, live = Allocator(), []
    for size, turn in steps:
        if live and turn < 4:
            allocator.give(live.pop(turn % len(live)))
        else:
            block = allocator.take(size)
            assert size <= block.size <= size + SMALL + MIN_BLOCK
            live.append(block)
        spans = sorted((block.address, block.address + block.size) for block in live)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        assert allocator.allocated == sum(block.size for block in live) <= allocator.reserved
    for block in live:
        allocator.give(block)
    assert allocator.allocated == 0
    allocator.empty_cache()
    assert allocator.reserved == 0


def test_exact_counts_tensors() -> None:
    exact = Exact()
    block = exact.take(1001)
    assert exact.allocated == block.size == 1001
    exact.give(block)
    assert exact.allocated == 0
