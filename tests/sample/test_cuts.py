"""The cuts that sort only a row's head, against cuts that sort it all."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.sample import cuts
from llmdoctor.sample.types import LogitRow, first_row

rows = st.builds(
    lambda seed, size, spread, grid: (np.round(np.random.default_rng(seed).standard_normal(size) * spread * grid) / grid).astype(
        np.float32
    ),
    st.integers(0, 10**6),
    st.sampled_from([1, 5, 300, 2049, 5000, 20000]),
    st.sampled_from([0.01, 1.0, 4.0]),
    st.sampled_from([2, 16, 10**6]),
)


@settings(max_examples=150, deadline=None)
@given(x=rows, k=st.integers(1, 3000), ties=st.sampled_from(["all", "low", "high"]))
def test_top_k(x: np.ndarray, k: int, ties: cuts.Ties) -> None:
    order = np.argsort(-x, kind="stable") if ties != "high" else len(x) - 1 - np.argsort(-x[::-1], kind="stable")
    expected = np.flatnonzero(x >= np.sort(x)[::-1][min(k, len(x)) - 1]) if ties == "all" else np.sort(order[:k])
    assert np.array_equal(cuts.top_k(LogitRow(x), k, ties).tokens(), expected)


@settings(max_examples=150, deadline=None)
@given(x=rows, p=st.floats(0.001, 0.999))
def test_top_p_is_the_smallest_set_of_that_mass(x: np.ndarray, p: float) -> None:
    kept = cuts.top_p_ascending(LogitRow(x), p)
    probs = np.exp(x.astype(np.float64) - x.max())
    probs /= probs.sum()
    mine = probs[kept.tokens()]
    assert mine.sum() > p - 1e-5
    assert mine.sum() - mine.min() < p + 1e-5
    assert mine.min() >= np.delete(probs, kept.tokens()).max(initial=0.0)


@settings(max_examples=80, deadline=None)
@given(x=rows, count=st.integers(1, 5000))
def test_the_head_holds_the_largest(x: np.ndarray, count: int) -> None:
    found = cuts.head(x, min(count, len(x)))
    whole = np.sort(x)[::-1]
    assert len(found.order) >= min(count, len(x))
    assert np.array_equal(found.order, whole[: len(found.order)])
    assert len(found.order) == len(x) or whole[len(found.order)] < found.order[-1]


def test_tokens_without_a_chance_never_were_there() -> None:
    x = np.array([1.0, -np.inf, 0.0], np.float32)
    assert first_row(x).tokens().tolist() == [0, 2]
    assert first_row(x).probs(3)[1] == 0.0
