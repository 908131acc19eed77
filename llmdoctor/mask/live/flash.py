"""A CPU stand-in for the flash-attention kernels: the same arguments, the same masks, in plain matrix products.

Semantics of flash_attn 2.x (flash_attn_interface.py): causal and window are aligned at the bottom right, window bounds are inclusive, a
query that sees nothing gets zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def window_mask(q_len: int, kv_len: int, causal: bool, window: tuple[int, int]) -> Any:
    """bool [q_len, kv_len] of flash-attention."""
    import torch

    at = torch.arange(q_len)[:, None] + kv_len - q_len
    key = torch.arange(kv_len)[None, :]
    seen = torch.ones(q_len, kv_len, dtype=torch.bool)
    left, right = window
    right = 0 if causal else right
    if left >= 0:
        seen &= key >= at - left
    if right >= 0:
        seen &= key <= at + right
    return seen


def make_kernels(record: Callable[[dict[str, Any]], None]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """flash_attn_func and flash_attn_varlen_func; each passes its arguments to `record` before it computes."""
    import torch

    def attend(q: Any, k: Any, v: Any, scale: float | None, seen: Any, softcap: float) -> Any:
        """q [Q, H, D], k and v [KV, G, D] -> [Q, H, D], in float32."""
        groups = q.shape[1] // k.shape[1]
        k, v = (item.repeat_interleave(groups, dim=1).float() for item in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q.float(), k) * (scale if scale is not None else q.shape[-1] ** -0.5)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1).nan_to_num(0.0)
        return torch.einsum("hqk,khd->qhd", weights, v).to(q.dtype)

    def flash_attn_func(
        q: Any, k: Any, v: Any, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0, deterministic: bool = False,
    ) -> Any:  # fmt: skip
        del dropout_p, deterministic
        record({"causal": causal, "window": tuple(window_size), "cu_q": None, "cu_k": None, "q_len": q.shape[1], "kv_len": k.shape[1]})
        seen = window_mask(q.shape[1], k.shape[1], causal, window_size).to(q.device)
        return torch.stack([attend(q[row], k[row], v=v[row], scale=softmax_scale, seen=seen, softcap=softcap) for row in range(q.shape[0])])

    def flash_attn_varlen_func(
        q: Any, k: Any, v: Any, cu_seqlens_q: Any = None, cu_seqlens_k: Any = None, max_seqlen_q: Any = None, max_seqlen_k: Any = None,
        dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False, window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0, deterministic: bool = False,
    ) -> Any:  # fmt: skip
        del dropout_p, deterministic, max_seqlen_q, max_seqlen_k
        starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        for name, ends, tokens in (("cu_seqlens_q", starts_q, q.shape[0]), ("cu_seqlens_k", starts_k, k.shape[0])):
            if ends[-1] > tokens:  # Ernie 4.5 VL MoE and GLM-4.5V hand over three rows of M-RoPE ids as one line (transformers 5.23)
                raise RuntimeError(
                    f"{name} ends at {ends[-1]} and there are {tokens} tokens: the kernel of flash-attention reads past its inputs"
                )
        record({"causal": causal, "window": tuple(window_size), "cu_q": starts_q, "cu_k": starts_k, "q_len": None, "kv_len": None})
        out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        for at in range(len(starts_q) - 1):
            a, b, c, d = starts_q[at], starts_q[at + 1], starts_k[at], starts_k[at + 1]
            if b > a and d > c:
                seen = window_mask(b - a, d - c, causal, window_size).to(q.device)
                out[a:b] = attend(q[a:b], k[c:d], v=v[c:d], scale=softmax_scale, seen=seen, softcap=softcap)
        return out

    return flash_attn_func, flash_attn_varlen_func
