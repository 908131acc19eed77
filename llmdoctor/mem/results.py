"""What programs read: the type of `result` of each mem command. Sizes are in bytes and are those of one device, unless a comment differs."""

from __future__ import annotations

from typing import Any

from typing_extensions import NotRequired, TypedDict

from llmdoctor.configs.versions import LibraryVersionResult
from llmdoctor.core.inputs import InputsResult


class ModelResult(TypedDict):
    """The model's counts of parameters as the first strategy trains them."""

    params: int
    trainable: int
    with_gradient: int  # those that the batch reaches
    traced: str | None  # the layers whose code was run; None: activations are not counted


class SettingChangeResult(TypedDict):
    """A change of one setting and what the device needs then."""

    change: str
    needs_bytes: int
    enough: bool  # whether it fits with this change alone


class MemoryFitResult(TypedDict):
    """Whether a strategy fits into --gpu-memory."""

    needs_bytes: int  # the peak, the allocator's reserve beyond it and the context
    largest_batch: int  # sequences in a micro step; 0: none
    changes: list[SettingChangeResult]


class StrategyResult(TypedDict):
    """One strategy's memory on one device."""

    name: str
    settings: dict[str, Any]
    batch: int
    components: dict[str, int]  # at the peak; all but context add up to peak_bytes
    optimizer_state: dict[str, int]  # by key, such as exp_avg_sq
    activations: dict[str, int]  # by kind of layer
    host: dict[str, int]
    start_bytes: int
    steady_bytes: int  # between two steps, gradients freed
    peak_bytes: int
    peak_phase: str
    bytes_per_param: float
    reserved_bytes: int
    reserved_range: list[int]  # least and most
    phases: dict[str, dict[str, Any]]
    fits: bool | None  # None: not asked, tight, or not known
    fit: MemoryFitResult | None


class ExplanationResult(TypedDict):
    """Bytes of one component at the peak of `strategy`, or their difference to those of the strategy `than`."""

    component: str
    bytes: int
    bytes_per_param: float
    because: str
    setting: str
    strategy: str
    than: str | None


class MeasuredResult(TypedDict):
    """A measured number beside the predicted one."""

    strategy: str
    what: str
    predicted: int
    measured: int
    error: float  # predicted / measured - 1


class MemCompareResult(TypedDict):
    """`result` of mem compare."""

    inputs: InputsResult
    model: ModelResult
    strategies: list[StrategyResult]
    versions: list[LibraryVersionResult]  # the releases that the answer is for
    explanation: list[ExplanationResult]
    measured: NotRequired[list[MeasuredResult]]


class MeasuredStrategyResult(TypedDict):
    """The records of one strategy's real steps; `failed` is the record of the exception that ended them."""

    name: str
    phases: list[dict[str, Any]]
    failed: dict[str, Any] | None


class MeasureResult(TypedDict, total=False):
    """`result` of mem measure: of a model `strategies` and `beside`, of a command's records or of a snapshot the rest."""

    strategies: list[MeasuredStrategyResult]
    beside: list[MeasuredResult]
    ranks: int
    steps: int
    phases: list[dict[str, Any]]
    faults: list[dict[str, Any]]
    devices: list[dict[str, Any]]


class CacheLayerResult(TypedDict):
    """The key-value cache of one layer."""

    layer: int
    type: str  # full or sliding
    heads: int
    key_size: int
    value_size: int
    window: int | None
    tokens: int
    used_tokens: int
    allocated_bytes: int
    used_bytes: int


class CacheResult(TypedDict):
    """The key-value cache of all layers."""

    allocated_bytes: int
    used_bytes: int
    per_token_bytes: float
    layers: list[CacheLayerResult]
    cache: str
    dtype: str
    mask_bytes: int


class KvcacheResult(TypedDict):
    """`result` of mem kvcache."""

    kvcache: CacheResult


class CandidateResult(TypedDict):
    """A tensor of the size that an out-of-memory message names."""

    tensor: str
    shape: list[int]
    dtype: str
    bytes: int
    setting: str
    phase: str | None


class OomResult(TypedDict):
    """`result` of mem oom; None for what the message does not name. `kind` is allocator, or what else ran out of memory (host killed, NCCL, ...)."""

    line: int
    device: str
    kind: str
    tried_bytes: int | None
    capacity_bytes: int | None
    free_bytes: int | None
    allocated_bytes: int | None
    reserved_bytes: int | None
    other_processes_bytes: int | None
    fragmented: bool | None
    site: str | None
    phase: str | None
    messages: int
    candidates: list[CandidateResult]
    predicted_peak_bytes: int | None


class CombinationResult(TypedDict):
    """Settings that fit together, and what they cost."""

    changes: list[str]
    needs_bytes: int
    peak_bytes: int
    host_bytes: int
    costs: list[str]
    configuration: dict[str, Any]  # the keys to set, in the format of the strategy file
    script: list[str]  # what the file cannot express, and a script has to do


class FitResult(TypedDict):
    """`result` of mem fit: combinations, cheapest first."""

    inputs: InputsResult
    memory_bytes: int
    needs_bytes: int  # of the strategy as it is
    fits: bool | None
    combinations: list[CombinationResult]
    tried: int
