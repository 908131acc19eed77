"""Logits in half precision: the values that bfloat16 or float16 would hold."""

from __future__ import annotations

import numpy as np

from llmdoctor.sample.types import Floats


def rounded(logits: Floats, dtype: str) -> Floats:
    """Logits as `dtype` would hold them, to nearest even, as float32."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return logits.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(logits).view(np.uint32)
        even: Floats = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
        return even
    return logits
