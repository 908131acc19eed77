"""`mask inspect`: every stage from the 2-D mask to what the kernel sees, as a report."""

from __future__ import annotations

from typing import Any

from llmdoctor.core.document import Block, Verdict
from llmdoctor.core.report import Report
from llmdoctor.mask import architectures
from llmdoctor.mask.model import Inputs, LayerMask, Object, Plan
from llmdoctor.mask.plan import plan
from llmdoctor.mask.question import Options, ask, ask_backends, ask_dtype, read_config
from llmdoctor.modeldir.directory import read_model_dir


def inspect_report(model: str, options: Options) -> Report:
    """What each layer of `model` receives for the inputs that `options` describe."""
    directory = read_model_dir(model)
    arch = architectures.read(read_config(directory))
    inputs, backends = ask(options), ask_backends(options)
    dtype = ask_dtype(options, arch.dtype)
    if options.mode == "run":
        from llmdoctor.mask.live import observe

        plans, _ = observe(directory.path, inputs, backends, dtype, weights=False)
    else:
        plans = [plan(arch, inputs, backend, dtype) for backend in backends]
    return Report("mask inspect", {"path": model, "dtype": dtype}, result_of(plans, inputs), document=_document(plans))


def result_of(plans: list[Plan], inputs: Inputs) -> dict[str, Any]:
    """The contract's result object of `mask inspect`."""
    return {
        "layers": [layer_of(group) for each in plans for group in each.layers],
        "unobserved": sorted({layer for each in plans for layer in each.unobserved}),
        "error": next((each.error for each in plans if each.error is not None), None),
    }


def layer_of(group: LayerMask) -> dict[str, Any]:
    """One group of layers, for a program."""
    kernel = group.kernel
    told: dict[str, Any] = {"is_causal": kernel.is_causal, "window": kernel.window, "cu_seqlens": kernel.cu_seqlens}
    if kernel.cu_seqlens_q is not None:
        told["cu_seqlens_q"] = kernel.cu_seqlens_q
    if kernel.mask is not None:
        told["mask"] = object_of(kernel.mask)
    return {
        "layers": list(group.layers),
        "type": group.type,
        "backend": group.backend,
        "q_len": group.q_len,
        "kv_len": group.kv_len,
        "q_offset": group.q_offset,
        "formula": group.formula,
        "object": object_of(group.object),
        "skip_reason": group.skip_reason,
        "kernel": told,
        "visible": group.count,
        "total": group.total,
        "exact": group.exact,
    }


def object_of(made: Object) -> dict[str, Any]:
    """An object, for a program."""
    return {
        "kind": made.kind,
        "shape": None if made.shape is None else list(made.shape),
        "dtype": made.dtype,
        "logical_bytes": made.logical_bytes,
        "storage_bytes": made.storage_bytes,
    }


def _document(plans: list[Plan]) -> tuple[Block, ...]:
    return (Verdict(" ".join(each.backend for each in plans)),)
