"""Plans as `result`: each group of layers for a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdoctor.mask.results import KernelResult, LayerResult, MaskObjectResult
from llmdoctor.mask.types import BackendPlan, ForwardInputs, LayerMask, MaskObject


def result_of(plans: Sequence[BackendPlan], inputs: ForwardInputs) -> dict[str, Any]:
    """Return `result` without the fields that depend on the options."""
    return {
        "layers": [layer_result(group) for each in plans for group in each.layers],
        "unobserved": sorted({layer for each in plans for layer in each.unobserved}),
        "error": next((each.error for each in plans if each.error is not None and not any(one.layers for one in plans)), None),
        "errors": {each.backend: each.error for each in plans if each.error is not None},
        "forward": {"batch": inputs.batch, "q_len": inputs.q_len, "past": inputs.past, "phase": inputs.phase, "cache": str(inputs.cache)},
    }


def layer_result(group: LayerMask) -> LayerResult:
    """Return one group of layers for a program."""
    kernel = group.kernel
    arguments: KernelResult = {
        "is_causal": kernel.is_causal,
        "window": None if kernel.window is None else list(kernel.window),
        "cu_seqlens": None if kernel.cu_seqlens is None else list(kernel.cu_seqlens),
    }
    if kernel.cu_seqlens_q is not None:
        arguments["cu_seqlens_q"] = list(kernel.cu_seqlens_q)
    if kernel.mask is not None:
        arguments["mask"] = object_result(kernel.mask)
    result: LayerResult = {
        "layers": list(group.layers),
        "type": group.type,
        "backend": group.backend,
        "q_len": group.q_len,
        "kv_len": group.kv_len,
        "q_offset": group.q_offset,
        "formula": group.formula,
        "object": object_result(group.object),
        "skip_reason": group.skip_reason,
        "kernel": arguments,
        "visible": group.count,
        "total": group.total,
        "exact": group.exact,
    }
    if not group.exact and group.doubt:
        result["doubt"] = group.doubt
    return result


def object_result(made: MaskObject) -> MaskObjectResult:
    """Return a mask for a program."""
    return {
        "kind": made.kind,
        "shape": None if made.shape is None else list(made.shape),
        "dtype": made.dtype,
        "logical_bytes": made.logical_bytes,
        "storage_bytes": made.storage_bytes,
    }
