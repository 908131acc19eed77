"""What each attention layer of a real forward was handed: at the mask factory, at the attention interface, at the kernel."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.mask.live import patches

# Stacks of a composite model that hold no text layers.
NOT_TEXT = re.compile(
    r"(^|\.)(visual|vision\w*|audio\w*|image\w*|vit|vq\w*|speech\w*|aligner|qformer|perceiver\w*|multi_modal_projector)(\.|$)"
)
LINEAR = re.compile(r"Mixer|MambaLayer|DeltaNet|Delta|ShortConv|Lightning|LinearAttn|LinearAttention|RecurrentBlock")
CROSS = re.compile(r"cross|EncDecAttention|encoder_attn|encoder_decoder_attention", re.IGNORECASE)


@dataclass(slots=True, eq=False, repr=False)
class LayerCall:
    """One call of one layer's attention. `mask` is what the layer got; `kernel` what its kernel was told."""

    path: str
    index: int
    role: str  # self, cross, encoder, linear
    mask: Any
    q_len: int
    kv_len: int | None
    sliding: int | None = None
    kernel: dict[str, Any] = field(default_factory=dict)
    sees: Any = None  # bool [B, Q, KV] of a block mask, read while the kernel runs
    softmaxes: int = 0
    weighed: Any = None  # bool [B, Q, KV]: attention probabilities above zero in any head


