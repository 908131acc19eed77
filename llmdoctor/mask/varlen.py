"""flash_attention_mask and _flash_attention_forward of transformers 5.23: a 2-D mask, offsets of sequences, or nothing."""

from __future__ import annotations

import itertools

import numpy as np

from llmdoctor.mask.calls import FactoryCall, FactoryResult, visible_of
from llmdoctor.mask.intervals import Bools, Ints, Visible
from llmdoctor.mask.types import NOTHING, KernelArguments, MaskObject


def flash_result(call: FactoryCall) -> FactoryResult:
    """flash_attention_mask and _flash_attention_forward: a 2-D mask or nothing; the kernel aligns causality at the bottom right."""
    extent, pattern = call.extent, call.pattern
    mask = call.mask[:, -extent.kv_len :] if call.mask is not None else None
    if mask is not None and mask.shape[1] == extent.kv_len and bool(mask.all()):
        mask = None
    causal = pattern.is_causal
    limited = pattern.local == "window" and pattern.flash_window and extent.kv_len > pattern.width
    window = (pattern.width - 1, pattern.width - 1) if limited else None
    if mask is not None:
        return _varlen(call, mask, KernelArguments(causal, window))
    if call.inputs.varlen and call.inputs.cu_seqlens is not None and pattern.flash_packs:
        return _documents(
            call, np.asarray(call.inputs.cu_seqlens, np.int64), KernelArguments(causal, window), "the lengths come from cu_seq_lens_k"
        )
    positions = call.positions if pattern.flash_packs else None
    if positions is not None and call.batch == 1 and positions.shape[-1] > 1:
        line = positions.reshape(-1)
        if bool((np.arange(len(line)) + line.min() != line).any()):
            return _packed(call, line, KernelArguments(causal, window))
    low, high = _bottom_right(call.q_len, extent.kv_len, causal, window)
    reason = "no padding: the kernel is told causal" if causal else "no padding: nothing to mask"
    return FactoryResult(
        NOTHING, KernelArguments(causal, window), visible_of(call, low[None], high[None], None), _flash_formula(call, window), reason
    )


def _flash_formula(call: FactoryCall, window: tuple[int, int] | None) -> str:
    """What the kernel masks: flash-attention knows causal, a window and lengths, nothing else."""
    text = "causal" if call.pattern.is_causal else "bidirectional"
    return text if window is None else f"AND[window {window[0] + 1}, {text}]"


def _bottom_right(q_len: int, kv_len: int, causal: bool, window: tuple[int, int] | None) -> tuple[Ints, Ints]:
    """lo and hi, int64 [Q], of flash-attention: the last query is at the last key."""
    at = np.arange(q_len, dtype=np.int64) + kv_len - q_len
    low, high = np.zeros_like(at), at + 1 if causal else np.full_like(at, kv_len)
    if window is not None:
        low = at - window[0]
        high = high if causal else np.minimum(at + window[1] + 1, high)
    return np.clip(low, 0, kv_len), np.clip(high, 0, kv_len)


def _varlen(call: FactoryCall, mask: Bools, kernel: KernelArguments) -> FactoryResult:
    """_upad_input: padded keys and queries are taken out, what remains is causal by itself."""
    width, q_len = mask.shape[1], call.q_len
    queries = mask if q_len == width else np.ones((call.batch, 1), np.bool_) if q_len == 1 else mask[:, -q_len:]
    low, high = np.zeros((2, call.batch, q_len), np.int64)
    for row in range(call.batch):
        real, queried = np.flatnonzero(mask[row]), np.flatnonzero(queries[row])
        if len(real) == 0 or len(queried) == 0:
            continue
        start, end = _bottom_right(len(queried), len(real), bool(kernel.is_causal), kernel.window)
        low[row, queried] = real[np.minimum(start, len(real) - 1)]
        high[row, queried] = np.where(end > start, real[np.maximum(end, 1) - 1] + 1, low[row, queried])
    keys = np.zeros((call.batch, call.extent.kv_len), np.bool_)
    keys[:, :width] = mask[:, : call.extent.kv_len]
    offsets = tuple(int(end) for end in np.concatenate(([0], mask.sum(axis=1).cumsum())))
    offsets_q = tuple(int(end) for end in np.concatenate(([0], queries.sum(axis=1).cumsum())))
    arguments = KernelArguments(kernel.is_causal, kernel.window, offsets, offsets_q)
    bytes_ = int(mask.size)
    made = MaskObject("varlen", tuple(mask.shape), "bool", bytes_, bytes_)
    visible = Visible(call.extent.kv_len, low, high, keys)
    return FactoryResult(made, arguments, visible, f"AND[{_flash_formula(call, kernel.window)}, padding]")


def _packed(call: FactoryCall, positions: Ints, kernel: KernelArguments) -> FactoryResult:
    """_prepare_from_posids: a document begins at each token with the lowest position; tokens before the first of them are in none."""
    starts = np.flatnonzero(positions == positions.min())
    return _documents(call, np.append(starts, len(positions)), kernel, "no 2-D mask: the lengths come from position_ids")


def _documents(call: FactoryCall, offsets: Ints, kernel: KernelArguments, reason: str) -> FactoryResult:
    """The varlen kernel over the rows of the batch in one line, which the offsets divide into documents."""
    size, rows = call.q_len, call.batch
    low, high = np.zeros((2, rows * size), np.int64)
    for start, end in itertools.pairwise(int(offset) for offset in offsets):
        first, last = _bottom_right(end - start, end - start, bool(kernel.is_causal), kernel.window)
        low[start:end], high[start:end] = first + start, last + start
    row = np.repeat(
        np.arange(rows, dtype=np.int64) * size, size
    )  # a document over the edge of a row is cut there: its keys are another row's
    low, high = np.clip(low - row, 0, size).reshape(rows, size), np.clip(high - row, 0, size).reshape(rows, size)
    edges = tuple(int(offset) for offset in offsets)
    formula = f"AND[packed, REMAP[{_flash_formula(call, kernel.window)}]]"
    return FactoryResult(
        MaskObject("varlen"),
        KernelArguments(kernel.is_causal, kernel.window, edges, edges),
        visible_of(call, low, high, None),
        formula,
        reason,
    )
