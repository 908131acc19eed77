"""The caller's own 4-D mask: every factory passes it on unchanged (masking_utils._preprocess_mask_arguments)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.mask.calls import FactoryCall, FactoryResult
from llmdoctor.mask.intervals import Bools, Visible
from llmdoctor.mask.types import SIZES, KernelArguments, MaskObject


def own_mask_result(call: FactoryCall, backend: str) -> FactoryResult:
    """Return what a layer sees: eager adds the mask to the scores whatever its dtype, sdpa reads bool as "takes part", flash refuses it."""
    mask = call.inputs.mask_4d
    if mask is None:
        raise ValueError("no 4-D mask")
    dtype = {"bool": "bool", "float64": "float64", "float32": "float32", "float16": "float16"}.get(mask.dtype.name, mask.dtype.name)
    size = int(mask.size) * SIZES.get(dtype, mask.dtype.itemsize)
    made = MaskObject("tensor", tuple(mask.shape), dtype, size, size)
    reason = "the caller's own 4-D mask: passed on unchanged"
    if backend == "flash_attention_2":
        return FactoryResult(made, KernelArguments(True), None, "unknown: flash-attention reads a 4-D mask as a 2-D one", reason)
    sees = sees_of(mask, backend)
    none = np.zeros((sees.shape[0], mask.shape[2]), np.int64)
    visible = Visible(mask.shape[3], none, none, repeat=call.batch // sees.shape[0], dense=sees)
    return FactoryResult(made, KernelArguments(False), visible, "the caller's own 4-D mask", reason)


def sees_of(mask: NDArray[Any], backend: str) -> Bools:
    """Return bool [B, Q, KV], head 0: the keys with a weight of more than rounding under this mask, as `backend` reads it.

    eager and flex add the mask: True is 1.0 and False 0.0, so that a bool mask masks nothing. sdpa reads bool as "takes part" and adds floats. A key
    is hidden if its number is more than 80 below the row's highest: exp(-80) is 1.8e-35, which bfloat16 rounds away beside 1.
    """
    head = mask[:, 0]
    if head.dtype == np.bool_ and backend == "sdpa":
        return head
    added = head.astype(np.float32)
    top = added.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(added) & (added > top - 80) & np.isfinite(top))


def meaning_of(mask: NDArray[Any]) -> Bools:
    """Return bool [B, Q, KV], head 0: the pairs that whoever made the mask wants to be seen, whatever a backend makes of its dtype.

    True, or 1 among zeros and ones, is a pair that is seen; otherwise the mask is added to the scores.
    """
    if mask.dtype == np.bool_:
        return np.asarray(mask[:, 0])
    if bool(np.isin(mask, (0, 1)).all()):
        return np.asarray(mask[:, 0] != 0) if bool((mask != 0).any()) else np.ones(mask[:, 0].shape, np.bool_)
    return sees_of(mask, "sdpa")
