"""Counting without a square is exact: against the square itself, over drawn intervals, padding and block sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.mask.differ import difference
from llmdoctor.mask.intervals import Visible, count_blocks, density, runs_of


@st.composite
def visibles(draw: st.DrawFn) -> Visible:
    rows, q_len, kv_len = draw(st.integers(1, 2)), draw(st.integers(1, 23)), draw(st.integers(1, 23))
    ends = st.lists(st.integers(0, kv_len), min_size=rows * q_len, max_size=rows * q_len)
    low = np.asarray(draw(ends), np.int64).reshape(rows, q_len)
    high = np.asarray(draw(ends), np.int64).reshape(rows, q_len)
    keys = draw(st.none() | st.lists(st.booleans(), min_size=rows * kv_len, max_size=rows * kv_len))
    return Visible(kv_len, low, high, None if keys is None else np.asarray(keys, np.bool_).reshape(rows, kv_len))


@settings(max_examples=150, deadline=None)
@given(visible=visibles(), size=st.sampled_from([1, 2, 4, 8, 128]))
def test_counts_are_those_of_the_square(visible: Visible, size: int) -> None:
    squares = [visible.square(row) for row in range(visible.rows)]
    assert visible.count() == sum(int(square.sum()) for square in squares)
    for row, square in enumerate(squares):
        assert (visible.seen(row) == square.sum(axis=1)).all()
        assert visible.dead(row).tolist() == np.flatnonzero(~square.any(axis=1)).tolist()
        for query in range(visible.q_len):
            assert visible.runs(row, query) == runs_of(square[query])
    blocks = count_blocks(visible, size)
    kinds = {"empty": 0, "partial": 0, "full": 0}
    for square in squares:
        for top in range(0, visible.q_len, size):
            for left in range(0, visible.kv_len, size):
                block = square[top : top + size, left : left + size]
                kinds["full" if block.all() else "partial" if block.any() else "empty"] += 1
    assert (blocks.empty, blocks.partial, blocks.full) == (kinds["empty"], kinds["partial"], kinds["full"])


@settings(max_examples=60, deadline=None)
@given(visible=visibles(), bands=st.integers(1, 6), columns=st.integers(1, 6))
def test_the_density_map_adds_up(visible: Visible, bands: int, columns: int) -> None:
    seen, size = density(visible, 0, min(bands, visible.q_len), min(columns, visible.kv_len))
    assert seen.sum() == visible.square(0).sum()
    assert size.sum() == visible.q_len * visible.kv_len
    assert (seen <= size).all()


@settings(max_examples=100, deadline=None)
@given(left=visibles(), right=visibles())
def test_a_difference_is_one_of_the_squares(left: Visible, right: Visible) -> None:
    if (left.q_len, left.rows) != (right.q_len, right.rows):
        return
    real = np.ones((left.rows, left.q_len), np.bool_)
    width = max(left.kv_len, right.kv_len)
    unlike = 0
    for row in range(left.rows):
        one, other = (np.pad(each.square(row), ((0, 0), (0, width - each.kv_len))) for each in (left, right))
        unlike += int((one != other).any(axis=1).sum())
    found = difference(left, right, real)
    assert (0 if found is None else found.queries) == unlike


def test_keys_that_are_hidden_before_the_first_key_seen_are_no_difference() -> None:
    """One mask hides keys 0 to 3 from everybody, the other begins at key 4: each query sees keys 4 and 5."""
    low, high = np.array([[0, 0]]), np.array([[6, 0]])
    left = Visible(6, low, high, np.array([[False] * 4 + [True] * 2]))
    right = Visible(6, low + 4, high)
    assert difference(left, right, np.ones((1, 2), np.bool_)) is None


def test_a_million_tokens_need_no_square() -> None:
    size = 1_000_000
    at = np.arange(size, dtype=np.int64)[None, :]
    visible = Visible(size, np.zeros_like(at), at + 1)
    blocks = count_blocks(visible)
    bands = -(-size // 128)
    assert visible.count() == size * (size + 1) // 2
    assert (blocks.partial, blocks.full) == (bands, bands * (bands - 1) // 2)


@pytest.mark.parametrize(("line", "runs"), [([], []), ([0], []), ([1], [(0, 1)]), ([1, 1, 0, 1], [(0, 2), (3, 4)])])
def test_runs(line: list[int], runs: list[tuple[int, int]]) -> None:
    assert runs_of(np.asarray(line, np.bool_)) == runs
