"""The changes that `mem fit` combines: what each is called, what it costs, and what it does to a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from llmdoctor.mem.optimizers import bitsandbytes_optimizer
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.workload import Lora, Quantization


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of a strategy: what to write, what it costs, how much it is avoided (0: costs nothing), and the change itself.

    `name` is its name in the tables of words (paste.py). `change` returns the strategy, or None if the change does not apply; `group` names moves
    that exclude each other; `batch` is the micro batch and `steps` the accumulation, None if they stay.
    """

    name: str
    text: str
    cost: str
    weight: int
    group: str
    change: Callable[[Strategy], Strategy | None]
    batch: int | None = None
    steps: int | None = None


def moves_of(strategy: Strategy, batch: int) -> list[Move]:
    """Return the changes that can be combined, for a strategy on a micro batch of `batch` sequences."""
    steps = strategy.accumulation
    moves = [
        Move(name="fused", text="optim adamw_torch_fused", cost="nothing", weight=0, group="optimizer", change=_fused),
        Move(name="liger", text="Liger kernels", cost="nothing (needs liger-kernel)", weight=1, group="loss", change=_liger),
        Move(name="checkpointing", text="gradient checkpointing", cost="about a third more compute", weight=3, group="checkpointing",
             change=_checkpointed),
    ]  # fmt: skip
    for smaller in dict.fromkeys((batch // 2, max(1, batch // 4), 1)):
        if 1 <= smaller < batch and steps * batch % smaller == 0:
            more = steps * batch // smaller
            text = f"batch {smaller} with {more} accumulation steps"
            moves.append(
                Move(name="batch", text=text, cost="smaller products, slower", weight=2 if smaller > 1 else 3, group="batch",
                     change=_accumulated(more), batch=smaller, steps=more)
            )  # fmt: skip
    return [*moves, *(_without_engine() if strategy.engine is None else _of_engine())]


def _without_engine() -> list[Move]:
    return [
        Move(name="eight_bit", text="optim adamw_bnb_8bit", cost="8-bit states (needs bitsandbytes)", weight=4, group="optimizer", change=_eight_bit),
        Move(name="half", text="weights in bfloat16", cost="weights and states are less exact", weight=6, group="dtype", change=_half),
        Move(name="lora", text="LoRA of rank 16 on all linear layers", cost="only adapters are trained", weight=8, group="adapter", change=_lora),
        Move(name="qlora", text="QLoRA: 4-bit weights, LoRA of rank 16, gradient checkpointing",
             cost="adapters on quantized weights; about a third more compute", weight=10, group="adapter", change=_qlora),
    ]  # fmt: skip


def _of_engine() -> list[Move]:
    return [
        Move(name="stage3", text="zero_optimization.stage 3", cost="parameters are gathered over the links for each use", weight=4, group="stage",
             change=_stage3),
        Move(name="offload", text="zero_optimization.offload_optimizer cpu", cost="the step runs on the host, gradients and weights cross PCIe",
             weight=6, group="offload", change=_offloaded),
    ]  # fmt: skip


def _fused(strategy: Strategy) -> Strategy | None:
    optimizer = strategy.optimizer
    if optimizer.how != "foreach" or optimizer.kind != "adamw":
        return None
    return replace(strategy, optimizer=replace(optimizer, how="fused", name="adamw_torch_fused"))


def _liger(strategy: Strategy) -> Strategy | None:
    return replace(strategy, loss="liger") if strategy.loss is None else None


def _checkpointed(strategy: Strategy) -> Strategy | None:
    return None if strategy.checkpointing else replace(strategy, checkpointing=True)


def _accumulated(steps: int) -> Callable[[Strategy], Strategy | None]:
    return lambda strategy: replace(strategy, accumulation=steps)


def _eight_bit(strategy: Strategy) -> Strategy | None:
    if strategy.optimizer.kind != "adamw":
        return None
    return replace(strategy, optimizer=bitsandbytes_optimizer("adamw_bnb_8bit", strategy.optimizer.setting))


def _half(strategy: Strategy) -> Strategy | None:
    return replace(strategy, dtype="bfloat16", autocast=None) if strategy.dtype == "float32" else None


def _lora(strategy: Strategy) -> Strategy | None:
    return replace(strategy, lora=Lora(16)) if strategy.lora is None else None


def _qlora(strategy: Strategy) -> Strategy | None:
    if strategy.quantization is not None:
        return None
    lora = strategy.lora or Lora(16)
    return replace(
        strategy, lora=lora, quantization=Quantization(4, double=True), autocast=strategy.autocast or "bfloat16", checkpointing=True
    )


def _stage3(strategy: Strategy) -> Strategy | None:
    zero = strategy.deepspeed.zero
    if not 1 <= zero.stage < 3 or strategy.world_size == 1:
        return None
    return replace(strategy, engine=replace(strategy.deepspeed, zero=replace(zero, stage=3, overlap_comm=True)))


def _offloaded(strategy: Strategy) -> Strategy | None:
    zero, optimizer = strategy.deepspeed.zero, strategy.optimizer
    if zero.stage < 1 or zero.offload_optimizer is not None or optimizer.kind != "adamw":
        return None
    offloaded = replace(strategy.deepspeed, zero=replace(zero, offload_optimizer="cpu"))
    return replace(strategy, engine=offloaded, optimizer=replace(optimizer, how="CPUAdam", name="DeepSpeedCPUAdam"))
