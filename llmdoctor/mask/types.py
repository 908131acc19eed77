"""The nouns of the mask job: the inputs of a forward(), and what each layer receives for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
class ForwardInputs:
    """The inputs of one forward().

    `batch` rows of `q_len` new tokens after `past` cached ones. `attention_mask` is what the caller passes: int64 [B, past + q_len], a 4-D
    mask, or None. `position_ids` is int64 [1|B, S], or [3|4, B, S] for models with M-RoPE, or None. `token_types` (token_type_ids) and `media`
    (mm_token_type_ids) are int64 [B, S]. `labels` and `input_ids` are int64 [B, S]. `cu_seqlens` are the offsets of packed documents
    (cu_seq_lens_q/k) and `varlen` is True if all four fields that flash-attention needs are there. `ended`,
    int64 [B, S], are the documents that --eos ends. `decoder_ids`, `decoder_mask` are the
    decoder's own inputs in an encoder-decoder. `grids` are image_grid_thw and video_grid_thw, int64 [pictures, 3]. `source` is
    the inputs file, `fields` its fields with their shapes, `without` those left out. `tokens` are the texts of each row's tokens for a
    picture, none if they are not known; `words` describes the tokens.
    """

    batch: int
    q_len: int
    past: int = 0
    phase: Literal["prefill", "decode", "chunk"] = "prefill"
    cache: CachePlan = CachePlan()
    attention_mask: NDArray[Any] | None = None
    mask_dtype: str = ""  # of attention_mask, if numpy has no type for it: bfloat16 is held as float32
    position_ids: Ints | None = None
    token_types: Ints | None = None
    media: Ints | None = None
    input_ids: Ints | None = None
    labels: Ints | None = None
    cu_seqlens: tuple[int, ...] | None = None
    varlen: bool = False
    ended: Ints | None = None
    decoder_ids: Ints | None = None
    decoder_mask: NDArray[Any] | None = None
    grids: Mapping[str, Ints] = field(default_factory=dict)
    source: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()  # fields of the file that are no argument of forward() known here
    assumed: bool = False  # whether no option describes the tokens
    tokens: tuple[tuple[str, ...], ...] = ()
    words: str = ""

    @property
    def description(self) -> str:
        """Return the inputs in words: what is cached, what is new, and which cache."""
        new = {"prefill": "", "decode": ", then one new token", "chunk": f", then {self.q_len} new tokens"}[self.phase]
        return self.words + new + ("" if self.cache.kind == "none" else f", {self.cache} cache")

    @property
    def mask_2d(self) -> NDArray[Any] | None:
        """Return the mask if it is 2-D, else None."""
        mask = self.attention_mask
        return mask if mask is not None and mask.ndim == 2 else None

    @property
    def mask_4d(self) -> NDArray[Any] | None:
        """Return the mask if it is 4-D, else None."""
        mask = self.attention_mask
        return mask if mask is not None and mask.ndim == 4 else None


@dataclass(frozen=True, slots=True)
class MaskObject:
    """The mask that a layer receives. If it receives nothing, bytes are 0, shape and dtype None."""

    kind: Literal["none", "tensor", "block_mask", "varlen"]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    logical_bytes: int = 0
    storage_bytes: int = 0


NOTHING = MaskObject("none")


@dataclass(frozen=True, slots=True)
class KernelArguments:
    """The kernel's arguments besides the mask: flash-attention's inclusive window, the offsets of unpadded sequences.

    `mask` is the kernel's own mask if it differs from the layer's (T5's position bias under sdpa).
    """

    is_causal: bool | None = None
    window: tuple[int, int] | None = None
    cu_seqlens: tuple[int, ...] | None = None
    cu_seqlens_q: tuple[int, ...] | None = None
    mask: MaskObject | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LayerMask:
    """A group of layers that receive the same mask under one backend.

    `type` is full_attention, sliding_attention, chunked_attention, encoder, cross or linear. `visible` is None for linear layers, which
    have no keys, and if the pairs are not known. `skip_reason` is the reason why there is no mask. `exact` is True if the group was observed in a
    run, or if plans of this kind were compared with runs and agreed; `doubt` is the reason if it is False.
    """

    layers: tuple[int, ...]
    type: str
    backend: str
    q_len: int
    kv_len: int | None
    q_offset: int
    formula: str
    object: MaskObject
    kernel: KernelArguments
    visible: Visible | None = None
    skip_reason: str | None = None
    exact: bool = True
    count: int | None = None
    total: int | None = None
    doubt: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BackendPlan:
    """The layers under one backend, or the error that the library raises; `unobserved` are layers of which nothing is known."""

    backend: str
    layers: tuple[LayerMask, ...] = ()
    error: str | None = None
    unobserved: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def ones(batch: int, length: int) -> NDArray[np.int64]:
    """Return a 2-D mask without padding."""
    return np.ones((batch, length), np.int64)
