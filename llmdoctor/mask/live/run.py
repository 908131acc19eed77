"""One real forward, and each layer's mask read off it: the same nouns as the plan."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.intervals import Visible
from llmdoctor.mask.live.seen import sees
from llmdoctor.mask.live.watch import LayerCall, watching
from llmdoctor.mask.types import NOTHING, BackendPlan, ForwardInputs, KernelArguments, LayerMask, MaskObject

RAISED = (  # what a forward of the library raises over inputs that it does not take
    RuntimeError, ValueError, IndexError, TypeError, AttributeError, NotImplementedError, KeyError, AssertionError, StopIteration,
)  # fmt: skip


def run(model: Any, inputs: ForwardInputs, backend: str) -> BackendPlan:
    """Fill the cache by one forward where there is a past, then watch the next one."""
    import torch

    with torch.no_grad():
        arguments = prepared(model, inputs)
        with watching(model, inputs.batch) as watch:
            model(**arguments)
    return BackendPlan(backend, tuple(groups(model, watch.calls, backend, inputs)))


def attempt(model: Any, inputs: ForwardInputs, backend: str) -> BackendPlan:
    """run(), with what the library raises as the answer."""
    try:
        return run(model, inputs, backend)
    except RAISED as error:
        return BackendPlan(backend, error=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")


def prepared(model: Any, inputs: ForwardInputs) -> dict[str, Any]:
    """The arguments of the forward to watch, on the model's device; a cache in them has been filled by a real forward over the past."""
    return {name: value.to(model.device) if hasattr(value, "numel") else value for name, value in _prepared(model, inputs).items()}


def _prepared(model: Any, inputs: ForwardInputs) -> dict[str, Any]:
    import torch

    config = model.config
    parameters = inspect.signature(model.forward).parameters
    ids = token_ids(model, inputs).to(model.device)
    mask = None if inputs.attention_mask is None else tensor(inputs.attention_mask).to(model.device)
    if mask is not None and inputs.mask_dtype:
        mask = mask.to(getattr(torch, inputs.mask_dtype))
    arguments: dict[str, Any] = {}
    past = inputs.past
    cache, cache_name = make_cache(model, inputs, parameters)
    legacy = cache is not None and _makes_own_cache(model, inputs, cache_name, parameters)
    if getattr(config, "is_encoder_decoder", False):
        return _encoder_decoder(model, inputs, ids, mask, cache, legacy=legacy)
    if past:
        cache = _filled(model, ids[:, :past], mask, cache, cache_name, legacy=legacy)
    if past and "cache_position" in parameters:  # as generate() of those releases does; Qwen2-VL and Mamba need it
        arguments["cache_position"] = torch.arange(past, past + inputs.q_len)
    arguments["input_ids"] = ids[:, past:]
    arguments["use_cache"] = cache is not None
    if cache is not None and (past or not legacy):
        arguments[cache_name] = cache
    if mask is not None and not (legacy and past and cache_name == "cache_params"):  # generate() of those releases leaves it out too
        arguments["attention_mask"] = mask
    if inputs.position_ids is not None:
        arguments["position_ids"] = tensor(inputs.position_ids)
    if not past:
        extra = {"token_type_ids": inputs.token_types, "mm_token_type_ids": inputs.media}
        arguments |= {name: tensor(value) for name, value in extra.items() if value is not None and name in parameters}
        if inputs.varlen and inputs.cu_seqlens is not None:
            arguments |= _varlen_arguments(inputs.cu_seqlens)
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in arguments.items() if name != "use_cache" or open_ended or name in parameters}


def _makes_own_cache(model: Any, inputs: ForwardInputs, cache_name: str, parameters: Any) -> bool:
    """Return whether the class takes only a cache that its forward() returned: tuples before transformers 5, Mamba's if it takes cache_position."""
    legacy = getattr(model, "_supports_cache_class", None) is False or (cache_name == "cache_params" and "cache_position" in parameters)
    if legacy and inputs.cache.kind == "static":
        name = type(model).__name__
        raise QuestionError(f"--cache {inputs.cache}: {name} of the installed transformers takes no cache object, say dynamic")
    return legacy


def _filled(model: Any, ids: Any, mask: Any, cache: Any, name: str, *, legacy: bool) -> Any:
    """Return the cache after a forward over the tokens `ids` [B, past]."""
    early = {"input_ids": ids, "use_cache": True, **({} if legacy else {name: cache})}
    if mask is not None and mask.ndim == 2:
        early["attention_mask"] = mask[:, : ids.shape[1]]
    with reference_kernels(model):
        made = model(**early)
    return getattr(made, name) if legacy else cache


def _varlen_arguments(offsets: tuple[int, ...]) -> dict[str, Any]:
    """Return FlashAttentionKwargs of the offsets of packed documents."""
    import torch

    line = torch.tensor(offsets, dtype=torch.int32)
    longest = int(line.diff().max())
    return {"cu_seq_lens_q": line, "cu_seq_lens_k": line, "max_length_q": longest, "max_length_k": longest}


