"""A prediction: which runner a strategy is, what it holds when."""

from __future__ import annotations

from dataclasses import replace

from llmdoctor.mem.runners.base import Job, Runner
from llmdoctor.mem.runners.bf16 import Bf16Runner
from llmdoctor.mem.runners.fsdp import FsdpRunner
from llmdoctor.mem.runners.stage0 import Stage0Runner
from llmdoctor.mem.runners.trainer import TrainerRunner
from llmdoctor.mem.runners.zero3 import Zero3Runner
from llmdoctor.mem.runners.zero12 import Zero12Runner
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.types import Prediction
from llmdoctor.mem.workload import Workload

PHASES = ("forward", "backward", "step", "evaluation")


def runner_of(job: Job) -> Runner:
    """The class that DeepSpeed's engine would choose (engine.py:2294, _do_optimizer_sanity_check), or the Trainer's."""
    strategy = job.strategy
    engine = strategy.engine
    if strategy.fsdp is not None:
        return FsdpRunner(job)
    if engine is None:
        return TrainerRunner(job)
    stage = engine.zero.stage
    if stage == 0 and engine.cuts_stage0:
        return Bf16Runner(job)
    if stage == 0:
        return TrainerRunner(job) if strategy.dtype == "float32" else Stage0Runner(job)
    if stage == 1 and strategy.dtype == "bfloat16" and engine.grad_accum == "float32" and engine.zero.offload_optimizer is None:
        return Stage0Runner(job) if engine.whole_stage1 else Bf16Runner(job)
    return Zero3Runner(job) if stage == 3 else Zero12Runner(job)


def predict(job: Job) -> Prediction:
    """Three steps of one process."""
    runner = runner_of(job)
    runner.run()
    ledger = runner.ledger
    return Prediction(
        strategy=job.strategy,
        start=runner.initial,
        steady=runner.steady,
        phases=dict(ledger.peaks),
        host=dict(ledger.host),
        reserved=ledger.allocator.largest_reserved,
        parameters=sum(weight.numel * weight.packed for weight in job.weights),
        trainable=sum(weight.numel for weight in job.trained),
        reached=sum(weight.numel for weight in job.trained if weight.name in runner.reached),
    )


def workload_of(strategy: Strategy, base: Workload) -> Workload:
    """What has to be traced for a strategy: its precision, checkpointing and adapters on the batch asked for.

    The Trainer sets use_cache to False (trainer.py:646) and, under autocast, turns the outputs into fp32; a DeepSpeed engine of the
    Trainer gets 16-bit images (trainer.py, _prepare_input).
    """
    trainer = strategy.entry.trainer
    half = strategy.engine is not None and strategy.dtype != "float32"
    sharded = strategy.fsdp
    return replace(
        base,
        # Under FSDP with mixed precision the gathered weights have the dtype of autocast, adapters too.
        dtype=strategy.dtype if sharded is None else strategy.autocast or strategy.dtype,
        units=None if sharded is None else sharded.layers,
        # Version 2 casts weights, inputs and outputs of each unit and runs without autocast (accelerate 1.15.0, _prepare_fsdp2).
        autocast=None if sharded is not None and sharded.version == 2 else strategy.autocast,
        checkpointing=strategy.checkpointing,
        lora=strategy.lora if sharded is None or strategy.lora is None else replace(strategy.lora, float32=False),
        quantization=strategy.quantization,
        loss=strategy.loss,
        objective=strategy.objective,
        reference=strategy.reference,
        compares=strategy.compares,
        use_cache=False if trainer else None,
        float_outputs=trainer and strategy.engine is None and strategy.autocast is not None and (sharded is None or sharded.version == 1),
        pixel_dtype=strategy.dtype if half and trainer else "float32",
    )
