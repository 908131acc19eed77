"""What CUDA does differently from the CPU, as far as memory shows it: attention kernels, dropout masks, the list of autocast."""

from __future__ import annotations

from typing import Any

from llmdoctor.mem.live.attention import chosen_kernel, fused_attention, math_attention

# Autocast to fp32 on CUDA and not, or not alike, on the CPU (torch 2.14, ATen/autocast_mode.h:855, AT_FORALL_FP32 and _SET_OPT_DTYPE).
PROMOTED = frozenset(
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ __rpow__ softplus layer_norm group_norm "
    "cosine_similarity nll_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss cross_entropy logsumexp cdist renorm "
    "prod softmax log_softmax cumprod cumsum sum norm vector_norm".split()
)


def make_function_mode() -> Any:
    """Return the function mode under which attention, dropout and autocast allocate what they do on CUDA."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    attention, dropout = functional.scaled_dot_product_attention, functional.dropout

    class AsOnCuda(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is attention:
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
    """The kernel that torch chooses on Hopper, and what it keeps (attention.py)."""
    import torch

    if torch.is_autocast_enabled("cpu"):
        lower = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(lower) if tensor.is_floating_point() else tensor for tensor in (query, key, value))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(lower)
    kernel = chosen_kernel(query, key, value, attn_mask, enable_gqa=enable_gqa, dropout=dropout_p)
    if kernel == "math" and dropout_p > 0 and attn_mask is not None and attn_mask.is_floating_point() and query.shape[-3] == key.shape[-3]:
        return math_attention(query, key, value, attn_mask, dropout=dropout_p, scale=scale)
    if kernel == "math":
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    return fused_attention(kernel)(query, key, value, attn_mask)
