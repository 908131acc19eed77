"""How many keys a layer's cache hands out, and how many the mask is made for (transformers 5.23 cache_utils.py).

DynamicLayer, DynamicSlidingWindowLayer, StaticLayer and StaticSlidingWindowLayer: get_mask_sizes() and update().
"""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.mask.types import ForwardInputs


@dataclass(frozen=True, slots=True)
class CacheExtent:
    """`kv_len` keys from absolute position `kv_offset` on; the first query is at `q_offset`.

    `counter` says that the offset is the static cache's own counter tensor, which update() moves on before a kernel reads it.
    """

    kv_len: int
    kv_offset: int
    q_offset: int
    counter: bool = False
    static: bool = False


def extent(inputs: ForwardInputs, window: int | None) -> CacheExtent:
    """The extent of a layer; `window` is its cache's window (None: it keeps everything)."""
    past, new, cache = inputs.past, inputs.q_len, inputs.cache
    if cache.kind == "none":
        mask = inputs.mask_2d
        return CacheExtent(new if mask is None else mask.shape[1], 0, 0)
    if cache.kind == "static":
        if window is None:
            return CacheExtent(cache.size, 0, past, counter=past > 0, static=True)
        return _static_sliding(past, new, min(window, cache.size))
    if window is None:
        return CacheExtent(past + new, 0, past)
    held = window - 1 if past >= window else past
    return CacheExtent(held + new, max(past - window + 1, 0), past)


def _static_sliding(past: int, new: int, size: int) -> CacheExtent:
    offset = max(past - size + 1, 0)
    if past >= size:
        return CacheExtent(size + new - 1, offset, past, static=True)
    return CacheExtent(past + new if past + new > size else size, offset, past, static=True)
