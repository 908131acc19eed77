"""Why a peak is as large as it is, and why two peaks differ: the bytes of each component, the reason, and the setting behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmdoctor.mem.components import COMPONENTS, by_component, parts_of
from llmdoctor.mem.optimizers import state_keys
from llmdoctor.mem.runners.base import width
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.types import Estimate

WORTH = 0.002  # of the larger peak: a component that differs by less is left out of the screen


@dataclass(frozen=True, slots=True)
class Reason:
    """`size` bytes that the strategy `name` holds at its peak and the strategy `than` does not; a negative size means the reverse."""

    component: str
    size: int
    because: str
    setting: str
    name: str
    than: str | None


def explain(estimate: Estimate, than: Estimate | None) -> tuple[Reason, ...]:
    """Return the reasons for the difference of two peaks, or for one peak, largest first. The sizes add up to the difference."""
    mine = by_component(estimate.prediction.peak)
    other = by_component(than.prediction.peak) if than is not None else dict.fromkeys(COMPONENTS, 0)
    reasons = [
        Reason(
            component=component,
            size=size,
            because=because,
            setting=setting,
            name=estimate.strategy.name,
            than=than.strategy.name if than else None,
        )
        for component in COMPONENTS
        for size, because, setting in _reasons(component, mine[component] - other[component], estimate, than)
    ]
    return tuple(sorted(reasons, key=lambda reason: -abs(reason.size)))


def worth_showing(reasons: tuple[Reason, ...], estimate: Estimate) -> tuple[Reason, ...]:
    """Return the reasons that are large enough for a screen."""
    return tuple(reason for reason in reasons if abs(reason.size) >= WORTH * estimate.prediction.peak.total)


def _reasons(component: str, difference: int, estimate: Estimate, than: Estimate | None) -> Iterator[tuple[int, str, str]]:
    if not difference:
        return
    if component == "optimizer_state" and than is not None:
        yield from _states(difference, estimate, than)
        return
    holder = estimate if difference > 0 or than is None else than
    yield (difference, *_WHY[component](holder))


def _states(difference: int, estimate: Estimate, than: Estimate) -> Iterator[tuple[int, str, str]]:
    """Separate what differs by the number of parameters with a state from what differs by dtype and kind of state."""
    keys = len(state_keys(estimate.strategy.optimizer))
    with_state = _with_state(estimate)
    extra = with_state - _with_state(than)
    each = by_component(estimate.prediction.peak)["optimizer_state"] / with_state if with_state else 0.0
    part = int(extra * each) if extra > 0 and keys and estimate.strategy.engine is not None else 0
    if part:
        yield (
            part,
            f"state for {extra / 1e6:,.0f} M parameters that get no gradient in this step: DeepSpeed updates its flat tensors whole, "
            "the Trainer's optimizer skips them (zero/stage_1_and_2.py:2708)",
            "trained parameters that the batch does not reach",
        )
    if difference - part:
        yield (difference - part, *_why_states(estimate if difference - part > 0 else than))


def _with_state(estimate: Estimate) -> int:
    """Return the parameters with an optimizer state, of all processes together."""
    strategy = estimate.strategy
    flat = strategy.engine is not None and (strategy.dtype != "float32" or strategy.stage > 0)
    return estimate.prediction.trainable if flat else estimate.prediction.reached


def trained_dtypes(estimate: Estimate) -> str:
    """Return the dtypes of the trained weights: "float32", or "bfloat16 and float32"."""
    if estimate.strategy.fsdp is not None:
        return "float32" if estimate.strategy.autocast else estimate.strategy.dtype
    return " and ".join(dict.fromkeys(sorted(weight.dtype for weight in estimate.job.trained))) or estimate.strategy.dtype


def _why_states(estimate: Estimate) -> tuple[str, str]:
    strategy, engine = estimate.strategy, estimate.strategy.engine
    keys = ", ".join(parts_of(estimate.prediction.steady, "optimizer_state")) or "no state"
    if strategy.optimizer.kind == "adamw8bit":
        return (
            f"{strategy.optimizer.name} holds moments of 8 bit, and of 32 bit for embeddings and small tensors",
            strategy.optimizer.setting,
        )
    if strategy.optimizer.kind == "adafactor":
        return f"{strategy.optimizer.name} holds row and column sums in float32 ({keys})", strategy.optimizer.setting
    dtype = trained_dtypes(estimate) if engine is None else engine.master
    because = f"{strategy.optimizer.name} holds {keys} in {dtype}{_shared(strategy)}"
    if engine is not None and dtype == "float32" and strategy.dtype != "float32":
        because += ", because DeepSpeed optimizes fp32 master weights"
    elif strategy.lora is not None and engine is None:
        because += ", the dtype of the adapters"
    return because, strategy.optimizer.setting


def _shared(strategy: Strategy) -> str:
    divided = strategy.stage >= 1 or strategy.fsdp is not None
    return f", 1/{strategy.world_size} of it on each device" if divided and strategy.world_size > 1 else ""


def _why_params(estimate: Estimate) -> tuple[str, str]:
    strategy = estimate.strategy
    if strategy.fsdp is not None:
        return f"this process's part of the weights in {trained_dtypes(estimate)}, and those of the units that are gathered for use", "fsdp"
    if strategy.stage == 3 and strategy.world_size > 1:
        return "this process's part of the weights, and those gathered for use", "zero_optimization.stage 3"
    adapters = "" if strategy.lora is None else f", adapters in {trained_dtypes(estimate)}"
    if strategy.quantization is not None:
        other = "float32" if strategy.quantization.prepared else strategy.dtype
        linear = f"linear layers in {strategy.quantization.bits} bit, other weights in {other}"
        return f"{linear}{adapters}", "quantization_config"
    return f"weights in {strategy.dtype}{adapters}", strategy.entry.dtype_setting


def _why_master(estimate: Estimate) -> tuple[str, str]:
    strategy = estimate.strategy
    where = {0: "fp16/fused_optimizer.py:100", 3: "zero/stage3.py:1170"}.get(strategy.stage, "zero/stage_1_and_2.py:560")
    master = strategy.deepspeed.master
    because = f"DeepSpeed also keeps every trained weight in {master}, {width(master)} bytes per parameter{_shared(strategy)} ({where})"
    return because, f"DeepSpeed in {strategy.dtype}"


def _why_accumulated(estimate: Estimate) -> tuple[str, str]:
    dtype = estimate.strategy.deepspeed.grad_accum
    if estimate.strategy.stage == 1:
        return f"{dtype} gradients of the whole model, always held (bf16_optimizer.py:191)", "data_types.grad_accum_dtype"
    return f"stage 3 holds its part of the gradients in {dtype} between steps too (zero/stage3.py:791)", "zero_optimization.stage 3"


def _why_gradients(estimate: Estimate) -> tuple[str, str]:
    strategy = estimate.strategy
    if strategy.engine is not None and strategy.stage in (1, 2):
        because = "averaged gradients, zeros for parameters that got none (zero/stage_1_and_2.py:2192, :2708)"
        return because, f"zero_optimization.stage {strategy.stage}"
    if strategy.fsdp is not None:
        return f"this process's part of the gradients in {trained_dtypes(estimate)}, and those of a unit in its backward", "fsdp"
    return f"gradients in {trained_dtypes(estimate)}, held until the step", "the trained parameters"


def _why_buckets(estimate: Estimate) -> tuple[str, str]:
    if estimate.strategy.fsdp is not None:
        return "buffers through which the weights and gradients of a unit of FSDP go", "fsdp_config.transformer_layer_cls_to_wrap"
    if estimate.strategy.engine is None:
        because = f"DistributedDataParallel's buckets, a second copy of the gradients in {trained_dtypes(estimate)} that is always held"
        return because, f"{estimate.strategy.world_size} processes"
    zero = estimate.strategy.deepspeed.zero
    if zero.offload_optimizer is not None and zero.stage < 3:
        return "a buffer of the largest gradient, through which gradients go to the host", "zero_optimization.offload_optimizer"
    held = "always held by stage 3 (zero/stage3.py:782)" if zero.stage == 3 else "held during the backward (zero/stage_1_and_2.py:3266)"
    return f"the reduce bucket of {zero.reduce_bucket_size:,} elements, {held}", "zero_optimization.reduce_bucket_size"


def _why_activations(estimate: Estimate) -> tuple[str, str]:
    parts = sorted(parts_of(estimate.prediction.peak, "activations").items(), key=lambda item: -item[1])[:3]
    largest = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in parts)
    return f"what the backward needs of the forward, alive at this peak ({largest})", _batch(estimate)


def _batch(estimate: Estimate) -> str:
    return f"batch {estimate.workload.batch} x {estimate.workload.seq_len} tokens"


def _why_logits(estimate: Estimate) -> tuple[str, str]:
    return "the logits and the copies of them that the loss makes", f"{_batch(estimate)} x the vocabulary"


def _why_temporaries(estimate: Estimate) -> tuple[str, str]:
    strategy, phase = estimate.strategy, estimate.prediction.peak.phase
    if phase != "step":
        return f"gradients of activations in flight during the {phase}", "the backward itself"
    if strategy.engine is None or (strategy.stage == 0 and strategy.dtype == "float32"):
        copies = "a copy of the second moments of a whole group (torch/optim/adam.py:791); adamw_torch_fused makes none"
        what = {"adafactor": "fp32 copies of one parameter at a time"}.get(strategy.optimizer.kind, copies)
        return f"the step of {strategy.optimizer.name}: {what}", strategy.optimizer.setting
    where = {0: "fp16/fused_optimizer.py:286, :287", 3: "zero/stage3.py:2686"}.get(strategy.stage, "zero/stage_1_and_2.py:1399, :3118")
    return (
        f"copies at the step: the flat gradients and their cast to {strategy.deepspeed.master} ({where})",
        "the step of DeepSpeed's optimizer",
    )


def _why_workspace(_estimate: Estimate) -> tuple[str, str]:
    return "cuBLAS workspaces of the forward's and the backward's thread", "CUBLAS_WORKSPACE_CONFIG"


_WHY: dict[str, Callable[[Estimate], tuple[str, str]]] = {
    "params": _why_params,
    "master_params": _why_master,
    "optimizer_state": _why_states,
    "grad_accum": _why_accumulated,
    "grads": _why_gradients,
    "buckets": _why_buckets,
    "activations": _why_activations,
    "logits": _why_logits,
    "temporaries": _why_temporaries,
    "workspace": _why_workspace,
}
