"""The MEM rules: what a training configuration holds that it need not, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.rule import Rule
from llmdoctor.mem.components import by_component
from llmdoctor.mem.fit import Fit
from llmdoctor.mem.measured import Beside
from llmdoctor.mem.options import Answer, Case

TOO_LARGE = Rule(
    "MEM001",
    "does-not-fit",
    Severity.ERROR,
    "The step's peak and what the process takes beside it are more than the device has.",
    "The run ends with an out-of-memory error, at the latest in the second step, when the optimizer's states exist. The peak counts, not what is held "
    "between steps: DeepSpeed's step alone can need half as much again as the weights, masters and moments together.",
    "llmdoctor mem compare MODEL --strategy zero2.json --gpu-memory 24GiB\n  needs 50.0 GB",
    "the same with offload_optimizer on cpu\n  needs 11.4 GB",
    "One of the changes that the report lists, with the bytes each of them needs.",
)
NO_GRADIENT = Rule(
    "MEM002",
    "state-without-gradient",
    Severity.WARNING,
    "DeepSpeed holds masters and optimizer state for trained parameters that get no gradient in this step.",
    "Text-only batches do not reach the vision tower of a vision-language model. The Trainer's optimizers make no state for a parameter without a gradient; "
    "DeepSpeed updates flat tensors whole, so such a parameter costs its master, its moments and a gradient of zeros: 14 to 20 bytes each.",
    "ZeRO-2 on Qwen2-VL with text only: 665 M parameters of the vision tower, 9.3 GB",
    "the same with --stage llm: the vision tower frozen",
    "Freeze what the data does not train: requires_grad_(False) before deepspeed.initialize().",
)
UNSHARDED = Rule(
    "MEM003",
    "nothing-to-shard",
    Severity.INFO,
    "A ZeRO stage of 1, 2 or 3 on one device shards nothing.",
    "ZeRO saves memory by dividing state among processes. On one device stages 1 and 2 hold the same, stage 3 holds gradients and a bucket between steps "
    "on top, and all of them hold fp32 masters that a plain bf16 Trainer does not have.",
    '{"zero_optimization": {"stage": 2}} on one GPU',
    "the Trainer alone, or stage 2 with offload_optimizer, or more devices",
    "Leave DeepSpeed out on one device, or offload the optimizer.",
)
BUCKET = Rule(
    "MEM004",
    "oversized-bucket",
    Severity.INFO,
    "The reduce bucket is larger than all gradients together.",
    "reduce_bucket_size counts elements and is allocated whole: the default of 5e8 takes 1 GB in 16 bit whatever the model's size, at stage 3 always, below "
    "during the backward, twice with overlap_comm.",
    '{"zero_optimization": {"stage": 3}} on a model of 0.1 B parameters: 1 GB of bucket for 0.2 GB of gradients',
    '{"zero_optimization": {"stage": 3, "reduce_bucket_size": 50000000}}',
    'Set "reduce_bucket_size" to a tenth, or "auto" under the Trainer.',
)
MISPREDICTED = Rule(
    "MEM005",
    "measured-otherwise",
    Severity.WARNING,
    "A measured peak is more than five percent away from the prediction.",
    "Then the run is not what was described: another batch, padding that brings a mask, kernels that are not the library's, another process on the device, "
    "or something that this tool does not model.",
    "predicted 15.5 GB, measured 18.9 GB",
    "predicted 15.5 GB, measured 15.5 GB",
    "Compare the measured components with the predicted ones; give the options the run really had.",
)
RULES = (TOO_LARGE, NO_GRADIENT, UNSHARDED, BUCKET, MISPREDICTED)
FAR = 0.05


def findings_of(answer: Answer, fits: Sequence[Fit], memory: int | None, beside: Sequence[Beside]) -> tuple[Finding, ...]:
    """All findings of a comparison, in the strategies' order."""
    out: list[Finding] = []
    for number, case in enumerate(answer.cases):
        if fits and memory is not None and not fits[number].fits:
            out.append(_too_large(case, fits[number], memory))
        out += _of_case(case)
    out += [
        Finding(
            MISPREDICTED.code, Severity.WARNING, f"{row.strategy}: {row.what} is {row.measured:,} bytes, predicted were {row.predicted:,}",
            evidence={"strategy": row.strategy, "error": row.error}, fix=MISPREDICTED.fix,
        )
        for row in beside if row.what.endswith("peak") and abs(row.error) > FAR
    ]  # fmt: skip
    return tuple(out)


def _place(case: Case) -> Location | None:
    return Location(case.strategy.file) if case.strategy.file is not None else None


def _too_large(case: Case, verdict: Fit, memory: int) -> Finding:
    changes = "; ".join(f"{text} ({size:,} bytes)" for text, size in verdict.changes)
    return Finding(
        TOO_LARGE.code, Severity.ERROR, f"{case.strategy.name} needs {verdict.needs:,} bytes of {memory:,}", _place(case),
        {"needs_bytes": verdict.needs, "memory_bytes": memory, "largest_batch": verdict.largest_batch},
        f"the peak is in the {case.prediction.peak.phase}", changes or "more devices, a smaller batch, LoRA",
    )  # fmt: skip


def _of_case(case: Case) -> Iterator[Finding]:
    strategy, prediction = case.strategy, case.prediction
    if strategy.engine is None:
        return
    unreached = prediction.trainable - prediction.reached
    if unreached and case.traced is not None and (strategy.stage > 0 or strategy.dtype != "float32"):
        parts = by_component(prediction.steady)
        held = int((parts["master_params"] + parts["optimizer_state"]) * unreached / max(1, prediction.trainable))
        yield Finding(
            NO_GRADIENT.code, Severity.WARNING, f"{strategy.name}: {unreached:,} trained parameters get no gradient and hold {held:,} bytes", _place(case),
            {"parameters": unreached, "bytes": held}, "DeepSpeed updates flat tensors whole", NO_GRADIENT.fix,
        )  # fmt: skip
    if strategy.stage >= 1 and strategy.world_size == 1 and strategy.engine.zero.offload_optimizer is None:
        yield Finding(
            UNSHARDED.code,
            Severity.INFO,
            f"{strategy.name}: ZeRO stage {strategy.stage} on one device shards nothing",
            _place(case),
            fix=UNSHARDED.fix,
        )
    bucket = strategy.engine.zero.reduce_bucket_size
    if strategy.stage >= 2 and strategy.engine.zero.contiguous_gradients and bucket > 2 * prediction.trainable:
        yield Finding(
            BUCKET.code,
            Severity.INFO,
            f"{strategy.name}: a bucket of {bucket:,} elements for {prediction.trainable:,} gradients",
            _place(case),
            fix=BUCKET.fix,
        )