@dataclass(slots=True, eq=False, repr=False)
class ForwardRecord:
    """The record of one forward. `factory` is what each mask factory was asked for and gave."""

    model: Any
    batch: int = 0
    calls: list[LayerCall] = field(default_factory=list)
    factory: list[dict[str, Any]] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)
    _times: dict[tuple[int, str], int] = field(default_factory=dict)
    _inside: list[list[LayerCall]] = field(default_factory=list)
    _current: LayerCall | None = None

    def on_factory(self, name: str, kwargs: dict[str, Any], result: Any) -> None:
        """A mask factory has been called."""
        kept = ("q_length", "kv_length", "q_offset", "kv_offset", "allow_is_causal_skip", "allow_is_bidirectional_skip", "local_size")
        self.factory.append({"backend": name, "made": result is not None, **{key: _number(kwargs.get(key)) for key in kept}})

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """An attention function that leaves a record."""

        def recorded(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
            layer = self._start(module, attention_mask, query.shape[2], key.shape[2], kwargs.get("sliding_window"))
            if layer is not None:
                layer.kernel["interface"] = True
                layer.kernel["own"] = _masks_by_itself(module)
                layer.kernel.setdefault("module_causal", kwargs.get("is_causal", getattr(module, "is_causal", None)))
                _read_block_mask(layer)
            bias = kwargs.get("position_bias")
            if bias is not None and bias.shape[0] == 1 and hasattr(attention_mask, "mask_mod"):
                # T5 under flex_attention reads position_bias[batch] of a bias of batch 1: out of bounds where nothing checks
                kwargs["position_bias"] = bias.expand(query.shape[0], -1, -1, -1)
            if kwargs.get("s_aux") is not None and hasattr(attention_mask, "mask_mod") and not query.is_cuda:
                kwargs["s_aux"] = None  # gpt_oss: flex_attention refuses sinks on a CPU; its mask is the same without them
            before, self._current = self._current, layer
            try:
                return function(module, query, key, value, attention_mask, *args, **kwargs)
            finally:
                self._current = before

        return recorded

    def on_sdpa(self, named: dict[str, Any]) -> None:
        """The kernel of sdpa has been called."""
        if self._current is not None:
            self._current.kernel.update(
                sdpa=True, attn_mask=named.get("attn_mask"), is_causal=bool(named.get("is_causal", False)),
                q_len=named["query"].shape[2], kv_len=named["key"].shape[2],
            )  # fmt: skip

    def on_softmax(self, result: Any) -> None:
        """softmax has been called inside an attention module: its result may be the attention probabilities, [B, H, Q, KV] or [B x H, Q, KV]."""
        layer = self._current if self._current is not None and self._current.kernel.get("interface") else None
        if layer is None and self._inside:
            layer = self._inside[-1][0]
        if layer is None or layer.role == "linear" or getattr(result, "ndim", 0) not in (3, 4):
            return
        above = result.detach() > 0
        if above.ndim == 3:
            if self.batch == 0 or above.shape[0] % self.batch:
                return
            above = above.reshape(self.batch, -1, *above.shape[1:])
        layer.softmaxes += 1  # one softmax is over all keys; several are over blocks or landmarks, and none of them shows the pairs
        layer.weighed = above.any(dim=1) if above.shape[0] == self.batch and layer.softmaxes == 1 else None

    def on_flash_forward(self, key: Any) -> None:
        """The library's flash-attention path has been entered with keys [B, KV, H, D]; a model without the interface shows them only here."""
        if self._current is not None and self._current.kv_len is None:
            self._current.kv_len = key.shape[1]

    def on_flash(self, arguments: dict[str, Any]) -> None:
        """A flash-attention kernel has been called."""
        if self._current is not None:
            self._current.kernel.update(flash=True, **arguments)

    def _start(self, module: Any, mask: Any, q_len: int, kv_len: int | None, sliding: Any) -> LayerCall | None:
        path = self._paths.get(id(module), "")
        if NOT_TEXT.search(path):
            return None
        role = self._role(module, path)
        index = self._index(module, path)
        layer = LayerCall(
            path=path, index=index, role=role, mask=mask, q_len=q_len, kv_len=kv_len, sliding=sliding if isinstance(sliding, int) else None
        )
        self.calls.append(layer)
        for inner in self._inside:
            inner.append(layer)
        return layer

    def _role(self, module: Any, path: str) -> str:
        if LINEAR.search(type(module).__name__):
            return "linear"
        if CROSS.search(path) or "CrossAttention" in type(module).__name__:
            return "cross"
        parts = path.split(".")
        config = self.model.config
        in_encoder = "encoder" in parts and "decoder" not in parts
        if in_encoder and not getattr(config, "is_decoder", False):
            return "encoder"
        text = config.get_text_config()
        made_so = getattr(text, "use_bidirectional_attention", False)  # a decoder's layers, only that they see both sides
        if getattr(module, "is_causal", True) is False and not getattr(config, "is_encoder_decoder", False) and not made_so:
            return "encoder"
        return "self"

    def _index(self, module: Any, path: str) -> int:
        """The layer's place: the first number in its path (zamba2 numbers its shared blocks by another count in layer_idx)."""
        numbers = [int(part) for part in path.split(".") if part.isdigit()]
        own = getattr(module, "layer_idx", None)
        return numbers[0] if numbers else own if isinstance(own, int) else 0

    def around_module(self, module: Any, args: Any, kwargs: Any) -> None:
        """Before an attention module without interface, or a linear layer: remember what it gets."""
        self._inside.append([])
        named = _named(module, args, kwargs)
        linear = LINEAR.search(type(module).__name__) is not None
        states = named.get("hidden_states", args[0] if args else None)
        q_len = states.shape[1] if states is not None and states.ndim >= 2 else 0
        mask = named.get("attention_mask", named.get("mask"))
        path = self._paths.get(id(module), "")
        role = "linear" if linear else self._role(module, path)
        kv_len = None if linear or mask is None or getattr(mask, "ndim", 0) != 4 else mask.shape[-1]
        layer = LayerCall(path=path, index=self._index(module, path), role=role, mask=mask, q_len=q_len, kv_len=kv_len)
        layer.kernel["own"] = linear or _masks_by_itself(module)
        self._inside[-1].append(layer)
        if self._current is None or linear:
            self._current = layer

    def after_module(self, _module: Any, _args: Any, _output: Any) -> None:
        """After it: keep the record where nothing inside left one of its own."""
        own, *inner = self._inside.pop()
        if self._current is own:
            self._current = None
        if NOT_TEXT.search(own.path) or (inner and own.role != "linear"):
            return
        self.calls.append(own)
        for outer in self._inside:
            outer.append(own)


@contextmanager
def watching(model: Any, batch: int = 0) -> Iterator[ForwardRecord]:
    """Record what each layer of `model` receives while the block runs, with `batch` rows; registries, hooks and functions are restored afterwards."""
    watch = ForwardRecord(model, batch)
    watch._paths = {id(module): name for name, module in model.named_modules()}
    with ExitStack() as stack:
        stack.enter_context(patches.watched_factories(watch.on_factory))
        stack.enter_context(patches.watched_interface(watch.wrap))
        stack.enter_context(patches.watched_functions(watch.on_sdpa, watch.on_softmax))
        stack.enter_context(patches.plain_flex())
        flash = patches.real_flash if patches.has_flash_attn() else patches.reference_flash
        stack.enter_context(flash(watch.on_flash))
        stack.enter_context(patches.flash_in_module(model, watch.on_flash_forward))
        for module in model.modules():
            if _takes_mask(module):
                stack.callback(module.register_forward_pre_hook(watch.around_module, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(watch.after_module, always_call=True).remove)
        yield watch


def _masks_by_itself(module: Any) -> bool:
    """Whether an attention module keeps a mask of its own (gpt_neo's windows) or attends in blocks (big_bird): no mask says what it sees."""
    import torch

    owned = any(buffer.dtype == torch.bool and buffer.ndim == 4 for buffer in module.buffers())
    return owned or any(part in type(inner).__name__ for inner in module.modules() for part in ("BlockSparse", "Nystromformer"))


def _takes_mask(module: Any) -> bool:
    name = type(module).__name__
    if not LINEAR.search(name) and ("Attention" not in name or name.endswith(("Layer", "Model", "Block"))):
        return False
    parameters = inspect.signature(module.forward).parameters
    return "attention_mask" in parameters or "mask" in parameters


def _named(module: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    names = list(inspect.signature(module.forward).parameters)
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def _number(value: Any) -> Any:
    return int(value) if hasattr(value, "item") else value


def _read_block_mask(layer: LayerCall) -> None:
    """Which pairs a BlockMask lets through, evaluated now: its function may look at tensors that change later."""
    mask = layer.mask
    if not hasattr(mask, "mask_mod") or layer.kv_len is None:
        return
    import torch

    batch, q_len, kv_len = mask.shape[0], layer.q_len, layer.kv_len
    device = mask.kv_num_blocks.device
    shape = (batch, 1, q_len, kv_len)
    grid = [torch.arange(size, device=device).view([-1 if at == axis else 1 for at in range(4)]) for axis, size in enumerate(shape)]
    inside = mask.mask_mod(*grid).expand(shape)[:, 0]
    partial = _blocks(mask.kv_num_blocks, mask.kv_indices)
    full = _blocks(mask.full_kv_num_blocks, mask.full_kv_indices) if mask.full_kv_num_blocks is not None else torch.zeros_like(partial)
    rows, columns = mask.BLOCK_SIZE
    spread = [item.repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, :q_len, :kv_len] for item in (partial, full)]
    layer.sees = (spread[0] & inside) | spread[1]


def _blocks(counts: Any, indices: Any) -> Any:
    """bool [B, Q blocks, KV blocks] of the lists of a BlockMask."""
    import torch

    counts, indices = counts[:, 0], indices[:, 0]
    used = torch.arange(indices.shape[-1], device=indices.device) < counts[..., None]
    out = torch.zeros(indices.shape, dtype=torch.bool, device=indices.device)
    return out.scatter_(-1, indices.long().clamp(max=indices.shape[-1] - 1), used) if used.all() else _scatter(out, indices, used)


def _scatter(out: Any, indices: Any, used: Any) -> Any:
    for row, band in used.any(dim=-1).nonzero().tolist():
        out[row, band, indices[row, band][used[row, band]].long()] = True
    return out
