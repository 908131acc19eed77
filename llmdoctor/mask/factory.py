"""From inputs and a layer's pattern to the object a layer receives: transformers 5.23's masking_utils.py without tensors.

Each function names the one of the library that it follows. A pattern is decoded to intervals (llmdoctor.mask.intervals) instead of being
evaluated over Q x KV pairs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.mask.cachesize import Extent
from llmdoctor.mask.intervals import Bools, Ints, Visible, as_ints
from llmdoctor.mask.types import BLOCK, NOTHING, SIZES, Inputs, Kernel, Object


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pattern:
    """A layer's mask function.

    `base` is causal or bidirectional. `local` is the window or the chunk, `size` its tokens: of a causal window with the query itself, of a
    bidirectional one those at either side of it. `blocks` are images within which everything is seen: "or" joined
    after the window, "window" cut by it (gemma3's sliding layers). `packs` says that position_ids reach the function. `skips` is False
    where the model always wants the mask written out. `flash_window` says that the layer hands its window to flash-attention.
    """

    base: Literal["causal", "bidirectional"] = "causal"
    local: Literal["window", "chunk"] | None = None
    size: int = 0
    blocks: Literal["or", "window"] | None = None
    packs: bool = True
    skips: bool = True
    flash_packs: bool = True
    flash_window: bool = True

    @property
    def width(self) -> int:
        """The window as a layer tells it to its cache and to flash-attention, which takes a window of one less at either side."""
        return self.size + (self.local == "window" and self.base == "bidirectional")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Made:
    """What the factory and the kernel make of it."""

    object: Object
    kernel: Kernel
    visible: Visible | None
    formula: str
    skip_reason: str | None = None


def documents_of(position_ids: Ints) -> Ints | None:
    """find_packed_sequence_indices: int64 [B, S], a new number where positions do not go on by one; None where they always do."""
    first = position_ids[:, :1] - 1
    found = (np.diff(position_ids, prepend=first, axis=-1) != 1).cumsum(axis=-1)
    return None if (found[:, -1] == 0).all() else found


def text_positions(position_ids: Ints | None) -> Ints | None:
    """The [B, S] position ids that masks are made from: those given, or the first of Qwen2-VL's four rows; three rows are no text ids."""
    if position_ids is None or position_ids.ndim == 2:
        return position_ids
    return position_ids[0] if position_ids.shape[0] == 4 else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Call:
    """One call of a mask factory: the extents, the pattern, and the inputs as the factory sees them. `mask` is bool [B, N] or None."""

    inputs: Inputs
    pattern: Pattern
    extent: Extent
    dtype: str
    mask: Bools | None
    positions: Ints | None
    batch: int
    q_len: int

    @property
    def padded(self) -> Bools | None:
        """prepare_padding_mask and the key offset: bool [B, kv_len] for the keys at hand."""
        if self.mask is None:
            return None
        stop = self.extent.kv_offset + self.extent.kv_len
        short = max(stop - self.mask.shape[1], 0)
        return np.pad(self.mask, ((0, 0), (0, short)))[:, self.extent.kv_offset : stop]

    @property
    def documents(self) -> Ints | None:
        """The packed documents that the mask factory sees: only without a mask and without a cache."""
        seen = self.pattern.packs and self.mask is None and self.inputs.cache.kind == "none"
        return documents_of(self.positions) if seen and self.positions is not None else None

    @property
    def image(self) -> Ints | None:
        """token_type_ids, where this layer makes blocks of them."""
        return self.inputs.image if self.pattern.blocks is not None else None


def make(call: Call, backend: str) -> Made:
    """What a layer receives under `backend`, and which keys its queries then see."""
    if call.inputs.mask_4d is not None:
        from llmdoctor.mask.handmade import made_by_hand

        return made_by_hand(call, backend)
    return {"eager": _eager, "sdpa": _sdpa, "flash_attention_2": _flash, "flex_attention": _flex}[backend](call)


def formula_of(call: Call) -> str:
    """The mask function as a formula, as nested in masking_utils.py."""
    pattern = call.pattern
    text: str = pattern.base
    cut = False  # whether images are joined inside the window, and inside the document
    if pattern.local == "window":
        cut = pattern.blocks == "window" and call.image is not None
        sides = " at either side" if pattern.base == "bidirectional" else ""
        text = f"AND[window {pattern.size}{sides}, {f'OR[{text}, image]' if cut else text}]"
    elif pattern.local == "chunk":
        text = f"AND[chunk {pattern.size}, {text}]"
    if call.documents is not None:
        text = f"AND[packed, REMAP[{text}]]"
    if call.image is not None and not cut:
        text = f"OR[{text}, image]"
    return _padded_formula(call, text)


def _padded_formula(call: Call, text: str) -> str:
    padded = call.padded
    return text if padded is None or bool(padded.all()) else f"AND[{text}, padding]"


def _intervals(call: Call, shift: int = 0) -> tuple[Ints, Ints]:
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
    if call.image is not None:
        low, high = _with_images(call, low, high, at)
    low, high = _alike(low - extent.kv_offset, high - extent.kv_offset)
    return np.clip(low, 0, extent.kv_len), np.clip(high, 0, extent.kv_len)


def _alike(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Both with the rows of the one that has more."""
    low, high = np.broadcast_arrays(low, high)
    return low, high


def _left_padding(call: Call) -> Ints:
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


def _with_images(call: Call, low: Ints, high: Ints, at: Ints) -> tuple[Ints, Ints]:
    """Each image is seen whole by its own tokens (blockwise_overlay); ids are padded with -1 up to the keys at hand.

    Where the window cuts the image it does so inside the documents, whose tokens are looked up by their own positions.
    """
    image, documents, positions = call.image, call.documents, call.positions
    if image is None or call.inputs.phase != "prefill":
        return low, high
    start, end = image_blocks(image)
    if call.pattern.blocks == "window" and call.pattern.local == "window":
        if documents is None or positions is None:
            return _alike(low, np.where(start >= 0, np.maximum(high, end), high))
        where = np.clip(np.broadcast_to(positions, image.shape), 0, image.shape[1] - 1)
        start, end = np.take_along_axis(start, where, axis=1), np.take_along_axis(end, where, axis=1) + at - positions
        return _alike(low, np.where(start >= 0, np.minimum(np.maximum(high, end), _ends(documents)[1]), high))
    inside = start >= 0
    return np.where(inside, np.minimum(low, start), low), np.where(inside, np.maximum(high, end), high)


def image_blocks(image: Ints) -> tuple[Ints, Ints]:
    """int64 [B, S] twice: start and end of the run of image tokens that a token lies in; -1 and 0 for text."""
    at = np.arange(image.shape[1], dtype=np.int64)[None, :]
    is_image = image == 1
    before = np.pad(is_image, ((0, 0), (1, 0)))[:, :-1]
    after = np.pad(is_image, ((0, 0), (0, 1)))[:, 1:]
    start = np.maximum.accumulate(np.where(is_image & ~before, at, -1), axis=-1)
    end = np.minimum.accumulate(np.where(is_image & ~after, at + 1, image.shape[1])[:, ::-1], axis=-1)[:, ::-1]
    return np.where(is_image, start, -1), np.where(is_image, end, 0)


def visible_of(call: Call, low: Ints, high: Ints, keys: Bools | None) -> Visible:
    """Rows that are alike are held once."""
    rows = max(low.shape[0], 1 if keys is None else keys.shape[0])
    if keys is not None and bool(keys.all()):
        keys, rows = None, low.shape[0]
    if keys is not None and rows != low.shape[0]:
        low, high = np.broadcast_to(low, (rows, low.shape[1])), np.broadcast_to(high, (rows, high.shape[1]))
    if keys is not None and rows != keys.shape[0]:
        keys = np.broadcast_to(keys, (rows, keys.shape[1]))
    return Visible(call.extent.kv_len, low, high, keys, repeat=call.batch // rows)


def _written_out(call: Call, dtype: str) -> tuple[Object, Visible]:
    """The 4-D tensor, [B, 1, Q, KV] (sdpa_mask with no skip); a bool mask that no row differs in is an expanded view of one row."""
    low, high = _intervals(call)
    visible = visible_of(call, low, high, call.padded)
    extent, pattern = call.extent, call.pattern
    shape = (call.batch, 1, call.q_len, extent.kv_len)
    logical = int(np.prod(shape, dtype=object)) * SIZES[dtype]
    by_row = call.mask is not None or call.documents is not None or pattern.local == "chunk" or call.image is not None
    storage = logical if by_row or dtype != "bool" else logical // call.batch
    return Object("tensor", shape, dtype, logical, storage), visible


def _everything(call: Call) -> tuple[Ints, Ints]:
    return np.zeros((1, call.q_len), np.int64), np.full((1, call.q_len), call.extent.kv_len, np.int64)


def _no_bias(call: Call) -> str | None:
    """_ignore_bidirectional_mask_sdpa: why a bidirectional mask is left out."""
    padded, pattern, extent = call.padded, call.pattern, call.extent
    if pattern.base != "bidirectional" or not pattern.skips or call.image is not None:
        return None
    if padded is not None and not padded.all():
        return None
    if pattern.local == "window" and extent.kv_len >= pattern.size:
        return None
    return "bidirectional and no padding: nothing to mask"


def _eager(call: Call) -> Made:
    """eager_mask: written out for every causal layer; 0 where seen, the dtype's lowest number elsewhere."""
    reason = _no_bias(call)
    if reason is not None:
        return Made(NOTHING, Kernel(False), visible_of(call, *_everything(call), None), formula_of(call), reason)
    made, visible = _written_out(call, call.dtype)
    return Made(made, Kernel(False), visible, formula_of(call))


def _sdpa(call: Call) -> Made:
    """sdpa_mask, and what sdpa_attention_forward then does with None."""
    causal = call.pattern.base == "causal"
    reason = _ignored_causal(call) if causal else _no_bias(call)
    if reason is None:
        made, visible = _written_out(call, "bool")
        return Made(made, Kernel(False), visible, formula_of(call))
    told = causal and call.q_len > 1
    if told:  # is_causal is aligned at the top left: query i sees keys 0..i whatever the number of keys
        high = np.minimum(np.arange(1, call.q_len + 1, dtype=np.int64)[None, :], call.extent.kv_len)
        return Made(NOTHING, Kernel(True), visible_of(call, np.zeros_like(high), high, None), formula_of(call), reason)
    return Made(NOTHING, Kernel(False), visible_of(call, *_everything(call), None), formula_of(call), reason)


def _ignored_causal(call: Call) -> str | None:
    """_ignore_causal_mask_sdpa with the conditions of create_causal_mask: why a causal mask is left out."""
    pattern, extent, q_len = call.pattern, call.extent, call.q_len
    compiled = extent.static and q_len == 1  # a static cache is compileable: its decode always gets a mask
    if not pattern.skips or compiled or call.documents is not None or call.image is not None:
        return None
    if pattern.local is not None and extent.kv_len >= pattern.size:
        return None
    padded = call.padded
    clear = padded is None or bool(padded.all())
    if (q_len in (1, extent.kv_len)) and clear:
        return "one query, no padding: it sees every key" if q_len == 1 else "no padding, as many queries as keys: is_causal says it all"
    if extent.q_offset == 0 and (padded is None or bool(padded[:, :q_len].all() and not padded[:, q_len:].any())):
        return "an empty cache and padding only behind the tokens: is_causal says it all"
    return None


def _flex(call: Call) -> Made:
    """flex_attention_mask: a BlockMask over [B, 1, Q, KV], its function kept and called again inside the kernel."""
    extent = call.extent
    low, high = _intervals(call)
    keys = None if call.mask is None or bool(call.mask.all()) else call.padded
    if extent.counter and call.pattern.base == "causal":
        # q_offset is the static cache's own counter, moved on by update() before the kernel calls the function: later slots come into
        # view, in those blocks that were not found empty when the mask was made.
        moved = _intervals(call, shift=call.q_len)[1]
        band = np.minimum((np.arange(call.q_len, dtype=np.int64) // BLOCK + 1) * BLOCK, call.q_len) + extent.q_offset
        high = np.maximum(high, np.minimum(moved, -(-band // BLOCK) * BLOCK))
    queries, blocks = -(-call.q_len // BLOCK), -(-extent.kv_len // BLOCK)
    size = 4 * call.batch * (2 * (queries + queries * blocks) + 2 * (blocks + queries * blocks))
    made = Object("block_mask", (call.batch, 1, call.q_len, extent.kv_len), None, size, size)
    return Made(made, Kernel(False), visible_of(call, low, high, keys), formula_of(call))


def _flash(call: Call) -> Made:
    """flash_attention_mask and _flash_attention_forward: a 2-D mask or nothing; the kernel aligns causality at the bottom right."""
    extent, pattern = call.extent, call.pattern
    mask = call.mask[:, -extent.kv_len :] if call.mask is not None else None
    if mask is not None and mask.shape[1] == extent.kv_len and bool(mask.all()):
        mask = None
    causal = pattern.base == "causal"
    limited = pattern.local == "window" and pattern.flash_window and extent.kv_len > pattern.width
    window = (pattern.width - 1, pattern.width - 1) if limited else None
    if mask is not None:
        return _varlen(call, mask, Kernel(causal, window))
    positions = call.positions if pattern.flash_packs else None
    if positions is not None and call.batch == 1 and positions.shape[-1] > 1:
        line = positions.reshape(-1)
        if bool((np.arange(len(line)) + line.min() != line).any()):
            return _packed(call, line, Kernel(causal, window))
    low, high = _bottom_right(call.q_len, extent.kv_len, causal, window)
    reason = "no padding: the kernel is told causal" if causal else "no padding: nothing to mask"
    return Made(NOTHING, Kernel(causal, window), visible_of(call, low[None], high[None], None), _flash_formula(call, window), reason)


def _flash_formula(call: Call, window: tuple[int, int] | None) -> str:
    """What the kernel masks: flash-attention knows causal, a window and lengths, nothing else."""
    text = call.pattern.base
    return text if window is None else f"AND[window {window[0] + 1}, {text}]"


def _bottom_right(q_len: int, kv_len: int, causal: bool, window: tuple[int, int] | None) -> tuple[Ints, Ints]:
    """lo and hi, int64 [Q], of flash-attention: the last query is at the last key."""
    at = np.arange(q_len, dtype=np.int64) + kv_len - q_len
    low, high = np.zeros_like(at), at + 1 if causal else np.full_like(at, kv_len)
    if window is not None:
        low = at - window[0]
        high = high if causal else np.minimum(at + window[1] + 1, high)
    return np.clip(low, 0, kv_len), np.clip(high, 0, kv_len)


def _varlen(call: Call, mask: Bools, kernel: Kernel) -> Made:
    """_upad_input: padded keys and queries are taken out, what remains is causal by itself."""
    width, q_len = mask.shape[1], call.q_len
    queries = mask if q_len == width else np.ones((call.batch, 1), np.bool_) if q_len == 1 else mask[:, -q_len:]
    low, high = np.zeros((2, call.batch, q_len), np.int64)
    for row in range(call.batch):
        real, asked = np.flatnonzero(mask[row]), np.flatnonzero(queries[row])
        if len(real) == 0 or len(asked) == 0:
            continue
        start, end = _bottom_right(len(asked), len(real), bool(kernel.is_causal), kernel.window)
        low[row, asked] = real[np.minimum(start, len(real) - 1)]
        high[row, asked] = np.where(end > start, real[np.maximum(end, 1) - 1] + 1, low[row, asked])
    keys = np.zeros((call.batch, call.extent.kv_len), np.bool_)
    keys[:, :width] = mask[:, : call.extent.kv_len]
    offsets = tuple(int(end) for end in np.concatenate(([0], mask.sum(axis=1).cumsum())))
    offsets_q = tuple(int(end) for end in np.concatenate(([0], queries.sum(axis=1).cumsum())))
    told = Kernel(kernel.is_causal, kernel.window, offsets, offsets_q)
    bytes_ = int(mask.size)
    made = Object("varlen", tuple(mask.shape), "bool", bytes_, bytes_)
    visible = Visible(call.extent.kv_len, low, high, keys)
    return Made(made, told, visible, f"AND[{_flash_formula(call, kernel.window)}, padding]")


def _packed(call: Call, positions: Ints, kernel: Kernel) -> Made:
    """_prepare_from_posids: a document begins wherever the lowest position stands."""
    starts = np.flatnonzero(positions == positions.min())
    offsets = np.append(starts, len(positions))
    low, high = np.zeros((2, 1, call.q_len), np.int64)
    for start, end in itertools.pairwise(offsets):
        size = int(end - start)
        first, last = _bottom_right(size, size, bool(kernel.is_causal), kernel.window)
        low[0, start:end], high[0, start:end] = first + start, last + start
    told = tuple(int(offset) for offset in offsets)
    formula = f"AND[packed, REMAP[{_flash_formula(call, kernel.window)}]]"
    return Made(
        Object("varlen"), Kernel(kernel.is_causal, kernel.window, told, told), visible_of(call, low, high, None), formula,
        "no 2-D mask: the lengths come from position_ids",
    )  # fmt: skip


def call_of(inputs: Inputs, pattern: Pattern, extent: Extent, dtype: str) -> Call:
    """The factory's view of the inputs: the 2-D mask as bool."""
    mask = inputs.mask_2d
    seen = None if mask is None else mask.astype(np.bool_)
    positions = text_positions(inputs.position_ids)
    return Call(inputs, pattern, extent, dtype, seen, None if positions is None else as_ints(positions), inputs.batch, inputs.q_len)
