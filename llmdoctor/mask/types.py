"""The nouns of the mask job: what is put into a model, and what each of its layers makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmdoctor.mask.intervals import Ints, Visible

Backend = Literal["eager", "sdpa", "flash_attention_2", "flex_attention", "gpt-fast"]
BACKENDS: tuple[Backend, ...] = ("eager", "sdpa", "flash_attention_2", "flex_attention")
GPT_FAST: Backend = "gpt-fast"
ALL_BACKENDS = (*BACKENDS, GPT_FAST)
SHORT = {"flash_attention_2": "flash", "flex_attention": "flex"}
SIZES = {"bool": 1, "int8": 1, "uint8": 1, "bfloat16": 2, "float16": 2, "float32": 4, "int32": 4, "float64": 8, "int64": 8}
FLOATS = ("float32", "bfloat16", "float16")
BLOCK = 128  # queries and keys of a block of flex_attention's BlockMask (torch 2.14 nn/attention/flex_attention.py)


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The key-value cache: none, dynamic, or static with room for `size` tokens."""

    kind: Literal["none", "dynamic", "static"] = "none"
    size: int = 0

    def __str__(self) -> str:
        return f"static:{self.size}" if self.kind == "static" else self.kind


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Inputs:
    """What goes into one forward().

    `batch` rows of `q_len` new tokens after `past` cached ones. `attention_mask` is what the caller passes: int64 [B, past + q_len], a 4-D
    mask, or None. `position_ids` is int64 [1|B, S], or [3|4, B, S] for models with M-RoPE, or None. `image` is int64 [B, S], 1 where a
    token belongs to an image (token_type_ids), and `makes_blocks` that the model lets an image's tokens see each other. `labels` is int64
    [B, S]. `tokens` are names for a picture, `input_ids` int64 [B, S] where the question has them.
    """

    batch: int
    q_len: int
    past: int = 0
    phase: Literal["prefill", "decode", "chunk"] = "prefill"
    cache: CachePlan = CachePlan()
    attention_mask: NDArray[Any] | None = None
    position_ids: Ints | None = None
    image: Ints | None = None
    input_ids: Ints | None = None
    labels: Ints | None = None
    makes_blocks: bool = False
    tokens: tuple[str, ...] = ()
    said: str = ""

    @property
    def told(self) -> str:
        """The inputs in words: what is there, what comes, and into which cache."""
        new = {"prefill": "", "decode": ", then one new token", "chunk": f", then {self.q_len} new tokens"}[self.phase]
        return self.said + new + ("" if self.cache.kind == "none" else f", {self.cache} cache")

    @property
    def mask_2d(self) -> NDArray[Any] | None:
        """The 2-D mask, where that is what is passed."""
        mask = self.attention_mask
        return mask if mask is not None and mask.ndim == 2 else None

    @property
    def mask_4d(self) -> NDArray[Any] | None:
        """The 4-D mask, where the caller made one."""
        mask = self.attention_mask
        return mask if mask is not None and mask.ndim == 4 else None


@dataclass(frozen=True, slots=True)
class Object:
    """What a layer receives as its mask. Bytes are 0 and shape and dtype None where it receives nothing."""

    kind: Literal["none", "tensor", "block_mask", "varlen"]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    logical_bytes: int = 0
    storage_bytes: int = 0


NOTHING = Object("none")


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the attention kernel is told besides the mask: flash-attention's inclusive window, the offsets of unpadded sequences.

    `mask` is the mask that the kernel gets where it is another one than the layer's (T5's position bias under sdpa).
    """

    is_causal: bool | None = None
    window: tuple[int, int] | None = None
    cu_seqlens: tuple[int, ...] | None = None
    cu_seqlens_q: tuple[int, ...] | None = None
    mask: Object | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LayerMask:
    """One group of layers that get the same thing under one backend.

    `type` is full_attention, sliding_attention, chunked_attention, encoder, cross or linear. `visible` is None for linear layers, which
    have no keys, and where `exact` is False. `skip_reason` says why there is no object.
    """

    layers: tuple[int, ...]
    type: str
    backend: str
    q_len: int
    kv_len: int | None
    q_offset: int
    formula: str
    object: Object
    kernel: Kernel
    visible: Visible | None = None
    skip_reason: str | None = None
    exact: bool = True
    count: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan:
    """One backend's layers, or the error that the library raises; `unobserved` are layers that nothing is known of."""

    backend: str
    layers: tuple[LayerMask, ...] = ()
    error: str | None = None
    unobserved: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def ones(batch: int, length: int) -> NDArray[np.int64]:
    """A 2-D mask without padding."""
    return np.ones((batch, length), np.int64)
