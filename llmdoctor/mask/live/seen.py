"""Which pairs a watched layer lets be seen: read off its mask, its kernel's arguments, or the attention probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmdoctor.mask.live.watch import LayerCall
from llmdoctor.mask.own_mask import sees_of
from llmdoctor.mask.types import ForwardInputs

MAX_PAIRS = 2**27  # pairs of one layer whose visibility is read off as booleans


def sees(layer: LayerCall, inputs: ForwardInputs, kv_len: int) -> Any:
    """Return the pairs that a layer sees, bool [R, Q, KV]; None if they would be too many or are not known.

    They are not known if the mask of the layer and the arguments of its kernel do not fit: before 4.48 some modules cut one of them in between.
    """
    if inputs.batch * layer.q_len * kv_len > MAX_PAIRS:
        return None
    try:
        return _sees(layer, inputs, kv_len)
    except (ValueError, IndexError):
        return None


def _sees(layer: LayerCall, inputs: ForwardInputs, kv_len: int) -> Any:
    given = layer.kernel
    if given.get("flash"):
        return _flash_sees(layer, inputs, kv_len)
    if layer.sees is not None:
        return layer.sees.cpu().numpy()
    mask = given["attn_mask"] if given.get("sdpa") else layer.mask
    whole = _whole(mask, layer, kv_len)
    # a module with a causal buffer of its own uses it under eager, unless it is given a whole mask (GPT-2 until 4.52)
    own = given.get("own") and not (given.get("interface") and (given.get("sdpa") or whole))
    added = whole and mask.dtype.is_floating_point  # to the scores of all pairs; the meaning of any other mask is the module's own
    if layer.weighed is not None and (own or not (given.get("interface") or added)):
        return layer.weighed[:, : layer.q_len, :kv_len].cpu().numpy()
    if own or not (given.get("sdpa") or given.get("interface") or getattr(mask, "ndim", 0) == 4):
        return None  # no kernel was seen and no mask of pairs: what the module does by itself is not known
    if mask is None or getattr(mask, "ndim", 0) != 4:
        square = np.ones((1, layer.q_len, kv_len), np.bool_)
        causal = given.get("sdpa") and given["is_causal"]
        return np.tril(square) if causal else square
    shown = _of_tensor(mask, inputs, sdpa=given.get("sdpa", False))
    return None if shown is None else np.broadcast_to(shown[:, : layer.q_len, :kv_len], (shown.shape[0], layer.q_len, kv_len))


def _whole(mask: Any, layer: LayerCall, kv_len: int) -> bool:
    return getattr(mask, "ndim", 0) == 4 and tuple(mask.shape[2:]) == (layer.q_len, kv_len)


def _of_tensor(mask: Any, inputs: ForwardInputs, *, sdpa: bool) -> Any:
    """Return bool [B, Q, KV] of a 4-D mask, None if its heads differ; the caller's own may hide a key with less than the lowest of its dtype."""
    import torch

    own = inputs.mask_4d
    if own is not None and own.shape == tuple(mask.shape):
        return None if bool((own != own[:, :1]).any()) else sees_of(own, "sdpa" if sdpa else "eager")
    head = mask[:, 0]
    if head.dtype == torch.bool:
        return head.cpu().numpy() if sdpa else np.ones(tuple(head.shape), np.bool_)
    if not head.dtype.is_floating_point:
        head = head.float()
    floor = torch.finfo(head.dtype).min / 2
    return (head > floor).cpu().numpy()


def _flash_sees(layer: LayerCall, inputs: ForwardInputs, kv_len: int) -> Any:
    from llmdoctor.mask.live.flash import window_mask

    given = layer.kernel
    causal, window = bool(given["causal"]), tuple(given["window"])
    if given["cu_k"] is None:
        return window_mask(given["q_len"], given["kv_len"], causal, window).numpy()[None]
    out = np.zeros((inputs.batch, layer.q_len, kv_len), np.bool_)
    mask = None if layer.mask is None else layer.mask.cpu().numpy().astype(np.bool_)
    if mask is not None:
        width = mask.shape[1]
        queries = mask if layer.q_len == width else np.ones((inputs.batch, 1), np.bool_) if layer.q_len == 1 else mask[:, -layer.q_len :]
    for at in range(len(given["cu_k"]) - 1):
        a, b, c, d = given["cu_q"][at], given["cu_q"][at + 1], given["cu_k"][at], given["cu_k"][at + 1]
        piece = window_mask(b - a, d - c, causal, window).numpy()
        if mask is None:
            out[0, a:b, c:d] = piece
        else:
            out[at][np.ix_(np.flatnonzero(queries[at]), np.flatnonzero(mask[at]))] = piece
    return out
