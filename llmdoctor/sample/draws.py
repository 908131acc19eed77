"""Reproducible draws from a distribution, with numpy's PCG64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np

from llmdoctor.sample.types import Doubles, Ids

_GUIDE = 1 << 18
_FEW = 20_000  # draws below which a table does not pay
PART = 1 << 22  # draws made at a time: 100 MB


def generator(seed: int) -> np.random.Generator:
    """The documented generator: numpy's PCG64, seeded with `seed`."""
    return np.random.Generator(np.random.PCG64(seed))


def draw(probs: Doubles, count: int, rng: np.random.Generator) -> Ids:
    """`count` tokens [count]: for each, the first whose cumulative probability exceeds a uniform number of the generator.

    The same tokens as numpy.searchsorted(cumsum, uniforms, "right"); a table of 2^18 entries finds most of them in one step.
    """
    return np.concatenate(list(draw_parts(probs, count, rng)))


def draw_parts(probs: Doubles, count: int, rng: np.random.Generator) -> Iterator[Ids]:
    """Yield the tokens of `draw` in parts of at most PART, so that many draws take no more memory than few."""
    cumulated = np.cumsum(probs)
    cumulated /= cumulated[-1]
    last = int(np.flatnonzero(probs)[-1])
    guide = None if count < _FEW else _guide(cumulated)
    for start in range(0, count, PART):
        uniforms = rng.random(min(PART, count - start))
        if guide is None:
            yield np.minimum(np.searchsorted(cumulated, uniforms, "right"), last)
            continue
        found = guide[(uniforms * _GUIDE).astype(np.int32)]
        unsure = np.flatnonzero(found < 0)
        found[unsure] = np.searchsorted(cumulated, uniforms[unsure], "right")
        yield np.minimum(found, last)


def write_header(file: IO[bytes], count: int) -> None:
    """Write what precedes `count` int64 values in a .npy file, as numpy.save does."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (count,)})


def _guide(cumulated: Doubles) -> Ids:
    """For each of the table's buckets of uniform numbers the token they all mean, -1 where they mean several."""
    ends = np.ceil(cumulated * _GUIDE).astype(np.int64)  # exact: the table's size is a power of two
    first = np.cumsum(np.bincount(ends, minlength=_GUIDE + 1)[: _GUIDE + 1])
    table: Ids = np.where(first[1:] == first[:-1], first[:-1], -1)
    return table


def draw_counts(probs: Doubles, count: int, rng: np.random.Generator) -> Ids:
    """How often each token [V] comes in `count` draws: one multinomial draw instead of `count`."""
    at = np.flatnonzero(probs)
    result = np.zeros(len(probs), np.int64)
    result[at] = rng.multinomial(count, probs[at] / probs[at].sum())
    return result
