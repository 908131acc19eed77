"""One backend's layers, from a config and inputs, with no weights, no torch and no S x S tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from llmdoctor.mask.architectures import Architecture, Layer
from llmdoctor.mask.cachesize import Extent, extent
from llmdoctor.mask.factory import Made, call_of, make
from llmdoctor.mask.model import NOTHING, SIZES, Inputs, Kernel, LayerMask, Object, Plan


def plan(arch: Architecture, inputs: Inputs, backend: str, dtype: str, *, counted: bool = True) -> Plan:
    """What each layer receives under `backend` in a model of `dtype`, or the error that the library raises.

    Without `counted` the visible pairs are not counted.
    """
    error = arch.refusal(backend) or _fails(arch, inputs)
    if error is not None:
        return Plan(backend, error=error)
    found: list[LayerMask] = []
    if arch.encoder and inputs.phase == "prefill":
        found += _groups(arch, arch.encoder, _encoder_inputs(inputs), backend, dtype, counted)
    found += _groups(arch, arch.layers, _decoder_inputs(arch, inputs), backend, dtype, counted)
    if arch.cross:
        found += _groups(arch, arch.cross, inputs, backend, dtype, counted)
    return Plan(backend, tuple(found), unobserved=arch.not_understood)


def _fails(arch: Architecture, inputs: Inputs) -> str | None:
    """What the library raises whatever the backend."""
    mask = inputs.mask_2d
    if arch.alibi and inputs.cache.kind == "static" and mask is not None and mask.shape[1] != inputs.cache.size:
        return (
            f"RuntimeError: The expanded size of the tensor ({inputs.cache.size}) must match the existing size ({mask.shape[1]}) at "
            "non-singleton dimension 2: the alibi bias is as long as the mask, not as the cache"
        )
    return None


def _encoder_inputs(inputs: Inputs) -> Inputs:
    from llmdoctor.mask.model import CachePlan

    return replace(inputs, cache=CachePlan(), position_ids=None)


def _decoder_inputs(arch: Architecture, inputs: Inputs) -> Inputs:
    """An encoder-decoder's own mask is its encoder's: the decoder gets none. M-RoPE needs four rows of positions to see documents."""
    if arch.cross:
        return replace(inputs, attention_mask=None, position_ids=None)
    positions = inputs.position_ids
    if arch.mrope and positions is not None and (positions.ndim == 2 or positions.shape[0] != 4):
        return inputs if arch.expands and positions.ndim == 2 else replace(inputs, position_ids=None)
    return inputs


def _groups(arch: Architecture, layers: tuple[Layer, ...], inputs: Inputs, backend: str, dtype: str, counted: bool) -> list[LayerMask]:
    """Layers that get the same, together."""
    by_kind: dict[Any, list[Layer]] = {}
    for layer in layers:
        pattern = layer.pattern
        key = (layer.type, layer.cache_window, None if pattern is None else (pattern.local, pattern.size))
        by_kind.setdefault(key, []).append(layer)
    return [_group(arch, alike, inputs, backend, dtype, counted) for alike in by_kind.values()]


def _group(arch: Architecture, alike: list[Layer], inputs: Inputs, backend: str, dtype: str, counted: bool) -> LayerMask:
    first, indices = alike[0], tuple(layer.index for layer in alike)
    if first.pattern is None:
        return _linear(arch, indices, inputs, backend)
    if first.type == "cross":
        size, given = _cross_extent(inputs)
        call = call_of(given, first.pattern, size, dtype)
        made = make(call, backend)
    else:
        size = extent(inputs, first.cache_window)
        call = call_of(inputs, first.pattern, size, dtype)
        made = _module(arch, make(call, backend), backend, dtype)
    made = _biased(arch, made, backend, dtype, inputs)
    visible = made.visible
    count = visible.count() if visible is not None and counted else None
    total = inputs.batch * inputs.q_len * size.kv_len
    return LayerMask(
        indices, first.type, backend, inputs.q_len, size.kv_len, size.q_offset, made.formula, made.object, made.kernel, visible,
        made.skip_reason, arch.verified and visible is not None, count, total,
    )  # fmt: skip


def _cross_extent(inputs: Inputs) -> tuple[Extent, Inputs]:
    """Cross-attention: as many keys as the encoder had tokens, under the encoder's mask; its cache is already full in decode."""
    from llmdoctor.mask.model import CachePlan

    length = inputs.q_len if inputs.phase == "prefill" else inputs.past
    mask = inputs.mask_2d
    kept = None if mask is None else mask[:, :length]
    return Extent(length, 0, 0), replace(inputs, attention_mask=kept, cache=CachePlan(), position_ids=None)


def _linear(arch: Architecture, indices: tuple[int, ...], inputs: Inputs, backend: str) -> LayerMask:
    """Mamba, DeltaNet, short convolutions: create_recurrent_attention_mask, or the caller's own mask as it is."""
    mask = inputs.mask_2d
    reason = None
    if mask is None:
        reason = "no mask is passed"
    elif arch.linear == "recurrent" and inputs.q_len == 1:
        reason = "a single new token is never padding"
    elif arch.linear == "recurrent" and bool((mask == 1).all()):
        reason = "no padding"
    made = NOTHING
    if mask is not None and reason is None:
        kept = mask[:, -inputs.q_len :] if arch.linear == "recurrent" else mask
        size = int(kept.size) * SIZES["int64"]
        made = Object("tensor", tuple(kept.shape), "int64", size, size)
    formula = "none: a linear layer reads its state, padding is zeroed" if made.kind == "tensor" else "none: a linear layer reads its state"
    return LayerMask(indices, "linear", backend, inputs.q_len, None, inputs.past, formula, made, Kernel(), None, reason, arch.verified)


def _module(arch: Architecture, made: Made, backend: str, dtype: str) -> Made:
    """Falcon with alibi writes its bias into the mask, one head each, always in floats (models/falcon/modeling_falcon.py)."""
    if arch.model_type != "falcon" or not arch.alibi or backend not in ("eager", "sdpa") or made.object.kind != "tensor":
        return made
    batch, _, q_len, kv_len = made.object.shape or (0, 0, 0, 0)
    shape = (batch, arch.heads, q_len, kv_len)
    size = int(np.prod(shape, dtype=object)) * SIZES[dtype]
    return replace(made, object=Object("tensor", shape, dtype, size, size))


def _biased(arch: Architecture, made: Made, backend: str, dtype: str, inputs: Inputs) -> Made:
    """T5 under sdpa: position bias and mask become one float mask (create_position_bias_mask), and causality is in it."""
    if not arch.bias or backend != "sdpa" or made.visible is None:
        return made
    batch = 1 if made.object.kind == "none" else inputs.batch
    shape = (batch, arch.heads, inputs.q_len, made.visible.kv_len)
    size = int(np.prod(shape, dtype=object)) * SIZES[dtype]
    return replace(made, kernel=replace(made.kernel, is_causal=False, mask=Object("tensor", shape, dtype, size, size)))
