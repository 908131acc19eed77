"""Which tensors a process holds, by component: every storage once, labelled by who owns it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

_ENGINE_BUCKETS = (
    "ipg_buckets",
    "_DeepSpeedZeroOptimizer_Stage3__ipg_bucket_flat_buffer",  # before 0.17.2
    "temp_grad_buffer_for_gpu_offload",
    "temp_grad_buffer_for_cpu_offload",
    "param_buffer_of_bit16_for_cpu_offload_groups",
)
_ENGINE_GRADS = ("averaged_gradients", "all_grad_tensors", "grads_in_partition")
_ENGINE_ACCUMULATED = ("grad_partitions_flat_buffer", "fp32_groups_gradients_flat")
_ENGINE_MASTERS = (
    "single_partition_of_fp32_groups",
    "fp32_groups_flat_partition",
    "fp32_partitioned_groups_flat",
    "fp32_groups_flat",
    "fp32_groups",
)
MAX_DEPTH = 4


def inventory(models: list[Any], optimizers: list[Any]) -> dict[str, dict[str, int]]:
    """Bytes by device ("cuda:0", "cpu") and component of all tensors that `models` and `optimizers` own, and of every other as "unlabelled".

    A storage that two own counts for the first: weights, then masters, states, gradients, buffers.
    """
    import torch

    seen: set[int] = set()
    out: dict[str, dict[str, int]] = {}

    def count(tensor: Any, label: str) -> None:
        if not isinstance(tensor, torch.Tensor) or tensor.device.type == "meta":
            return
        try:
            storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            return  # no storage of its own
        if storage._cdata in seen:
            return
        seen.add(storage._cdata)
        if storage.nbytes():
            held = out.setdefault(str(tensor.device), {})
            held[label] = held.get(label, 0) + storage.nbytes()

    for label, tensor in _owned(models, optimizers):
        count(tensor, label)
    for found in gc.get_objects():
        if issubclass(type(found), torch.Tensor):  # isinstance() would ask objects for their __class__, and some comparison with a warning
            count(found, "unlabelled")
    return out


def _owned(models: list[Any], optimizers: list[Any]) -> Iterator[tuple[str, Any]]:
    parameters = [parameter for model in models for parameter in model.parameters()]
    for parameter in parameters:
        yield ("params" if parameter.requires_grad else "frozen_params"), parameter.data
        yield "params", getattr(parameter, "ds_tensor", None)
    wrapped = [inner for optimizer in optimizers for inner in _inside(optimizer)]
    for optimizer in wrapped:
        for name in _ENGINE_MASTERS:
            yield from (("master_params", tensor) for tensor in _tensors(getattr(optimizer, name, None)))
    for optimizer in wrapped:
        yield from _states(optimizer)
    for parameter in parameters:
        yield "grads", parameter.grad
        yield "grads", getattr(parameter, "grad_accum", None)
    for optimizer in wrapped:
        for label, names in (("grad_accum", _ENGINE_ACCUMULATED), ("grads", _ENGINE_GRADS), ("buckets", _ENGINE_BUCKETS)):
            for name in names:
                yield from ((label, tensor) for tensor in _tensors(getattr(optimizer, name, None)))
        for name in _ENGINE_MASTERS:
            yield from (("grads", tensor.grad) for tensor in _tensors(getattr(optimizer, name, None)) if tensor.is_leaf)
    for model in models:
        yield from (("model_buffers", buffer) for buffer in model.buffers())


def _inside(optimizer: Any) -> Iterator[Any]:
    """An optimizer and those that it wraps (accelerate's, DeepSpeed's)."""
    seen: set[int] = set()
    while optimizer is not None and id(optimizer) not in seen:
        seen.add(id(optimizer))
        yield optimizer
        optimizer = getattr(optimizer, "optimizer", None)


def _states(optimizer: Any) -> Iterator[tuple[str, Any]]:
    import torch

    state = getattr(optimizer, "state", None)
    for held in state.values() if isinstance(state, dict) else ():
        for key, value in held.items() if isinstance(held, dict) else ():
            if isinstance(value, torch.Tensor):
                yield f"optimizer_state.{key}", value
    for group in getattr(optimizer, "param_groups", None) or ():
        yield from (("master_params", parameter) for parameter in group.get("params", ()) if isinstance(parameter, torch.Tensor))


def _tensors(value: Any, depth: int = 0) -> Iterator[Any]:
    """Every tensor in nested lists, dicts and plain objects such as DeepSpeed's buckets."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif depth < MAX_DEPTH and isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth + 1)
    elif depth < MAX_DEPTH and type(value).__name__.startswith(("IPGBucket", "GradPartitionBuffer")):
        yield from _tensors(list(vars(value).values()), depth + 1)
