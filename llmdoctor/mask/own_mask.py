"""The caller's own 4-D mask: every factory passes it on unchanged (masking_utils._preprocess_mask_arguments)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.mask.calls import FactoryCall, FactoryResult
from llmdoctor.mask.intervals import Bools, Visible
from llmdoctor.mask.types import SIZES, KernelArguments, MaskObject

DEAD = -1e4  # an additive mask hides a key with this or less


def own_mask_result(call: FactoryCall, backend: str) -> FactoryResult:
    """Return what a layer sees: eager adds the mask to the scores whatever its dtype, sdpa reads bool as "takes part", flash refuses it."""
    mask = call.inputs.mask_4d
    if mask is None:
        raise ValueError("no 4-D mask")
    dtype = call.inputs.mask_dtype or mask.dtype.name
    size = int(mask.size) * SIZES.get(dtype, mask.dtype.itemsize)
    made = MaskObject("tensor", tuple(mask.shape), dtype, size, size)
    reason = "the caller's own 4-D mask: passed on unchanged"
    if backend == "flash_attention_2":
        return FactoryResult(made, KernelArguments(True), None, "unknown: flash-attention reads a 4-D mask as a 2-D one", reason)
    sees = sees_of(mask, backend)
    none = np.zeros((sees.shape[0], mask.shape[2]), np.int64)
    visible = Visible(mask.shape[3], none, none, repeat=call.batch // sees.shape[0], dense=sees)
    if bool((mask != mask[:, :1]).any()):
        return FactoryResult(
            made, KernelArguments(False), None, f"the caller's own 4-D mask, not alike in its {mask.shape[1]} heads", reason
        )
    return FactoryResult(made, KernelArguments(False), visible, "the caller's own 4-D mask", reason)


def sees_of(mask: NDArray[Any], backend: str) -> Bools:
    """Return bool [B, Q, KV]: the keys with a weight of more than rounding in any head under this mask, as `backend` reads it.

    eager and flex add the mask: True is 1.0 and False 0.0, so that a bool mask masks nothing. sdpa reads bool as "takes part" and adds floats. A key
    is hidden if its number is more than 80 below the row's highest: exp(-80) is 1.8e-35, which bfloat16 rounds away beside 1.
    """
    if mask.dtype == np.bool_ and backend == "sdpa":
        return np.asarray(mask.any(axis=1))
    added = mask.astype(np.float32)
    top = added.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.isfinite(added) & (added > top - 80) & np.isfinite(top)).any(axis=1))


def meaning_of(mask: NDArray[Any]) -> Bools:
    """Return bool [B, Q, KV]: the pairs that whoever made the mask wants to be seen in any head, whatever a backend makes of its dtype.

    True, or 1 among zeros and ones, is a pair that is seen; otherwise the mask is added to the scores. A query all of whose keys have -10,000 or
    less is meant to see none, although softmax gives each of them the same weight.
    """
    if mask.dtype == np.bool_:
        return np.asarray(mask.any(axis=1))
    if bool(np.isin(mask, (0, 1)).all()):
        return np.asarray((mask != 0).any(axis=1)) if bool((mask != 0).any()) else np.ones(mask[:, 0].shape, np.bool_)
    dead = np.asarray((mask <= DEAD).all(axis=(1, 3)))
    return np.asarray(sees_of(mask, "sdpa") & ~dead[:, :, None])


def padding_of(mask: NDArray[Any], past: int) -> Bools:
    """Return bool [B, Q]: queries that are padding, as the mask shows it: they see no key, and no query sees theirs."""
    shown = meaning_of(mask)
    queries = shown.shape[1]
    if shown.shape[2] != past + queries:
        return np.zeros(shown.shape[:2], np.bool_)
    seen = np.asarray(shown.any(axis=1))[:, past:]
    return np.asarray(~shown.any(axis=2) & ~seen)
