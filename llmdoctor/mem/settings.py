"""A training configuration as the prediction of memory needs it: frozen, every "auto" filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs
from llmdoctor.mem.workload import BYTES, COMPARING, Evaluation, Lora, Quantization

RunnerName = Literal["trainer", "deepspeed", "trainer+deepspeed"]
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerEntry:
    """Who runs the steps of a strategy.

    `trainer`: transformers' Trainer, or a framework that extends it, calls the model; else a script calls DeepSpeed's engine. `outside` are the bytes
    (least, most) that NVML shows beyond the allocator's reserved ones, CUDA context included: H200, torch 2.11, deepspeed 0.19.8. `dtype_setting` is
    what decides the dtype of the weights.
    """

    trainer: bool
    outside: tuple[int, int]
    dtype_setting: str


RUNNERS: dict[RunnerName, RunnerEntry] = {
    "trainer": RunnerEntry(trainer=True, outside=(742 * MIB, 760 * MIB), dtype_setting="model_init.dtype"),
    "deepspeed": RunnerEntry(trainer=False, outside=(1300 * MIB, 1708 * MIB), dtype_setting="bf16.enabled"),
    "trainer+deepspeed": RunnerEntry(trainer=True, outside=(1700 * MIB, 1708 * MIB), dtype_setting="model_init.dtype"),
}
DTYPES = {
    "float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16", "half": "float16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Optimizer:
    """`kind` is adamw, sgd, adagrad, rmsprop, lion, adafactor or bitsandbytes; `how` is fused, foreach, loop, FusedAdam or CPUAdam.

    `name` is the user's name for it, `setting` the place that sets it; `groups` is the number of parameter groups (the Trainer makes two),
    `decay` reports a weight decay, which SGD adds to a copy of the gradients. Of bitsandbytes: `bits` of a state, `paged` for states in
    managed memory, `states` as (key, size in parameters).
    """

    kind: str
    how: str
    name: str
    setting: str
    momentum: bool = False
    amsgrad: bool = False
    centered: bool = False
    decay: bool = False
    half_states: bool = False
    groups: int = 1
    bits: int = 32
    paged: bool = False
    states: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Zero:
    """DeepSpeed 0.19.8's zero_optimization with its defaults (runtime/zero/config.py). Offload devices are "cpu" or None."""

    stage: int = 0
    contiguous_gradients: bool = True
    overlap_comm: bool = False
    reduce_scatter: bool = True
    reduce_bucket_size: int = 500_000_000
    allgather_bucket_size: int = 500_000_000
    sub_group_size: int = 1_000_000_000
    prefetch_bucket_size: int = 50_000_000
    param_persistence_threshold: int = 100_000
    max_live_parameters: int = 1_000_000_000
    max_reuse_distance: int = 1_000_000_000
    round_robin_gradients: bool = False
    parameter_alignment: bool = False
    offload_optimizer: str | None = None
    offload_param: str | None = None
    offload_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class DeepSpeedEngine:
    """What DeepSpeed does besides ZeRO: precision of the master copies, of the accumulated gradients.

    `cuts_stage0`: bf16 at stage 0 goes through BF16_Optimizer, which divides masters and states among the processes
    (before 0.17.6). `whole_stage1`: stage 1 in bf16 with fp32 accumulation divides nothing (0.17.6 to 0.18.4).
    """

    zero: Zero
    master: str = "float32"
    grad_accum: str = "float32"
    immediate_update: bool = False
    overflow_check: bool = False
    cuts_stage0: bool = False
    whole_stage1: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FullySharded:
    """FSDP of torch: weights, gradients and states are divided among the processes, unit by unit.

    `version` is 1 (FullyShardedDataParallel) or 2 (fully_shard). `reshard`: a unit's gathered weights are freed after its forward. `layers` are the
    classes of the layers that become units, empty for those that the model names (_no_split_modules). `offload`: what is divided lies on the
    host. `prefetch`: the next unit is gathered while one computes its backward. `stated`: the file itself sets the version,
    `overruled`: it asks for something that accelerate overrules.
    """

    version: int = 2
    reshard: bool = True
    layers: tuple[str, ...] = ()
    offload: bool = False
    checkpointing: bool = False
    prefetch: bool = True
    stated: bool = True
    overruled: bool = False


