"""What CUDA does otherwise than the CPU, as far as it shows in memory: attention kernels, dropout masks, autocast's list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Autocast to fp32 on CUDA and not, or not alike, on the CPU (torch 2.14, ATen/autocast_mode.h:855, AT_FORALL_FP32 and _SET_OPT_DTYPE).
PROMOTED = frozenset(
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ __rpow__ softplus layer_norm group_norm "
    "cosine_similarity nll_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss cross_entropy logsumexp cdist renorm "
    "prod softmax log_softmax cumprod cumsum sum norm vector_norm".split()
)
MAX_FLASH_HEAD = 256


def make_function_mode(masked: Callable[[], None]) -> Any:
    """The function mode under which attention, dropout and autocast allocate what they do on CUDA; `masked` is told of attention with a mask."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    attention, dropout = functional.scaled_dot_product_attention, functional.dropout

    class AsOnCuda(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is attention:
                if kwargs.get("attn_mask") is not None or (len(args) > 3 and args[3] is not None):
                    masked()
                return scaled_dot_product_attention(*args, **kwargs)
            if func is dropout:
                return _dropout(*args, **kwargs)
            if getattr(func, "__name__", "") in PROMOTED and torch.is_autocast_enabled("cpu") and kwargs.get("dtype") is None:
                args = tuple(_promoted(arg) for arg in args)
            return func(*args, **kwargs)

    return AsOnCuda()


def _promoted(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """A mask of one byte an element stays for the backward (native_dropout); p = 0 and evaluation return the input (Dropout.cpp)."""
    import torch

    if not training or not 0 < p < 1 or inplace:
        return input
    return torch.native_dropout(input, p, True)[0]


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The kernel that CUDA would choose (sdp_utils.cpp): flash without a mask in 16 bit, memory-efficient without groups, else math."""
    import torch

    if torch.is_autocast_enabled("cpu"):
        lower = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(lower) if tensor.is_floating_point() else tensor for tensor in (query, key, value))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(lower)
    half = query.dtype in (torch.bfloat16, torch.float16)
    same_head = query.shape[-1] == key.shape[-1] == value.shape[-1]
    if half and attn_mask is None and same_head and query.shape[-1] <= MAX_FLASH_HEAD:
        return _fused()(query, key, value, query.shape[-2])
    grouped = enable_gqa and query.shape[-3] != key.shape[-3]
    if not grouped:
        return _fused()(query, key, value, -(-query.shape[-2] // 32) * 32)
    return torch.ops.aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]


def _fused() -> Any:
    """An attention that keeps its inputs, its output and one log-sum-exp a row.

    [B, H, S, D] -> [B, H, S, D], laid out as [B, S, H, D]. The backward holds the sum of the gradient's rows and an fp32 accumulator of
    the query's gradient for as long as it runs, and with grouped heads the keys' and values' gradients of every head
    (flash_api.cpp, mha_bwd: softmax_d, dq_accum, dk_expanded).
    """
    import torch

    class Fused(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, rows: int) -> Any:
            batch, heads, length, _ = query.shape
            out = torch.empty(batch, length, heads, value.shape[-1], dtype=query.dtype).transpose(1, 2)
            logsumexp = torch.empty(batch, heads, rows, dtype=torch.float32)
            seed, offset = torch.empty((), dtype=torch.int64), torch.empty((), dtype=torch.int64)
            ctx.save_for_backward(query, key, value, out, logsumexp, seed, offset)
            return out

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            query, key, value, *_ = ctx.saved_tensors
            batch, heads, length, size = query.shape
            rows = -(-length // 128) * 128
            delta = torch.empty(batch, heads, rows, dtype=torch.float32)
            accumulator = torch.empty(batch, rows, heads, -(-size // 32) * 32, dtype=torch.float32)
            dq, dk, dv = (torch.empty(*_seq_major(t), dtype=t.dtype).transpose(1, 2) for t in (query, key, value))
            if key.shape[1] != heads:
                wide = [torch.empty(batch, key.shape[2], heads, t.shape[-1], dtype=t.dtype) for t in (key, value)]
                del wide
            del delta, accumulator
            return dq, dk, dv, None

    return Fused.apply


def _seq_major(tensor: Any) -> tuple[int, int, int, int]:
    batch, heads, length, size = tensor.shape
    return batch, length, heads, size