def _encoder_decoder(model: Any, inputs: ForwardInputs, ids: Any, mask: Any, cache: Any, *, legacy: bool) -> dict[str, Any]:
    length = inputs.past or inputs.q_len
    shared = {"input_ids": ids[:, :length], "attention_mask": None if mask is None else mask[:, :length]}
    shared = {name: value for name, value in shared.items() if value is not None}
    if not inputs.past:
        if inputs.position_ids is not None and "position_ids" in inspect.signature(model.forward).parameters:
            shared["position_ids"] = tensor(inputs.position_ids)
        shared |= _varlen_arguments(inputs.cu_seqlens) if inputs.varlen and inputs.cu_seqlens is not None else {}
        more = {} if cache is None or legacy else {"past_key_values": cache}
        own = decoder_ids(model, inputs)
        if inputs.decoder_mask is not None:
            more["decoder_attention_mask"] = tensor(inputs.decoder_mask)
        return {**shared, "decoder_input_ids": own, "use_cache": cache is not None, **more}
    from transformers.modeling_outputs import BaseModelOutput

    with reference_kernels(model):
        early = model(**shared, decoder_input_ids=ids[:, :length], past_key_values=None if legacy else cache, use_cache=True)
    cache = early.past_key_values if legacy else cache
    encoded = BaseModelOutput(last_hidden_state=early.encoder_last_hidden_state)
    later = {"encoder_outputs": encoded, "decoder_input_ids": ids[:, length:], "past_key_values": cache, "use_cache": True}
    return later if "attention_mask" not in shared else {**later, "attention_mask": shared["attention_mask"]}


@contextmanager
def reference_kernels(model: Any) -> Iterator[None]:
    """The kernels of a watched forward, for one that nobody watches."""
    with watching(model):
        yield


def decoder_ids(model: Any, inputs: ForwardInputs) -> Any:
    """int64 [B, past + q_len]: what the decoder of an encoder-decoder gets, the caller's own or ordinary words.

    Without a cache no padding id is among the words: T5Gemma's decoder hides such ids by itself.
    """
    if inputs.decoder_ids is not None:
        return tensor(inputs.decoder_ids)
    return token_ids(model, inputs if inputs.past else replace(inputs, attention_mask=None)).to(model.device)


def token_ids(model: Any, inputs: ForwardInputs) -> Any:
    """int64 [B, past + q_len]: the caller's own, else ordinary words by a fixed rule."""
    import torch

    if inputs.input_ids is not None:
        ids = torch.from_numpy(np.ascontiguousarray(inputs.input_ids))
        return ids if inputs.past == 0 else torch.cat((ids, torch.full((inputs.batch, inputs.q_len), 5)), dim=1)
    size = vocabulary(model)
    total = inputs.past + inputs.q_len
    low, high = (5, max(min(size, 100), 6)) if size > 6 else (0, size)
    ids = (torch.arange(inputs.batch * total).reshape(inputs.batch, total) * 7 + 3) % (high - low) + low
    return _with_padding(ids, inputs, getattr(model.config.get_text_config(), "pad_token_id", None), size)


def _with_padding(ids: Any, inputs: ForwardInputs, pad_id: Any, size: int) -> Any:
    """Put the pad token where the 2-D mask is 0: some models count their positions from it (RoBERTa)."""
    mask = inputs.mask_2d
    if mask is None or mask.shape != tuple(ids.shape) or type(pad_id) is not int or not 0 <= pad_id < size:
        return ids
    return ids.masked_fill(tensor(mask) == 0, pad_id)


def vocabulary(model: Any) -> int:
    """How many tokens there are."""
    embedding = model.get_input_embeddings()
    return int(getattr(embedding, "num_embeddings", 0) or model.config.get_text_config().vocab_size)


def make_cache(model: Any, inputs: ForwardInputs, parameters: Any) -> tuple[Any, str]:
    """An empty cache of the kind asked for, and the argument it goes by."""
    from transformers import DynamicCache, EncoderDecoderCache, StaticCache

    name = "cache_params" if "cache_params" in parameters and "past_key_values" not in parameters else "past_key_values"
    kind, config = inputs.cache.kind, model.config
    if kind == "none":
        return None, name
    if getattr(config, "is_encoder_decoder", False):
        if kind == "static":
            raise QuestionError(f"--cache {inputs.cache}: a static cache of an encoder-decoder is not known here, say dynamic")
        return EncoderDecoderCache(_of_config(DynamicCache, config), DynamicCache()), name  # no window in cross-attention (T5Gemma)
    if kind == "static":
        return _of_config(StaticCache, config, max_cache_len=inputs.cache.size, max_batch_size=inputs.batch, batch_size=inputs.batch), name
    return _of_config(DynamicCache, config), name


def _of_config(kind: Any, config: Any, **wanted: Any) -> Any:
    """Return a cache made with those of the arguments that the installed release's class takes."""
    taken = inspect.signature(kind.__init__).parameters
    arguments = {"config": config, **wanted}
    return kind(**{name: value for name, value in arguments.items() if name in taken})


