"""Changes of a strategy that lower its peak. Each of them is predicted again: none is printed without the bytes that it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.capacity import fits, need_of
from llmdoctor.mem.optimizers import bitsandbytes_optimizer
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.types import Change, Estimate

USEFUL = 0.98  # of the peak: a change that saves less is not worth a line
DEVICES = (2, 4, 8)
TOKENS = 2  # a sequence is halved


def changes_of(estimate: Estimate, predictor: Predictor, memory: int | None) -> tuple[Change, ...]:
    """Return the changes that help, the mildest first: those that make `estimate` fit into `memory` bytes, else those that lower the peak.

    Without traced activations there is no advice.
    """
    if estimate.traced is None:
        return ()
    found: list[tuple[Change, bool]] = []
    for text, strategy, batch, length in variants(estimate):
        try:
            other = predictor.estimate(strategy, batch, length)
        except QuestionError:
            continue  # the strategy or the model does not allow it
        if other.prediction.peak.total <= USEFUL * estimate.prediction.peak.total:
            enough = memory is not None and fits(other, memory) is True
            found.append((Change(text, need_of(other).safe if memory is not None else other.prediction.peak.total, enough), enough))
    enough_alone = [change for change, enough in found if enough]
    if enough_alone or memory is None:
        return tuple(enough_alone or [change for change, _ in found])
    return tuple(sorted((change for change, _ in found), key=lambda change: change.needs))


StrategyVariant = tuple[str, Strategy, int, int]


def variants(estimate: Estimate) -> Iterator[StrategyVariant]:
    """Yield (text, strategy, batch, tokens of a sequence) of single changes, from those that cost nothing to those that change the result."""
    strategy, batch, length = estimate.strategy, estimate.workload.batch, estimate.workload.seq_len
    for text, other in (*_evaluated(strategy), *_free(strategy), *_losses(strategy), *_of_deepspeed(strategy), *_precision(strategy)):
        yield text, other, batch, length
    if batch > 1:
        smaller = batch // 2
        steps = strategy.accumulation * batch // smaller
        yield f"batch {smaller} with gradient_accumulation_steps {steps}", replace(strategy, accumulation=steps), smaller, length
        if smaller > 1:
            steps = strategy.accumulation * batch
            yield f"batch 1 with gradient_accumulation_steps {steps}", replace(strategy, accumulation=steps), 1, length
    yield from _shorter(estimate)


def _shorter(estimate: Estimate) -> Iterator[StrategyVariant]:
    """Yield sequences that are cut, or divided among devices (each device then holds an equal part of every sequence)."""
    strategy, batch, length = estimate.strategy, estimate.workload.batch, estimate.workload.seq_len
    if length >= 2 * TOKENS and estimate.workload.image is None:
        half = length // TOKENS
        yield f"sequence parallelism over {TOKENS} devices: {half} tokens of a sequence on each", strategy, batch, half
        yield f"sequences of {half} tokens", strategy, batch, half


def _free(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    optimizer = strategy.optimizer
    if optimizer.how == "foreach" and optimizer.kind == "adamw":
        yield "optim adamw_torch_fused", replace(strategy, optimizer=replace(optimizer, how="fused", name="adamw_torch_fused"))
    if not strategy.checkpointing:
        yield "gradient_checkpointing true (layers are computed twice)", replace(strategy, checkpointing=True)


def _evaluated(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    evaluation = strategy.evaluation
    if evaluation is not None and evaluation.batch > 1:
        yield "per_device_eval_batch_size 1 (the same result)", replace(strategy, evaluation=replace(evaluation, batch=1))


def _losses(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    if strategy.loss is None:
        yield "a fused loss in chunks (Liger's fused_linear_cross_entropy, or cut cross entropy)", replace(strategy, loss="fused")
        yield "use_liger_kernel true", replace(strategy, loss="liger")


def _of_deepspeed(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    engine, optimizer = strategy.engine, strategy.optimizer
    if engine is None:
        return
    zero = engine.zero
    if 1 <= zero.stage < 3 and strategy.world_size > 1:
        yield "zero_optimization.stage 3", replace(strategy, engine=replace(engine, zero=replace(zero, stage=3, overlap_comm=True)))
    if strategy.dtype == "bfloat16" and engine.master == "float32" and zero.stage in (1, 2, 3) and engine.grad_accum == "bfloat16":
        text = "bf16.bf16_master_weights_and_grads and bf16.bf16_optimizer_states true (less exact)"
        yield text, replace(strategy, engine=replace(engine, master="bfloat16"))
    if zero.stage >= 1 and zero.offload_optimizer is None and optimizer.kind == "adamw":
        cpu = replace(optimizer, how="CPUAdam", name="DeepSpeedCPUAdam")
        other = replace(strategy, optimizer=cpu, engine=replace(engine, zero=replace(zero, offload_optimizer="cpu")))
        yield "zero_optimization.offload_optimizer on cpu (slower)", other
    for world in DEVICES:
        if zero.stage >= 1 and strategy.world_size < world:
            yield f"{world} devices", replace(strategy, world_size=world)


def _precision(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    optimizer = strategy.optimizer
    if strategy.engine is not None:
        return
    if strategy.dtype == "float32":
        yield "bf16 weights (model_init.dtype bfloat16; less exact)", replace(strategy, dtype="bfloat16", autocast=None)
    if optimizer.kind == "adamw":
        yield "optim adamw_bnb_8bit", replace(strategy, optimizer=bitsandbytes_optimizer("adamw_bnb_8bit", optimizer.setting))
        yield "optim adafactor", replace(strategy, optimizer=replace(optimizer, kind="adafactor", how="loop", name="adafactor"))
