"""Why two strategies differ: each component's bytes, its reason, the setting that causes it and the one that removes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmdoctor.mem.components import COMPONENTS, by_component, parts_of
from llmdoctor.mem.optimizers import state_keys
from llmdoctor.mem.options import Case
from llmdoctor.mem.runners.base import width
from llmdoctor.mem.settings import Strategy

WORTH = 0.002  # of the larger peak: a smaller difference of a component is not told


@dataclass(frozen=True, slots=True)
class Reason:
    """`size` bytes that `case` holds at its peak and `than` does not; negative: the other way round."""

    component: str
    size: int
    because: str
    setting: str
    remove: str
    case: str
    than: str | None


def explain(case: Case, than: Case | None) -> tuple[Reason, ...]:
    """The difference of the peaks of two cases, or what one peak consists of; biggest first. The sizes add up to the difference."""
    mine = by_component(case.prediction.peak)
    other = by_component(than.prediction.peak) if than is not None else dict.fromkeys(COMPONENTS, 0)
    reasons = [
        Reason(component, size, because, setting, remove, case.strategy.name, than.strategy.name if than else None)
        for component in COMPONENTS
        for size, because, setting, remove in _reasons(component, mine[component] - other[component], case, than)
    ]
    return tuple(sorted(reasons, key=lambda reason: -abs(reason.size)))


def worth(reasons: tuple[Reason, ...], case: Case) -> tuple[Reason, ...]:
    """The reasons that a person has to read."""
    return tuple(reason for reason in reasons if abs(reason.size) >= WORTH * case.prediction.peak.total)


def _reasons(component: str, difference: int, case: Case, than: Case | None) -> Iterator[tuple[int, str, str, str]]:
    if not difference:
        return
    if component == "optimizer_state" and than is not None:
        yield from _states(difference, case, than)
        return
    holder = case if difference > 0 or than is None else than
    because, setting, remove = _WHY[component](holder)
    yield difference, because, setting, remove


def _states(difference: int, case: Case, than: Case) -> Iterator[tuple[int, str, str, str]]:
    """States differ by their dtype and by the parameters that have any: told apart."""
    mine, other = case.prediction, than.prediction
    keys = len(state_keys(case.strategy.optimizer))
    extra = _stated(case) - _stated(than)
    each = (by_component(mine.peak)["optimizer_state"] / _stated(case)) if _stated(case) else 0.0
    part = int(extra * each) if extra > 0 and keys and case.strategy.engine is not None else 0
    if part:
        yield (
            part,
            f"state for {extra / 1e6:,.0f} M parameters that get no gradient in this step: DeepSpeed updates its flat tensors whole, "
            "the Trainer's optimizer skips them (zero/stage_1_and_2.py:2708)",
            "trained parameters that the batch does not reach",
            "freeze them: --stage llm, or requires_grad_(False)",
        )
    if difference - part:
        holder = case if difference - part > 0 else than
        because, setting, remove = _why_states(holder)
        yield difference - part, because, setting, remove
    del other


def _stated(case: Case) -> int:
    """Parameters with an optimizer state, of all processes."""
    if case.strategy.engine is not None and case.strategy.dtype != "float32":
        return case.prediction.trainable
    if case.strategy.engine is not None and case.strategy.stage > 0:
        return case.prediction.trainable
    return case.prediction.reached


def _why_states(case: Case) -> tuple[str, str, str]:
    strategy = case.strategy
    keys = ", ".join(parts_of(case.prediction.steady, "optimizer_state")) or "none"
    engine = strategy.engine
    dtype = strategy.dtype if engine is None else engine.master
    shard = _shared(strategy)
    if strategy.optimizer.kind == "adamw8bit":
        return "moments in 8 bit, in fp32 for embeddings and small tensors", strategy.optimizer.setting, "adafactor holds less"
    because = f"{strategy.optimizer.name} holds {keys} in {dtype}{shard}"
    if engine is not None and dtype == "float32" and strategy.dtype != "float32":
        return (
            f"{because}, as DeepSpeed optimizes fp32 master weights",
            strategy.optimizer.setting,
            "bf16.bf16_master_weights_and_grads and bf16.bf16_optimizer_states true (stages 1 to 3), or zero_optimization.offload_optimizer",
        )
    return because, strategy.optimizer.setting, "an optimizer with less state (adamw_bnb_8bit, adafactor, sgd)"


def _shared(strategy: Strategy) -> str:
    if strategy.stage >= 1 and strategy.world_size > 1:
        return f", 1/{strategy.world_size} of it on each device"
    return ""


def _why_params(case: Case) -> tuple[str, str, str]:
    strategy = case.strategy
    if strategy.stage == 3 and strategy.world_size > 1:
        return (
            "this process's part of the weights, and those gathered for use",
            "zero_optimization.stage 3",
            "zero_optimization.offload_param",
        )
    return (
        f"weights in {strategy.dtype}",
        "model_init.dtype, or bf16.enabled under DeepSpeed",
        "bf16 weights; ZeRO stage 3 on several devices",
    )


def _why_master(case: Case) -> tuple[str, str, str]:
    where = {0: "fp16/fused_optimizer.py:100", 3: "zero/stage3.py:1170"}.get(case.strategy.stage, "zero/stage_1_and_2.py:560")
    each = width(case.strategy.deepspeed.master)
    return (
        f"DeepSpeed keeps every trained weight in {case.strategy.deepspeed.master} too, {each} bytes a parameter{_shared(case.strategy)} ({where})",
        f"DeepSpeed in {case.strategy.dtype}",
        "bf16.bf16_master_weights_and_grads true, or zero_optimization.offload_optimizer",
    )


def _why_accum(case: Case) -> tuple[str, str, str]:
    dtype = case.strategy.deepspeed.grad_accum
    if case.strategy.stage == 1:
        return (
            f"{dtype} gradients of the whole model, always held (bf16_optimizer.py:191)",
            "data_types.grad_accum_dtype",
            "leave grad_accum_dtype out, or stage 2",
        )
    return (
        f"stage 3 holds its part of the gradients in {dtype} between steps too (zero/stage3.py:791)",
        "zero_optimization.stage 3",
        "offload_optimizer, or stage 2 on one device",
    )


def _why_grads(case: Case) -> tuple[str, str, str]:
    strategy = case.strategy
    if strategy.engine is not None and strategy.stage in (1, 2):
        return (
            "averaged gradients, zeros for parameters that got none (zero/stage_1_and_2.py:2192, :2708)",
            f"zero_optimization.stage {strategy.stage}",
            "zero_optimization.offload_optimizer",
        )
    return (
        f"gradients in {strategy.dtype}, held until the step",
        "none: every optimizer needs them",
        "LoRA, or freezing parts (--trainable)",
    )


def _why_buckets(case: Case) -> tuple[str, str, str]:
    zero = case.strategy.deepspeed.zero
    if zero.offload_optimizer is not None and zero.stage < 3:
        return "a buffer of the largest gradient, through which gradients go to the host", "zero_optimization.offload_optimizer", "none"
    held = "always held by stage 3 (zero/stage3.py:782)" if zero.stage == 3 else "held during the backward (zero/stage_1_and_2.py:3266)"
    return (
        f"the reduce bucket of {zero.reduce_bucket_size:,} elements, {held}",
        "zero_optimization.reduce_bucket_size",
        '"reduce_bucket_size": 50000000',
    )


def _why_activations(case: Case) -> tuple[str, str, str]:
    parts = sorted(parts_of(case.prediction.peak, "activations").items(), key=lambda item: -item[1])[:3]
    said = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in parts)
    return (
        f"what the backward needs of the forward, alive at this peak ({said})",
        f"batch {case.workload.batch} x {case.workload.seq_len} tokens",
        "gradient checkpointing, or a smaller batch",
    )


def _why_logits(case: Case) -> tuple[str, str, str]:
    return (
        "the logits and their fp32 copy for the loss",
        f"{case.workload.batch} x {case.workload.seq_len} tokens times the vocabulary",
        "a smaller batch, or a fused loss",
    )


def _why_temporaries(case: Case) -> tuple[str, str, str]:
    strategy, phase = case.strategy, case.prediction.peak.phase
    if phase != "step":
        return f"gradients of activations in flight during the {phase}", "the backward itself", "a smaller batch"
    if strategy.engine is None or (strategy.stage == 0 and strategy.dtype == "float32"):
        what = {"adafactor": "fp32 copies of one parameter at a time"}.get(
            strategy.optimizer.kind, "a copy of a whole group's second moments (torch/optim/adam.py:791)"
        )
        return f"the step of {strategy.optimizer.name}: {what}", strategy.optimizer.setting, "adamw_torch_fused needs none"
    where = {0: "fp16/fused_optimizer.py:286, :287", 3: "zero/stage3.py:2686"}.get(strategy.stage, "zero/stage_1_and_2.py:1399, :3118")
    return (
        f"copies at the step: the flat gradients and their cast to {strategy.engine.master if strategy.engine else 'fp32'} ({where})",
        "DeepSpeed's optimizer step",
        "bf16_master_weights_and_grads (no cast), stage 3 (one sub-group at a time), offload_optimizer",
    )


def _why_workspace(_case: Case) -> tuple[str, str, str]:
    return "cuBLAS workspaces of the forward's and the backward's thread", "CUBLAS_WORKSPACE_CONFIG", "none"


_WHY = {
    "params": _why_params,
    "master_params": _why_master,
    "optimizer_state": _why_states,
    "grad_accum": _why_accum,
    "grads": _why_grads,
    "buckets": _why_buckets,
    "activations": _why_activations,
    "logits": _why_logits,
    "temporaries": _why_temporaries,
    "workspace": _why_workspace,
}
