"""From inputs and a layer's pattern to the mask that a layer receives: transformers 5.23's masking_utils.py without tensors.

Each function names the one of the library that it follows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llmdoctor.mask.bands import bands_of, broken_blocks, formula_of
from llmdoctor.mask.calls import FactoryCall, FactoryResult, visible_of
from llmdoctor.mask.intervals import Ints, Visible
from llmdoctor.mask.own_mask import own_mask_result
from llmdoctor.mask.types import BLOCK, NOTHING, SIZES, KernelArguments, MaskObject
from llmdoctor.mask.varlen import flash_result

DENSE = 2**24  # pairs of a mask that is held pair by pair because no interval can hold it


def make(call: FactoryCall, backend: str) -> FactoryResult:
    """Return what a layer receives under `backend`, and the keys its queries then see."""
    if call.inputs.mask_4d is not None:
        return own_mask_result(call, backend)
    makers = {"eager": _eager, "sdpa": _sdpa, "flash_attention_2": flash_result, "flex_attention": _flex}
    made = makers[backend](call)
    if 0 < call.pattern.topk < call.extent.kv_len:
        return replace(made, visible=None)
    if made.object.kind in ("tensor", "block_mask") and broken_blocks(call):
        return replace(made, visible=_pair_by_pair(call))
    return made


def _pair_by_pair(call: FactoryCall) -> Visible | None:
    """Return what the queries see if a block has other tokens inside it; None if there are too many pairs."""
    ids, rule, extent = call.blocks, call.pattern.blocks, call.extent
    if ids is None or rule is None or call.batch * call.q_len * extent.kv_len > DENSE or call.documents is not None:
        return None
    low, high = bands_of(replace(call, pattern=replace(call.pattern, blocks=None)))
    key = np.arange(extent.kv_len)
    seen = (key >= low[..., None]) & (key < high[..., None])
    wide = np.pad(ids, ((0, 0), (0, max(extent.kv_len - ids.shape[1], 0))), constant_values=-1)[:, : extent.kv_len]
    seen = seen | ((ids[:, :, None] == wide[:, None, :]) & (ids >= 0)[:, :, None])
    if rule.inside_window and call.pattern.local == "window":
        seen &= key > np.arange(call.q_len)[None, :, None] - call.pattern.size
    padded = call.padded
    if padded is not None:
        seen &= padded[:, None, :]
    none = np.zeros((seen.shape[0], call.q_len), np.int64)
    return Visible(extent.kv_len, none, none, repeat=call.batch // seen.shape[0], dense=seen)


def _written_out(call: FactoryCall, dtype: str) -> tuple[MaskObject, Visible]:
    """The 4-D tensor, [B, 1, Q, KV] (sdpa_mask with no skip); a bool mask that no row differs in is an expanded view of one row."""
    low, high = bands_of(call)
    visible = visible_of(call, low, high, call.padded)
    extent, pattern = call.extent, call.pattern
    shape = (call.batch, 1, call.q_len, extent.kv_len)
    logical = int(np.prod(shape, dtype=object)) * SIZES[dtype]
    by_row = call.mask is not None or call.documents is not None or pattern.local == "chunk" or call.blocks is not None or pattern.topk > 0
    storage = logical if by_row or dtype != "bool" else logical // call.batch
    return MaskObject("tensor", shape, dtype, logical, storage), visible


def _everything(call: FactoryCall) -> tuple[Ints, Ints]:
    return np.zeros((1, call.q_len), np.int64), np.full((1, call.q_len), call.extent.kv_len, np.int64)


def _no_bias(call: FactoryCall) -> str | None:
    """_ignore_bidirectional_mask_sdpa: why a bidirectional mask is left out."""
    padded, pattern, extent = call.padded, call.pattern, call.extent
    if pattern.base != "bidirectional" or not pattern.skips or call.blocks is not None:
        return None
    if padded is not None and not padded.all():
        return None
    if pattern.local == "window" and extent.kv_len >= pattern.size:
        return None
    return "bidirectional and no padding: nothing to mask"


def _eager(call: FactoryCall) -> FactoryResult:
    """eager_mask: written out for every causal layer; 0 where seen, the dtype's lowest number elsewhere."""
    reason = _no_bias(call)
    if reason is not None:
        return FactoryResult(NOTHING, KernelArguments(False), visible_of(call, *_everything(call), None), formula_of(call), reason)
    made, visible = _written_out(call, call.dtype)
    return FactoryResult(made, KernelArguments(False), visible, formula_of(call))


def _sdpa(call: FactoryCall) -> FactoryResult:
    """sdpa_mask, and what sdpa_attention_forward then does with None."""
    causal = call.pattern.base == "causal"
    reason = _ignored_causal(call) if causal else _no_bias(call)
    if reason is None:
        made, visible = _written_out(call, "bool")
        return FactoryResult(made, KernelArguments(False), visible, formula_of(call))
    if (
        call.pattern.is_causal and call.q_len > 1
    ):  # is_causal is aligned at the top left: query i sees keys 0..i whatever the number of keys
        high = np.minimum(np.arange(1, call.q_len + 1, dtype=np.int64)[None, :], call.extent.kv_len)
        return FactoryResult(NOTHING, KernelArguments(True), visible_of(call, np.zeros_like(high), high, None), formula_of(call), reason)
    return FactoryResult(NOTHING, KernelArguments(False), visible_of(call, *_everything(call), None), formula_of(call), reason)


def _ignored_causal(call: FactoryCall) -> str | None:
    """_ignore_causal_mask_sdpa with the conditions of create_causal_mask: why a causal mask is left out."""
    pattern, extent, q_len = call.pattern, call.extent, call.q_len
    compiled = extent.static and q_len == 1  # a static cache is compileable: its decode always gets a mask
    if not pattern.skips or compiled or call.documents is not None or call.blocks is not None:
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


def _flex(call: FactoryCall) -> FactoryResult:
    """flex_attention_mask: a BlockMask over [B, 1, Q, KV], its function kept and called again inside the kernel."""
    extent = call.extent
    low, high = bands_of(call)
    keys = None if call.mask is None or bool(call.mask.all()) else call.padded
    if extent.counter and call.pattern.base == "causal":
        # q_offset is the static cache's own counter, moved on by update() before the kernel calls the function: later slots come into
        # view, in those blocks that were not found empty when the mask was made.
        moved = bands_of(call, shift=call.q_len)[1]
        band = np.minimum((np.arange(call.q_len, dtype=np.int64) // BLOCK + 1) * BLOCK, call.q_len) + extent.q_offset
        high = np.maximum(high, np.minimum(moved, -(-band // BLOCK) * BLOCK))
    queries, blocks = -(-call.q_len // BLOCK), -(-extent.kv_len // BLOCK)
    size = 4 * call.batch * (2 * (queries + queries * blocks) + 2 * (blocks + queries * blocks))
    made = MaskObject("block_mask", (call.batch, 1, call.q_len, extent.kv_len), None, size, size)
    return FactoryResult(made, KernelArguments(False), visible_of(call, low, high, keys), formula_of(call))
