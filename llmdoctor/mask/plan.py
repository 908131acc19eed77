"""One backend's layers, from a config and inputs, with no weights, no torch and no S x S tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.architectures import Architecture, ModelLayer
from llmdoctor.mask.cachesize import CacheExtent, extent
from llmdoctor.mask.calls import FactoryResult, call_of
from llmdoctor.mask.factory import make
from llmdoctor.mask.types import NOTHING, SIZES, BackendPlan, CachePlan, ForwardInputs, KernelArguments, LayerMask, MaskObject, ones


def plan(arch: Architecture, inputs: ForwardInputs, backend: str, dtype: str, *, counted: bool = True) -> BackendPlan:
    """What each layer receives under `backend` in a model of `dtype`, or the error that the library raises.

    Without `counted` the visible pairs are not counted.
    """
    if arch.traits.get("makes_ones") and inputs.attention_mask is None:
        inputs = replace(inputs, attention_mask=ones(inputs.batch, inputs.past + inputs.q_len))
    if not arch.layers and (inputs.phase != "prefill" or inputs.cache.kind != "none"):
        option = f"--phase {inputs.phase}" if inputs.phase != "prefill" else f"--cache {inputs.cache}"
        raise QuestionError(f"{option}: {arch.class_name} is an encoder, which reads a text once, caches nothing and decodes nothing")
    if arch.two_stacks and inputs.cache.kind == "static":
        raise QuestionError(
            f"--cache {inputs.cache}: a static cache of an encoder-decoder ({arch.model_type}) is not known here, say dynamic"
        )
    if arch.two_stacks and unequal(inputs):
        columns = 0 if inputs.mask_2d is None else inputs.mask_2d.shape[1]
        raise QuestionError(
            f"a 2-D mask of {columns} columns for {inputs.q_len} tokens of an encoder-decoder ({arch.model_type}) is not known here: give one a token"
        )
    if arch.two_stacks and inputs.position_ids is not None and "position_ids" in arch.takes:
        raise QuestionError(
            f"position_ids reach only the encoder of {arch.class_name}, and what it makes of them is not known here: use --mode run"
        )
    error = arch.refusal(backend) or _fails(arch, inputs, backend) or _misfit(arch, inputs, backend, dtype)
    if error is not None:
        return BackendPlan(backend, error=error)
    found: list[LayerMask] = []
    if arch.encoder and inputs.phase == "prefill":
        found += _groups(arch, arch.encoder, inputs=_encoder_inputs(arch, inputs), backend=backend, dtype=dtype, counted=counted)
    found += _groups(arch, arch.layers, inputs=_decoder_inputs(arch, inputs), backend=backend, dtype=dtype, counted=counted)
    if arch.cross:
        found += _groups(arch, arch.cross, inputs=inputs, backend=backend, dtype=dtype, counted=counted)
    return BackendPlan(backend, tuple(found), unobserved=arch.not_understood)


def _fails(arch: Architecture, inputs: ForwardInputs, backend: str) -> str | None:
    """What the library raises whatever the backend, and falcon's own refusal of one (models/falcon/modeling_falcon.py)."""
    if arch.raises:
        return arch.raises
    last = inputs.past + inputs.q_len if inputs.position_ids is None else int(inputs.position_ids.max()) + 1
    if arch.longest is not None and last > arch.longest:
        return f"IndexError: index out of range in self: position {last - 1} of a table of {arch.longest} learned positions"
    mask, falcon = inputs.mask_2d, bool(arch.traits.get("bias_in_mask"))
    if arch.alibi and falcon and backend == "flash_attention_2":
        return "ValueError: `alibi` is not supported when `use_flash_attn` is True"
    if arch.alibi and inputs.cache.kind == "static" and (falcon or mask is not None):
        width = inputs.past + inputs.q_len if mask is None else mask.shape[1]
        if width != inputs.cache.size:
            return (
                f"RuntimeError: The expanded size of the tensor ({inputs.cache.size}) must match the existing size ({width}) at non-singleton "
                "dimension 2: the alibi bias is as long as the mask or the tokens, not as the cache"
            )
    if mask is not None and inputs.phase == "chunk" and arch.linear == "raw" and any(layer.pattern is None for layer in arch.layers):
        return f"RuntimeError: the linear layers multiply {inputs.q_len} new tokens by the {mask.shape[1]} columns of the whole mask"
    return None


