"""A 4-D mask that the caller made: every factory hands it through as it is (masking_utils._preprocess_mask_arguments)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.mask.factory import Call, Made
from llmdoctor.mask.intervals import Bools, Visible
from llmdoctor.mask.types import SIZES, Kernel, Object


def made_by_hand(call: Call, backend: str) -> Made:
    """What becomes of it: eager adds it to the scores, whatever its dtype; sdpa takes bool as "sees" and floats as added; flash refuses."""
    mask = call.inputs.mask_4d
    if mask is None:
        raise ValueError("no 4-D mask")
    dtype = {"bool": "bool", "float64": "float64", "float32": "float32", "float16": "float16"}.get(mask.dtype.name, mask.dtype.name)
    size = int(mask.size) * SIZES.get(dtype, mask.dtype.itemsize)
    made = Object("tensor", tuple(mask.shape), dtype, size, size)
    reason = "a 4-D mask made by the caller: handed through unchanged"
    if backend == "flash_attention_2":
        return Made(made, Kernel(True), None, "unknown: flash-attention reads a 4-D mask as a 2-D one", reason)
    sees = sees_of(mask, backend)
    none = np.zeros((sees.shape[0], mask.shape[2]), np.int64)
    visible = Visible(mask.shape[3], none, none, repeat=call.batch // sees.shape[0], dense=sees)
    return Made(made, Kernel(False), visible, "the caller's own 4-D mask", reason)


def sees_of(mask: NDArray[Any], backend: str) -> Bools:
    """bool [B, Q, KV], head 0: which keys keep a weight of more than rounding under this mask, in the way `backend` reads it.

    eager and flex add the mask: True is 1.0 and False 0.0, so that a bool mask masks nothing. sdpa reads bool as "takes part" and adds floats. A key
    is out where its number lies more than 80 below the row's highest: exp(-80) is below the smallest normal float32 by no more than a
    factor of a thousand, and bfloat16 rounds it away.
    """
    head = mask[:, 0]
    if head.dtype == np.bool_ and backend == "sdpa":
        return head
    added = head.astype(np.float32)
    top = added.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(added) & (added > top - 80) & np.isfinite(top))