@dataclass(frozen=True, slots=True)
class Strategy:
    """One training configuration.

    `dtype` is the dtype of the weights during the forward. `batch` and `seq_len` are what the file or its framework sets, None if neither
    does. `config` is DeepSpeed's configuration with every "auto" filled in, `client` describes the optimizer that the caller makes, `inputs`
    what was done with the settings of the file. `limits` are clauses that the verdict repeats; `text_only`: of a model with images, only the
    language model is trained.
    `objective`, `reference` and `compares` are those of a Workload.
    `documents` is "rows" if each sequence holds several documents, "flat" if the batch is one row of them, else None.
    """

    name: str
    runner: RunnerName
    dtype: str
    optimizer: Optimizer
    autocast: str | None = None
    accumulation: int = 1
    clip: float = 1.0
    checkpointing: bool = False
    engine: DeepSpeedEngine | None = None
    lora: Lora | None = None
    batch: int | None = None
    seq_len: int | None = None
    world_size: int = 1
    attention: str | None = None
    quantization: Quantization | None = None
    loss: str | None = None
    objective: str | None = None
    reference: str | None = None
    compares: bool = False
    evaluation: Evaluation | None = None
    documents: str | None = None
    fsdp: FullySharded | None = None
    file: str | None = None
    config: dict[str, Any] = field(default_factory=dict, compare=False)
    client: dict[str, Any] | None = field(default=None, compare=False)
    inputs: Inputs = field(default_factory=Inputs, compare=False)
    limits: tuple[str, ...] = field(default=(), compare=False)
    text_only: bool = field(default=False, compare=False)

    @property
    def entry(self) -> RunnerEntry:
        """Return what is known about the runner."""
        return RUNNERS[self.runner]

    @property
    def deepspeed(self) -> DeepSpeedEngine:
        """Return DeepSpeed's settings. Raises ValueError if the strategy runs without DeepSpeed."""
        if self.engine is None:
            raise ValueError(f"{self.name} runs without DeepSpeed")
        return self.engine

    @property
    def sharded(self) -> FullySharded:
        """Return FSDP's settings. Raises ValueError if the strategy runs without FSDP."""
        if self.fsdp is None:
            raise ValueError(f"{self.name} runs without FSDP")
        return self.fsdp

    @property
    def width(self) -> int:
        """Return the bytes of one weight."""
        return BYTES[self.dtype]

    @property
    def stage(self) -> int:
        """Return the ZeRO stage; -1 without DeepSpeed."""
        return -1 if self.engine is None else self.engine.zero.stage

    def plain(self) -> dict[str, Any]:
        """Return the settings for a program."""
        out: dict[str, Any] = {
            "runner": self.runner,
            "dtype": self.dtype,
            "autocast": self.autocast,
            "optimizer": {"name": self.optimizer.name, "kind": self.optimizer.kind, "implementation": self.optimizer.how},
            "gradient_accumulation_steps": self.accumulation,
            "max_grad_norm": self.clip,
            "gradient_checkpointing": self.checkpointing,
            "world_size": self.world_size,
            "seq_len": self.seq_len,
            "attention": self.attention,
            "lora_rank": None if self.lora is None else self.lora.rank,
            "quantization_bits": None if self.quantization is None else self.quantization.bits,
            "fused_loss": self.loss,
            "objective": self.objective,
            "reference_dtype": self.reference,
            "evaluation_batch": None if self.evaluation is None else self.evaluation.batch,
            "file": self.file,
        }
        if self.fsdp is not None:
            out["fsdp"] = {name: getattr(self.fsdp, name) for name in FullySharded.__slots__}
        if self.engine is not None:
            zero = self.engine.zero
            out["deepspeed"] = {name: getattr(zero, name) for name in Zero.__slots__}
            out["deepspeed"] |= {"master_dtype": self.engine.master, "grad_accum_dtype": self.engine.grad_accum}
        return out


