"""The keys of each query as an interval, decoded from a mask function instead of evaluated over Q x KV pairs."""

from __future__ import annotations

import numpy as np

from llmdoctor.mask.calls import FactoryCall
from llmdoctor.mask.intervals import Ints, as_ints


def formula_of(call: FactoryCall) -> str:
    """The mask function as a formula, as nested in masking_utils.py."""
    pattern = call.pattern
    text: str = pattern.base
    blocks = call.blocks
    cut = False  # whether blocks are joined inside the window, and inside the document
    if pattern.local == "window":
        cut = pattern.blocks is not None and pattern.blocks.inside_window and blocks is not None
        sides = " at either side" if pattern.base == "bidirectional" else ""
        text = f"AND[window {pattern.size}{sides}, {f'OR[{text}, blocks]' if cut else text}]"
    elif pattern.local == "chunk":
        text = f"AND[chunk {pattern.size}, {text}]"
    if call.documents is not None:
        text = f"AND[packed, REMAP[{text}]]"
    if blocks is not None and not cut:
        text = f"OR[{text}, blocks]"
    return _padded_formula(call, text)


def _padded_formula(call: FactoryCall, text: str) -> str:
    padded = call.padded
    return text if padded is None or bool(padded.all()) else f"AND[{text}, padding]"


def bands_of(call: FactoryCall, shift: int = 0) -> tuple[Ints, Ints]:
    """lo and hi, int64 [R, Q], of the pattern alone; `shift` is added to every query's position (see _flex)."""
    extent, pattern = call.extent, call.pattern
    at = np.arange(call.q_len, dtype=np.int64)[None, :] + extent.q_offset + shift  # absolute positions of the queries, [1, Q]
    low, high = np.zeros_like(at), at + 1
    if pattern.base == "bidirectional":
        high = np.full_like(at, extent.kv_offset + extent.kv_len)
        if pattern.local == "window":
            low, high = at - pattern.size, np.minimum(at + pattern.size + 1, high)
    elif pattern.local == "window":
        low = at - pattern.size + 1
    elif pattern.local == "chunk":
        left = _left_padding(call)
        low = (at - left) // pattern.size * pattern.size + left
    documents = call.documents
    if documents is not None and pattern.local == "chunk" and call.positions is not None:
        low = at - call.positions % pattern.size  # REMAP: chunks are counted from the start of each document
    if documents is not None:
        first, last = _ends(documents)
        low, high = np.maximum(low, first), np.minimum(high, last)
    if call.blocks is not None:
        low, high = _with_blocks(call, low, high, at)
    low, high = _alike(low - extent.kv_offset, high - extent.kv_offset)
    return np.clip(low, 0, extent.kv_len), np.clip(high, 0, extent.kv_len)


def _alike(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Both with the rows of the one that has more."""
    low, high = np.broadcast_arrays(low, high)
    return low, high


def _left_padding(call: FactoryCall) -> Ints:
    """int64 [B, 1] (create_chunked_causal_mask): chunks are counted from the first real token."""
    if call.mask is None:
        return np.zeros((1, 1), np.int64)
    return as_ints((call.mask.cumsum(axis=-1) == 0).sum(axis=-1, keepdims=True))


def _ends(documents: Ints) -> tuple[Ints, Ints]:
    """int64 [B, S] twice: where the document of each token begins and ends."""
    at = np.arange(documents.shape[1], dtype=np.int64)[None, :]
    fresh = np.diff(documents, prepend=documents[:, :1] - 1, axis=-1) != 0
    after = np.pad(fresh[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    ends = np.minimum.accumulate(np.where(after, at + 1, documents.shape[1])[:, ::-1], axis=-1)[:, ::-1]
    return np.maximum.accumulate(np.where(fresh, at, 0), axis=-1), ends


def _with_blocks(call: FactoryCall, low: Ints, high: Ints, at: Ints) -> tuple[Ints, Ints]:
    """Widen each interval by the query's block (blockwise_overlay).

    If the window cuts the block it does so inside the document, whose tokens are looked up by their own positions.
    """
    ids, rule, documents, positions = call.blocks, call.pattern.blocks, call.documents, call.positions
    if ids is None or rule is None:
        return low, high
    start, end = block_spans(ids)
    if rule.inside_window and call.pattern.local == "window":
        if documents is None or positions is None:
            return _alike(low, np.where(start >= 0, np.maximum(high, end), high))
        where = np.clip(np.broadcast_to(positions, ids.shape), 0, ids.shape[1] - 1)
        start, end = np.take_along_axis(start, where, axis=1), np.take_along_axis(end, where, axis=1) + at - positions
        return _alike(low, np.where(start >= 0, np.minimum(np.maximum(high, end), _ends(documents)[1]), high))
    inside = start >= 0
    return np.where(inside, np.minimum(low, start), low), np.where(inside, np.maximum(high, end), high)


def block_spans(ids: Ints) -> tuple[Ints, Ints]:
    """Return the first token and the end of each token's block, int64 [B, S] twice; -1 and 0 for tokens without a block."""
    start, end = np.full_like(ids, -1), np.zeros_like(ids)
    at = np.arange(ids.shape[1], dtype=np.int64)
    for row in range(ids.shape[0]):
        inside = ids[row] >= 0
        if not inside.any():
            continue
        count = int(ids[row].max()) + 1
        first, last = np.full(count, ids.shape[1], np.int64), np.zeros(count, np.int64)
        np.minimum.at(first, ids[row][inside], at[inside])
        np.maximum.at(last, ids[row][inside], at[inside] + 1)
        start[row][inside], end[row][inside] = first[ids[row][inside]], last[ids[row][inside]]
    return start, end


def broken_blocks(call: FactoryCall) -> bool:
    """Return whether a block has other tokens inside it that a mask does not hide: an interval cannot hold what its tokens then see."""
    ids = call.blocks
    if ids is None:
        return False
    start, end = block_spans(ids)
    size = end - start
    held = np.zeros_like(size)
    for row in range(ids.shape[0]):
        inside = ids[row] >= 0
        if inside.any():
            held[row][inside] = np.bincount(ids[row][inside])[ids[row][inside]]
    return bool(((ids >= 0) & (held != size)).any())
