"""A call of one of transformers' mask factories: its inputs and its result (transformers 5.23 masking_utils.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmdoctor.mask.cachesize import CacheExtent
from llmdoctor.mask.documents import documents_of, text_positions
from llmdoctor.mask.intervals import Bools, Ints, Visible, as_ints
from llmdoctor.mask.types import ForwardInputs, KernelArguments, MaskObject


@dataclass(frozen=True, slots=True)
class BlockRule:
    """Which tokens see one another in both directions (blockwise_overlay).

    `field` is the argument of forward() that marks them with one of `values`. Each run of marked tokens is a block (`each_run`), or all marked
    tokens of a row are one. `inside_window` is True if sliding layers cut the block by their window. `always` is True if the model passes block ids
    even without the argument, so that the mask is never left out.
    """

    field: Literal["token_type_ids", "mm_token_type_ids"]
    values: tuple[int, ...]
    each_run: bool
    inside_window: bool
    always: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MaskPattern:
    """A layer's mask function.

    `base` is causal or bidirectional. `local` is the window or the chunk, `size` its tokens: of a causal window with the query itself, of a
    bidirectional one the tokens at either side. `blocks` are tokens that see one another. `packs` is True if position_ids reach the function.
    `skips` is False if the model always wants the mask written out. `flash_packs` and `flash_window` are False if the positions or the
    window do not reach flash-attention. `flag` is the kernel's is_causal if no mask is passed. `topk` is the number of keys that an indexer
    keeps (0: there is none): which of more keys those are depends on the weights. `kernel_size` is the window that flash-attention
    is given, if it is not that of the mask (0: it is).
    """

    base: Literal["causal", "bidirectional"] = "causal"
    local: Literal["window", "chunk"] | None = None
    size: int = 0
    blocks: BlockRule | None = None
    packs: bool = True
    skips: bool = True
    flash_packs: bool = True
    flash_window: bool = True
    flag: bool = True
    topk: int = 0
    kernel_size: int = 0

    @property
    def width(self) -> int:
        """Return the window as the cache and flash-attention receive it; the latter sees one less at either side."""
        return self.kernel_size or self.size + (self.local == "window" and self.base == "bidirectional")

    @property
    def is_causal(self) -> bool:
        """Return whether the kernel is told that the layer is causal."""
        return self.base == "causal" and self.flag


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FactoryResult:
    """The mask that a layer receives, the kernel's arguments, and the pairs that are then seen; `visible` is None if they are not known."""

    object: MaskObject
    kernel: KernelArguments
    visible: Visible | None
    formula: str
    skip_reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FactoryCall:
    """One call of a mask factory: the extents, the pattern, and the inputs as the factory sees them. `mask` is bool [B, N] or None."""

    inputs: ForwardInputs
    pattern: MaskPattern
    extent: CacheExtent
    dtype: str
    mask: Bools | None
    positions: Ints | None
    batch: int
    q_len: int

    @property
    def padded(self) -> Bools | None:
        """Return the 2-D mask of the keys at hand, bool [B, kv_len] (prepare_padding_mask); None without a mask."""
        if self.mask is None:
            return None
        stop = self.extent.kv_offset + self.extent.kv_len
        short = max(stop - self.mask.shape[1], 0)
        return np.pad(self.mask, ((0, 0), (0, short)))[:, self.extent.kv_offset : stop]

    @property
    def documents(self) -> Ints | None:
        """Return the packed documents that the mask factory sees: only without a mask and without a cache."""
        seen = self.pattern.packs and self.mask is None and self.inputs.cache.kind == "none"
        return documents_of(self.positions) if seen and self.positions is not None else None

    @property
    def blocks(self) -> Ints | None:
        """Return the block of each token, int64 [B, S], -1 for none; None if this layer makes no blocks of these inputs."""
        return None if self.pattern.blocks is None else block_ids(self.inputs, self.pattern.blocks)


def block_ids(inputs: ForwardInputs, rule: BlockRule) -> Ints | None:
    """Return the block of each token, int64 [B, S], -1 for none; None if the model is not given the field that marks them."""
    marks = inputs.token_types if rule.field == "token_type_ids" else inputs.media
    if rule.always and (marks is None or inputs.phase != "prefill"):
        return np.full((inputs.batch, inputs.q_len), -1, np.int64)
    if marks is None or inputs.phase != "prefill":
        return None
    marked = np.isin(marks, rule.values)
    if not rule.each_run:
        return np.where(marked, 0, -1).astype(np.int64)
    fresh = marked & ~np.pad(marked, ((0, 0), (1, 0)))[:, :-1]
    return np.where(marked, fresh.cumsum(axis=-1) - 1, -1).astype(np.int64)


def call_of(inputs: ForwardInputs, pattern: MaskPattern, extent: CacheExtent, dtype: str) -> FactoryCall:
    """Return the call of the factory for one kind of layer."""
    mask = inputs.mask_2d
    seen = None if mask is None else mask.astype(np.bool_)
    positions = text_positions(inputs.position_ids)
    return FactoryCall(
        inputs=inputs,
        pattern=pattern,
        extent=extent,
        dtype=dtype,
        mask=seen,
        positions=None if positions is None else as_ints(positions),
        batch=inputs.batch,
        q_len=inputs.q_len,
    )


def visible_of(call: FactoryCall, low: Ints, high: Ints, keys: Bools | None) -> Visible:
    """Return the visible keys of a call; rows that are alike are held once."""
    rows = max(low.shape[0], 1 if keys is None else keys.shape[0])
    if keys is not None and bool(keys.all()):
        keys, rows = None, low.shape[0]
    if keys is not None and rows != low.shape[0]:
        low, high = np.broadcast_to(low, (rows, low.shape[1])), np.broadcast_to(high, (rows, high.shape[1]))
    if keys is not None and rows != keys.shape[0]:
        keys = np.broadcast_to(keys, (rows, keys.shape[1]))
    return Visible(call.extent.kv_len, low, high, keys, repeat=call.batch // rows)