def dtype_of(name: Any, where: str) -> str:
    """Return a dtype by any of its usual names. Raises QuestionError for any other text."""
    text = str(name).removeprefix("torch.")
    if text not in DTYPES:
        raise QuestionError(f"{where}: unknown dtype {text!r}, expected float32, bfloat16 or float16")
    return DTYPES[text]


def _check_objective(strategy: Strategy) -> None:
    """Raise QuestionError for settings that are not modelled together with an objective of TRL's, or with modules_to_save."""
    name = strategy.name
    if strategy.objective == "reward" and (strategy.lora is not None or strategy.quantization is not None):
        raise QuestionError(f"{name}: a reward model with adapters trains its new output layer in full beside them, which is not modelled")
    if strategy.reference is not None and strategy.stage == 3:
        raise QuestionError(f"{name}: a reference model under ZeRO stage 3, where it is divided among the devices too, is not modelled")
    if strategy.objective in COMPARING and strategy.loss is not None:
        raise QuestionError(f"{name}: Liger's loss of preferences (use_liger_kernel with {strategy.objective.upper()}) is not modelled")
    if strategy.objective == "kto" and strategy.quantization is not None:
        raise QuestionError(f"{name}: KTO on quantized weights is not modelled")
    if strategy.objective == "kto" and strategy.batch == 1:
        raise QuestionError(f"{name}: KTOTrainer refuses a batch of 1 on each device: it compares with the completions of the same batch")
    if strategy.lora is not None and strategy.lora.saved and strategy.quantization is not None and not strategy.lora.float32:
        raise QuestionError(f"{name}: modules_to_save beside quantized weights whose adapters are not float32 are not modelled")


def validated(strategy: Strategy) -> Strategy:
    """Return `strategy` itself. Raises QuestionError if its settings exclude each other or are not modelled together."""
    engine, name = strategy.engine, strategy.name
    if strategy.world_size < 1:
        raise QuestionError(f"--world-size {strategy.world_size}: expected at least 1 process")
    if strategy.quantization is not None and strategy.lora is None:
        raise QuestionError(f"{name}: the weights are quantized and no adapters are trained: the Trainer refuses this, add LoRA")
    _check_objective(strategy)
    if strategy.quantization is not None and engine is not None and engine.zero.stage == 3:
        raise QuestionError(f"{name}: quantized weights under ZeRO stage 3 are not modelled")
    if strategy.optimizer.name.startswith("rmsprop_bnb") and strategy.dtype == "bfloat16":
        # The 8-bit one has fp32 states too: those of norms and embeddings.
        raise QuestionError(
            f"{name}: {strategy.optimizer.name} with bfloat16 weights: bitsandbytes has no kernel for fp32 states of them and raises"
        )
    if engine is None:
        return strategy
    zero = engine.zero
    if zero.offload_optimizer is not None and zero.stage == 0:
        raise QuestionError(f"{name}: zero_optimization.offload_optimizer needs stage 1, 2 or 3, this is stage 0")
    if zero.stage == 0 and not engine.cuts_stage0 and strategy.dtype not in {engine.grad_accum, "float32"}:
        raise QuestionError(
            f"{name}: stage 0 in {strategy.dtype} with grad_accum_dtype {engine.grad_accum}: DeepSpeed refuses this (engine.py:2323, unsupported mix)"
        )
    if strategy.optimizer.kind in {"adafactor", "bitsandbytes"} and zero.stage > 0:
        raise QuestionError(
            f"{name}: {strategy.optimizer.name} under ZeRO {zero.stage}: its state is shaped by the parameters, which ZeRO makes flat: not modelled"
        )
    return strategy