def _misfit(arch: Architecture, inputs: ForwardInputs, backend: str, dtype: str) -> str | None:
    """What the library raises over a 2-D mask of other columns than tokens: without a cache the mask's columns are taken for the keys."""
    mask = inputs.mask_2d
    if mask is None or not unequal(inputs):
        return None
    text = f"RuntimeError: the mask is made for the {mask.shape[1]} columns of the 2-D mask, and there are {inputs.q_len} keys"
    patterns = [layer.pattern for layer in (*arch.encoder, *arch.layers) if layer.pattern is not None]
    read = arch.linear == "raw" or not bool((mask == 1).all())  # create_recurrent_attention_mask leaves ones out
    if (read and any(layer.pattern is None for layer in arch.layers)) or (arch.alibi and patterns):
        return text
    for pattern in patterns:
        made = make(call_of(inputs, pattern, extent(inputs, None), dtype), backend)
        if made.object.kind in ("tensor", "block_mask"):
            return text
    return None


def unequal(inputs: ForwardInputs) -> bool:
    """Whether there is a 2-D mask, no cache to count by, and not one column a token."""
    mask = inputs.mask_2d
    return mask is not None and inputs.cache.kind == "none" and mask.shape[1] != inputs.q_len


def _encoder_inputs(arch: Architecture, inputs: ForwardInputs) -> ForwardInputs:
    """An encoder has no cache; the positions of an encoder-decoder are not passed on."""
    return replace(inputs, cache=CachePlan(), position_ids=None if arch.two_stacks else inputs.position_ids)


def _decoder_inputs(arch: Architecture, inputs: ForwardInputs) -> ForwardInputs:
    """An encoder-decoder's own mask is its encoder's: the decoder gets none. M-RoPE needs four rows of positions to see documents."""
    if arch.cross:
        length = inputs.q_len if inputs.decoder_ids is None else inputs.decoder_ids.shape[1]
        return replace(inputs, q_len=length, attention_mask=inputs.decoder_mask, position_ids=None)
    positions = inputs.position_ids
    if arch.mrope and positions is not None and (positions.ndim == 2 or positions.shape[0] != 4):
        return inputs if arch.traits.get("mrope_expands") and positions.ndim == 2 else replace(inputs, position_ids=None)
    return inputs


def _groups(
    arch: Architecture, layers: tuple[ModelLayer, ...], inputs: ForwardInputs, backend: str, dtype: str, counted: bool
) -> list[LayerMask]:
    """Layers that get the same, together."""
    by_kind: dict[Any, list[ModelLayer]] = {}
    for layer in layers:
        pattern = layer.pattern
        key = (layer.type, layer.cache_window, None if pattern is None else (pattern.local, pattern.size, pattern.topk))
        by_kind.setdefault(key, []).append(layer)
    return [_group(arch, alike, inputs=inputs, backend=backend, dtype=dtype, counted=counted) for alike in by_kind.values()]


def _group(arch: Architecture, alike: list[ModelLayer], inputs: ForwardInputs, backend: str, dtype: str, counted: bool) -> LayerMask:
    first, indices = alike[0], tuple(layer.index for layer in alike)
    if first.pattern is None:
        return _linear(arch, indices, inputs, backend)
    if first.type == "cross":
        size, given = _cross_extent(inputs)
        made = make(call_of(given, first.pattern, size, dtype), backend)
        inputs = given
    else:
        size = extent(inputs, first.cache_window)
        made = make(call_of(inputs, first.pattern, size, dtype), backend)
        if unequal(inputs):
            size = CacheExtent(
                inputs.q_len, 0, 0
            )  # the kernel has the tokens' own keys; what flash-attention unpads by the mask is not told
            pattern = (
                first.pattern if backend == "flash_attention_2" else replace(first.pattern, local=None)
            )  # a mask left out has no window
            plain = make(call_of(replace(inputs, attention_mask=None), pattern, size, dtype), backend)
            made = plain if made.object.kind == "none" else replace(made, visible=None)
        made = _module(arch, made, backend, dtype)
    made = _biased(arch, made, backend, dtype, inputs)
    visible = made.visible
    count = visible.count() if visible is not None and counted else None
    total = inputs.batch * inputs.q_len * size.kv_len
    return LayerMask(
        layers=indices,
        type=first.type,
        backend=backend,
        q_len=inputs.q_len,
        kv_len=size.kv_len,
        q_offset=size.q_offset,
        formula=made.formula,
        object=made.object,
        kernel=made.kernel,
        visible=visible,
        skip_reason=made.skip_reason,
        exact=arch.verified and visible is not None,
        count=count,
        total=total,
        doubt=arch.doubt or ("" if visible is not None else _not_known(first.pattern.topk)),
    )


