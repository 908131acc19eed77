"""Searches combinations of changes under which a training step fits into a device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.capacity import fits, need_of
from llmdoctor.mem.optimizers import bitsandbytes_optimizer
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.settings import Strategy, validated
from llmdoctor.mem.types import Estimate
from llmdoctor.mem.workload import Lora, Quantization

MOST_MOVES, MOST_TRIED, MOST_FOUND = 4, 160, 6


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a strategy: what to write, what it costs, how much it is avoided (0: costs nothing), and the change itself.

    `change` returns the strategy, or None if the change does not apply; `group` names moves that exclude each other; `batch` is the micro
    batch, None if it stays; `keys` are the keys to set in the format of the Trainer's arguments.
    """

    text: str
    cost: str
    weight: int
    group: str
    change: Callable[[Strategy], Strategy | None]
    batch: int | None = None
    keys: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Combination:
    """Moves that fit together, and the estimate of the strategy that they lead to."""

    moves: tuple[Move, ...]
    estimate: Estimate

    @property
    def weight(self) -> int:
        """Return how much the combination is avoided."""
        return sum(move.weight for move in self.moves)


def moves_of(strategy: Strategy, batch: int) -> list[Move]:
    """Return the changes that can be combined, for a strategy on a micro batch of `batch` sequences."""
    steps = strategy.accumulation
    moves = [
        Move("optim adamw_torch_fused", "nothing", 0, "optimizer", _fused, keys={"optim": "adamw_torch_fused"}),
        Move("use_liger_kernel true", "nothing (needs liger-kernel)", 1, "loss", _liger, keys={"use_liger_kernel": True}),
        Move(
            "gradient_checkpointing true", "a third more compute", 3, "checkpointing", _checkpointed, keys={"gradient_checkpointing": True}
        ),
    ]
    for smaller in dict.fromkeys((batch // 2, max(1, batch // 4), 1)):
        if 1 <= smaller < batch:
            more = steps * batch // smaller
            keys = {"per_device_train_batch_size": smaller, "gradient_accumulation_steps": more}
            text = f"per_device_train_batch_size {smaller}, gradient_accumulation_steps {more}"
            moves.append(
                Move(
                    text=text,
                    cost="smaller products",
                    weight=2 if smaller > 1 else 3,
                    group="batch",
                    change=_accumulated(more),
                    batch=smaller,
                    keys=keys,
                )
            )
    if strategy.engine is None:
        moves += [
            Move("optim adamw_bnb_8bit", "8-bit states (needs bitsandbytes)", 4, "optimizer", _eight_bit, keys={"optim": "adamw_bnb_8bit"}),
            Move("model_init.dtype bfloat16", "weights and states are less exact", 6, "dtype", _half, keys={"model_init": {"dtype": "bfloat16"}}),
            Move("LoRA of rank 16 on all linear layers", "only adapters are trained", 8, "adapter", _lora, keys={"peft_config": LORA}),
            Move("QLoRA: 4-bit weights, LoRA of rank 16", "adapters on quantized weights", 10, "adapter", _qlora,
                 keys={"peft_config": LORA, "quantization_config": FOUR_BIT}),
        ]  # fmt: skip
    else:
        moves += [
            Move("zero_optimization.stage 3", "parameters are gathered for each use", 4, "stage", _stage3, keys={"zero_optimization.stage": 3}),
            Move("zero_optimization.offload_optimizer cpu", "the step runs on the host, gradients cross PCIe", 6, "offload", _offloaded,
                 keys={"zero_optimization.offload_optimizer": {"device": "cpu"}}),
        ]  # fmt: skip
    return moves


LORA = {"peft_type": "LORA", "r": 16, "target_modules": "all-linear"}
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"}


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


def search(
    estimate: Estimate, predictor: Predictor, memory: int, progress: Callable[[int, int], None]
) -> tuple[tuple[Combination, ...], int]:
    """Return the combinations that fit into `memory` bytes, cheapest first, and the number of combinations that were tried.

    A combination is left out if a part of it fits alone. `progress` is called with the number of tried combinations and an upper bound.
    """
    found: list[Combination] = []
    tried = 0
    candidates = list(_combinations(moves_of(estimate.strategy, estimate.workload.batch)))
    for moves in candidates:
        if tried >= MOST_TRIED or len(found) >= MOST_FOUND:
            break
        if any(set(other.moves) <= set(moves) for other in found):
            continue
        tried += 1
        progress(tried, min(len(candidates), MOST_TRIED))
        other = _applied(estimate, predictor, moves)
        if other is not None and fits(other, memory) is True:
            found.append(Combination(moves, other))
    return tuple(sorted(found, key=lambda one: (one.weight, need_of(one.estimate).safe))), tried


def _combinations(moves: list[Move]) -> Iterator[tuple[Move, ...]]:
    """Yield combinations of moves of different groups, cheapest first."""
    several = [
        chosen
        for count in range(1, MOST_MOVES + 1)
        for chosen in combinations(moves, count)
        if len({move.group for move in chosen}) == len(chosen)
    ]
    yield from sorted(several, key=lambda chosen: (sum(move.weight for move in chosen), len(chosen)))


def _applied(estimate: Estimate, predictor: Predictor, moves: tuple[Move, ...]) -> Estimate | None:
    """Return the estimate of a combination; None if one of its moves does not apply, or the model does not allow it."""
    strategy, batch = estimate.strategy, estimate.workload.batch
    for move in moves:
        changed = move.change(strategy)
        if changed is None:
            return None
        strategy, batch = changed, move.batch or batch
    try:
        return predictor.estimate(validated(strategy), batch, estimate.workload.seq_len)
    except QuestionError:
        return None
