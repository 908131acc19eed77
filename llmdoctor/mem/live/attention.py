"""What torch's attention kernels keep and allocate on CUDA: the choice of the kernel, the mask, the output, the backward.

Source: torch 2.11, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (the order on Hopper: cuDNN, flash, memory-efficient, math) and
attention.cu; measured on an H200 with cuDNN 9.19 by conformance/gpu_sdpa.py (docs/mem-sdpa.txt, held by tests/mem/test_attention.py).
"""

from __future__ import annotations

from typing import Any

MAX_HEAD = 256  # cuDNN on Hopper, and flash
ACCUMULATED_HEAD = 128  # above it the memory-efficient kernel accumulates in float32
ALIGNMENT = 8  # elements of the last dimension of a mask that the memory-efficient kernel takes as it is


def chosen_kernel(query: Any, key: Any, value: Any, mask: Any, enable_gqa: bool, dropout: float = 0.0) -> str:
    """Return the kernel that torch chooses on Hopper: cudnn, flash, efficient or math. Tensors are [batch, heads, tokens, head size].

    No fused kernel takes both a mask that is trained and dropout: T5 large in training kept what the math kernel keeps (an H200, torch 2.11).
    """
    import torch

    half = query.dtype in (torch.bfloat16, torch.float16)
    heads, groups = query.shape[-3], key.shape[-3]
    alike = query.dim() == key.dim() == 4 and query.shape[0] == key.shape[0] == value.shape[0]
    same, grouped = heads == groups == value.shape[-3], enable_gqa and groups == value.shape[-3] and heads % groups == 0
    sizes = (query.shape[-1], key.shape[-1], value.shape[-1])
    aligned = all(size % ALIGNMENT == 0 for size in sizes) and sizes[0] == sizes[1]
    trained_mask = mask is not None and mask.requires_grad
    if not alike or (trained_mask and dropout > 0):
        return "math"
    if half and (same or grouped) and aligned and max(sizes) <= MAX_HEAD and not trained_mask:
        return "cudnn"
    if half and (same or grouped) and mask is None and len(set(sizes)) == 1 and sizes[0] <= MAX_HEAD:
        return "flash"
    return "efficient" if same and aligned else "math"


def fused_attention(kernel: str) -> Any:
    """Return an attention (query, key, value, mask) -> [batch, heads, tokens, size] that allocates what `kernel` does.

    It keeps its inputs, the mask in the dtype of the query, the output and one float32 log-sum-exp per row.
    """
    import torch

    efficient = kernel == "efficient"

    class Fused(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
            batch, heads, rows, _ = query.shape
            bias = mask
            out = _sequence_first(query, value.shape[-1]) if efficient else _like(query, value.shape[-1])
            logsumexp = torch.empty(batch, heads, -(-rows // 32) * 32 if efficient else rows, dtype=torch.float32)
            seed = () if efficient else (torch.empty((), dtype=torch.int64), torch.empty((), dtype=torch.int64))
            if efficient and value.shape[-1] > ACCUMULATED_HEAD and query.dtype != torch.float32:
                accumulator = torch.empty(out.shape, dtype=torch.float32)
                del accumulator
            ctx.trained_mask = ctx.needs_input_grad[3]
            ctx.save_for_backward(query, key, value, out, logsumexp, bias, *seed)
            return out

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            query, key, value, _, _, bias, *_ = ctx.saved_tensors
            batch, heads, rows, size = query.shape
            delta = torch.empty(batch, heads, rows, dtype=torch.float32)
            large = efficient and size > ACCUMULATED_HEAD and query.dtype != torch.float32
            accumulators = [torch.empty(batch, rows, heads, size, dtype=torch.float32) for _ in range(3 if large else 1)]
            dq, dk, dv = (torch.empty_like(tensor) for tensor in (query, key, value))
            if key.shape[1] != heads:  # the gradients of keys and values of every head, before they are added within a group
                wide = [torch.empty(batch, key.shape[2], heads, tensor.shape[-1], dtype=tensor.dtype) for tensor in (key, value)]
                del wide
            dmask = None
            if ctx.trained_mask:
                columns = bias.shape[-1]
                dmask = torch.empty(batch, heads, rows, columns + -columns % ALIGNMENT, dtype=query.dtype)[..., :columns]
            del delta, accumulators
            return dq, dk, dv, dmask

    return lambda query, key, value, mask: Fused.apply(query, key, value, _bias(mask, query, padded=efficient))


def math_attention(query: Any, key: Any, value: Any, mask: Any, dropout: float, scale: float | None) -> Any:
    """Return the result of the math kernel with dropout, which keeps a mask of one byte an element on CUDA (ATen, transformers/attention.cpp).

    Heads of query and key are equally many, the mask is [batch, heads, tokens, tokens] in the dtype of the query.
    """
    import torch

    root = (query.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    wide = [tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor for tensor in (query, key, value)]
    scores = torch.matmul(wide[0] * root, (wide[1] * root).transpose(-2, -1))
    weights = torch.ops.aten._safe_softmax(scores.add_(mask), -1)
    del scores
    weights = torch.native_dropout(weights, dropout, True)[0]
    return torch.matmul(weights, wide[2]).to(query.dtype)


def _bias(mask: Any, query: Any, *, padded: bool) -> Any:
    """Return the mask that a kernel adds: a boolean one becomes one of the query's dtype.

    The memory-efficient kernel takes it expanded to every batch and head, with a last dimension that it has padded in memory.
    """
    import torch

    if mask is None:
        return None
    bias = torch.empty(mask.shape, dtype=query.dtype) if mask.dtype == torch.bool else mask
    if not padded:
        return bias
    columns = bias.shape[-1]
    bias = torch.nn.functional.pad(bias, (0, -columns % ALIGNMENT))[..., :columns] if columns % ALIGNMENT else bias
    return bias.expand(query.shape[0], query.shape[1], query.shape[2], columns)


def _like(query: Any, size: int) -> Any:
    """Return [batch, heads, tokens, size], laid out in memory as the query is."""
    import torch

    if size == query.shape[-1]:
        return torch.empty_like(query)
    order = sorted(range(3), key=lambda dim: -query.stride(dim))
    shape = [*query.shape[:-1], size]
    made = torch.empty(*(shape[dim] for dim in order), size, dtype=query.dtype)
    return made.permute(*(order.index(dim) for dim in range(3)), 3)


def _sequence_first(query: Any, size: int) -> Any:
    """Return [batch, heads, tokens, size], laid out as [batch, tokens, heads, size]."""
    import torch

    batch, heads, rows, _ = query.shape
    return torch.empty(batch, rows, heads, size, dtype=query.dtype).transpose(1, 2)