def tensor(array: Any) -> Any:
    """A numpy array as a tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def groups(model: Any, calls: list[LayerCall], backend: str, inputs: ForwardInputs) -> list[LayerMask]:
    """Layers that got the same, together, in the order of the forward."""
    found: dict[Any, list[tuple[LayerCall, LayerMask]]] = {}
    times: dict[tuple[str, str], int] = {}
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None) or 0
    shared = len({layer.index for layer in calls}) < depth  # one module for many layers (albert): each call is a layer of its own
    for layer in calls:
        key = (layer.role, layer.path)
        times[key] = times.get(key, 0) + 1
        if times[key] > 1 and shared:
            layer.index += times[key] - 1
        made = one(model, layer, backend, inputs)
        alike = (made.type, made.object, made.kernel, made.count, made.kv_len, made.q_len)
        found.setdefault(alike, []).append((layer, made))
    return [_merged(same) for same in found.values()]


def _merged(same: list[tuple[LayerCall, LayerMask]]) -> LayerMask:
    return replace(same[0][1], layers=tuple(sorted({layer.index for layer, _ in same})))


def one(model: Any, layer: LayerCall, backend: str, inputs: ForwardInputs) -> LayerMask:
    """One layer's record as a LayerMask."""
    made = object_of(layer)
    if layer.role == "linear":
        return LayerMask(
            layers=(layer.index,),
            type="linear",
            backend=backend,
            q_len=layer.q_len,
            kv_len=None,
            q_offset=inputs.past,
            formula="observed",
            object=made,
            kernel=KernelArguments(),
        )
    kernel = _kernel(layer)
    if layer.weighed is not None and not layer.kernel.get("interface"):
        layer.q_len, layer.kv_len = int(layer.weighed.shape[1]), int(layer.weighed.shape[2])
    q_len, kv_len = layer.q_len, layer.kv_len or layer.kernel.get("kv_len") or layer.q_len
    seen = sees(layer, inputs, kv_len)
    visible = None
    if seen is not None:
        none = np.zeros((seen.shape[0], q_len), np.int64)
        visible = Visible(kv_len, none, none, repeat=inputs.batch // seen.shape[0], dense=seen)
    count = None if visible is None else visible.count()
    return LayerMask(
        layers=(layer.index,),
        type=_type(model, layer),
        backend=backend,
        q_len=q_len,
        kv_len=kv_len,
        q_offset=inputs.past,
        formula="observed",
        object=made,
        kernel=kernel,
        visible=visible,
        skip_reason=None,
        exact=visible is not None,
        count=count,
        total=inputs.batch * q_len * kv_len,
    )


def _type(model: Any, layer: LayerCall) -> str:
    if layer.role in ("cross", "encoder"):
        return layer.role
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None)
    if isinstance(kinds, list | tuple) and layer.index < len(kinds) and str(kinds[layer.index]) not in ("hybrid",):
        return str(kinds[layer.index])
    return "sliding_attention" if layer.sliding else "full_attention"


def object_of(layer: LayerCall) -> MaskObject:
    """What the layer got."""
    mask = layer.mask
    flash = layer.kernel.get("flash")
    if mask is None:
        return MaskObject("varlen") if flash and layer.kernel.get("cu_k") is not None else NOTHING
    if hasattr(mask, "mask_mod"):
        size = sum(
            part.numel() * part.element_size()
            for part in (
                mask.kv_num_blocks, mask.kv_indices, mask.full_kv_num_blocks, mask.full_kv_indices,
                mask.q_num_blocks, mask.q_indices, mask.full_q_num_blocks, mask.full_q_indices,
            )
            if part is not None
        )  # fmt: skip
        return MaskObject("block_mask", (mask.shape[0], 1, layer.q_len, layer.kv_len or 0), None, size, size)
    kind: Any = "varlen" if flash and layer.kernel.get("cu_k") is not None and layer.role != "linear" else "tensor"
    return MaskObject(kind, tuple(mask.shape), str(mask.dtype).removeprefix("torch."), mask.numel() * mask.element_size(), stored(mask))


def stored(mask: Any) -> int:
    """Bytes of the elements that a tensor really has: those of its storage that it can reach, an expanded axis counted once."""
    extents = [size for size, stride in zip(mask.shape, mask.stride(), strict=True) if stride != 0 or size <= 1]
    return int(np.prod(extents, dtype=np.int64)) * int(mask.element_size())


def _kernel(layer: LayerCall) -> KernelArguments:
    given = layer.kernel
    if given.get("flash"):
        window = given.get("window", (-1, -1))
        limited = None if tuple(window) == (-1, -1) else (int(window[0]), int(window[1]))
        offsets = [None if given.get(name) is None else tuple(given[name]) for name in ("cu_k", "cu_q")]
        return KernelArguments(bool(given["causal"]), limited, offsets[0], offsets[1])
    if given.get("sdpa"):
        mask = given.get("attn_mask")
        other = None
        if mask is not None and mask is not layer.mask and (layer.mask is None or tuple(mask.shape) != tuple(layer.mask.shape)):
            dtype = str(mask.dtype).removeprefix("torch.")
            other = MaskObject("tensor", tuple(mask.shape), dtype, mask.numel() * mask.element_size(), stored(mask))
        return KernelArguments(given["is_causal"], mask=other)
    return KernelArguments(False)
