"""`result` of `llmdoctor mask inspect` and `llmdoctor mask test`. Bytes are whole bytes, lengths and windows are tokens."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired

from llmdoctor.core.inputs import InputsResult


class MaskObjectResult(TypedDict):
    """The mask that a layer receives; shape and dtype are null and the bytes 0 if it receives none."""

    kind: str  # none, tensor, block_mask or varlen
    shape: list[int] | None
    dtype: str | None
    logical_bytes: int  # of all elements
    storage_bytes: int  # of the elements in memory: an expanded axis counts once


class KernelResult(TypedDict):
    """The kernel's arguments besides the mask."""

    is_causal: bool | None
    window: list[int] | None  # [left, right] of flash-attention, inclusive
    cu_seqlens: list[int] | None  # offsets of the sequences on the key side
    cu_seqlens_q: NotRequired[list[int]]
    mask: NotRequired[MaskObjectResult]  # the kernel's mask if it differs from the layer's


class LayerResult(TypedDict):
    """Layers that receive the same mask under one backend."""

    layers: list[int]
    type: str  # full_attention, sliding_attention, chunked_attention, encoder, cross, linear
    backend: str
    q_len: int
    kv_len: int | None  # null for linear layers
    q_offset: int  # position of the first query
    formula: str
    object: MaskObjectResult
    skip_reason: str | None
    kernel: KernelResult
    visible: int | None  # pairs seen by one head, summed over the batch; null if they are not known
    total: int | None  # batch x q_len x kv_len
    exact: bool  # observed, or a plan of a kind that agreed with real runs
    doubt: NotRequired[str]  # why it is not exact


class ForwardResult(TypedDict):
    """The shape of the forward() that is described."""

    batch: int
    q_len: int  # new tokens
    past: int  # cached tokens
    phase: str
    cache: str


class TowerLayersResult(TypedDict):
    """Layers of a vision tower that are called over the same pieces of its patches."""

    layers: list[int]
    windowed: bool  # pieces are windows, else frames
    pieces: int
    longest: int  # patches of the longest piece
    pairs: int  # seen by one head, summed over the pieces
    scores_bytes: int  # of one layer's attention scores under eager


class TowerResult(TypedDict):
    """The attention of the vision tower, which gets no mask."""

    patches: int
    layers: list[TowerLayersResult]


class MaskInspectResult(TypedDict):
    """What each layer receives."""

    layers: list[LayerResult]
    unobserved: list[int]  # layers of which nothing is known
    error: str | None  # the library's, if no backend gives an answer
    errors: dict[str, str]  # by backend
    forward: ForwardResult
    inputs: InputsResult
    tower: NotRequired[TowerResult]  # if the inputs have grids of pictures and the tower is modelled
    chat: NotRequired[dict[str, Any]]  # grids and M-RoPE ids of --messages


class TestedSubject(TypedDict):
    """The model that was tested, with the indices of its findings."""

    path: str
    kind: str  # model or function
    findings: list[int]


class MeasurementResult(TypedDict):
    """One test of one row. It passed if `measured` is at most `threshold`."""

    test: str
    backend: str
    inputs: str
    row: int
    span: list[int]  # [first, end) of the tokens concerned
    measured: float  # a gradient, or a difference of logits in their standard deviations
    threshold: float
    passed: bool


class MaskTestResult(TypedDict):
    """What was tested and measured."""

    subjects: list[TestedSubject]
    tests: list[MeasurementResult]
    inputs: InputsResult