def _not_known(topk: int) -> str:
    """Return why the pairs of a mask are not known: an indexer chooses the keys, or the mask is the caller's own."""
    if topk:
        return f"sparse attention: an indexer keeps {topk} keys of each query, and its weights choose which"
    return "the pairs that this mask shows are not known"


def _cross_extent(inputs: ForwardInputs) -> tuple[CacheExtent, ForwardInputs]:
    """Cross-attention: as many keys as the encoder had tokens, under the encoder's mask; its cache is already full in decode."""
    length = inputs.q_len if inputs.phase == "prefill" else inputs.past
    queries = inputs.q_len if inputs.decoder_ids is None or inputs.phase != "prefill" else inputs.decoder_ids.shape[1]
    mask = inputs.mask_2d
    kept = None if mask is None else mask[:, :length]
    return CacheExtent(length, 0, 0), replace(inputs, q_len=queries, attention_mask=kept, cache=CachePlan(), position_ids=None)


def _linear(arch: Architecture, indices: tuple[int, ...], inputs: ForwardInputs, backend: str) -> LayerMask:
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
        made = MaskObject("tensor", tuple(kept.shape), "int64", size, size)
    formula = "none: a linear layer reads its state, padding is zeroed" if made.kind == "tensor" else "none: a linear layer reads its state"
    return LayerMask(
        layers=indices,
        type="linear",
        backend=backend,
        q_len=inputs.q_len,
        kv_len=None,
        q_offset=inputs.past,
        formula=formula,
        object=made,
        kernel=KernelArguments(),
        visible=None,
        skip_reason=reason,
        exact=arch.verified,
        doubt=arch.doubt,
    )


def _module(arch: Architecture, made: FactoryResult, backend: str, dtype: str) -> FactoryResult:
    """Return the mask as the modeling file changes it: MPT makes it bool, Falcon with alibi writes its bias into it, one head each, in floats."""
    if arch.traits.get("mask_as_bool") and made.object.kind == "tensor" and made.object.shape is not None:
        size = int(np.prod(made.object.shape, dtype=object))
        return replace(made, object=MaskObject("tensor", made.object.shape, "bool", size, size))
    if not arch.traits.get("bias_in_mask") or not arch.alibi or backend not in ("eager", "sdpa") or made.object.kind != "tensor":
        return made
    batch, _, q_len, kv_len = made.object.shape or (0, 0, 0, 0)
    shape = (batch, arch.heads, q_len, kv_len)
    size = int(np.prod(shape, dtype=object)) * SIZES[dtype]
    return replace(made, object=MaskObject("tensor", shape, dtype, size, size))


def _biased(arch: Architecture, made: FactoryResult, backend: str, dtype: str, inputs: ForwardInputs) -> FactoryResult:
    """T5 under sdpa: position bias and mask become one float mask (create_position_bias_mask), and causality is in it."""
    if not arch.bias or backend != "sdpa" or made.visible is None:
        return made
    batch = 1 if made.object.kind == "none" else inputs.batch
    shape = (batch, arch.heads, inputs.q_len, made.visible.kv_len)
    size = int(np.prod(shape, dtype=object)) * SIZES[dtype]
    return replace(made, kernel=replace(made.kernel, is_causal=False, mask=MaskObject("tensor", shape, dtype, size, size)))
