"""The kinds of cache that --cache names, one entry each: the tokens that a layer holds, the bytes of a token, and what lies beside the tensors.

Sources: transformers 5.23 cache_utils.py (DynamicLayer:104, DynamicSlidingWindowLayer:196, StaticLayer:403, StaticSlidingWindowLayer:510,
QuantizedLayer:743, Fp8QuantizedLayer:966); gpt-fast model.py (setup_caches, find_multiple(max_seq_length, 8)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmdoctor.core.errors import QuestionError

GROUP = 64  # elements that share a scale and a zero point: q_group_size, QuantizedCache
_MULTIPLE = 8  # gpt-fast rounds the length up to a multiple of it
_BITS = ("1", "2", "3", "4", "8")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKind:
    """One kind of cache.

    `tokens` returns, from the window of a layer (None: every token), the size of the cache and the length of the sequence, the tokens in the
    layer's tensors and the used ones among them. `bytes_per_token` returns the bytes of a token's keys and values from their number, the bytes
    of one element and the size. `mask_bytes` are those of a mask that is made with the cache, from its size. `whole` is true if the cache is
    allocated for its full length at the first token. `limit` is a sentence for the reader, about a cache with a window only if `windowed`.
    """

    tokens: Callable[[int | None, int, int], tuple[int, int]]
    bytes_per_token: Callable[[int, int, int], float] = lambda elements, width, _size: elements * width
    mask_bytes: Callable[[int], int] | None = None
    whole: bool = False
    limit: str | None = None
    windowed: bool = False


@dataclass(frozen=True, slots=True)
class ChosenCache:
    """A kind of cache with the number after its name: the tokens that it has room for, or bits; 0 without one."""

    kind: CacheKind
    size: int = 0


def read_cache(text: str) -> ChosenCache:
    """Return what --cache names: dynamic, static:N, gpt-fast:N, quantized:BITS or quantized:fp8. Raises QuestionError for anything else."""
    name, colon, size = text.partition(":")
    if text in _PLAIN:
        return ChosenCache(_PLAIN[text])
    if name in _SIZED and colon and size.isdecimal() and int(size) > 0:
        return ChosenCache(_SIZED[name], int(size))
    if name == "quantized" and size in _BITS:
        return ChosenCache(_QUANTIZED, int(size))
    raise QuestionError(f"--cache {text}: expected dynamic, static:N, gpt-fast:N, quantized:BITS ({', '.join(_BITS)}) or quantized:fp8")


def _dynamic(window: int | None, _size: int, length: int) -> tuple[int, int]:
    """Return the tokens of a cache that grows; a window holds one token more than it uses once a decoding step has cut it (cache_utils.py:236)."""
    return (length, length) if window is None else (min(length, window), min(length, window - 1))


def _static(window: int | None, size: int, length: int) -> tuple[int, int]:
    tokens = size if window is None else min(window, size)
    return tokens, min(length, tokens)


def _rounded(size: int) -> int:
    return -(-size // _MULTIPLE) * _MULTIPLE


_PLAIN = {
    "dynamic": CacheKind(
        tokens=_dynamic,
        limit="right after a long prefill a window's tensors still hold every token; the next step cuts them",
        windowed=True,
    ),
    "quantized:fp8": CacheKind(tokens=_dynamic, bytes_per_token=lambda elements, _width, _size: elements),
}
_SIZED = {
    "static": CacheKind(tokens=_static, whole=True),
    # setup_caches makes a boolean causal mask of the whole length beside the caches
    "gpt-fast": CacheKind(
        tokens=lambda _window, size, length: (_rounded(size), length), mask_bytes=lambda size: _rounded(size) ** 2, whole=True
    ),
}
_QUANTIZED = CacheKind(
    tokens=_dynamic,
    bytes_per_token=lambda elements, width, size: (
        elements * size / 8 + 2 * width * elements / GROUP
    ),  # a scale and a zero point for each group
    limit="up to 128 of the newest tokens stay in full precision between two quantizations",
)
