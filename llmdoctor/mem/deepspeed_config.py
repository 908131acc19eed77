"""A DeepSpeed config as memory sees it (deepspeed 0.19.8, runtime/config.py and runtime/zero/config.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.fields import OURS, Given, client_optimizer, count_of, init_dtype, is_enabled, number_of, peft_adapters, section_of
from llmdoctor.mem.optimizers import deepspeed_optimizer
from llmdoctor.mem.settings import DeepSpeedEngine, Optimizer, Strategy, Zero, dtype_of


def deepspeed_strategy(path: str, config: Mapping[str, Any], given: Given, file: str | None, client: Optimizer | None = None) -> Strategy:
    """A DeepSpeed config as DeepSpeed 0.19.8 reads it; `client` is the optimizer of whoever calls it, where the config has none."""
    _no_auto(path, config)
    half = {name: is_enabled(path, config, name) for name in ("bf16", "fp16")}
    if half["bf16"] and half["fp16"]:
        raise QuestionError(f"{path}: bf16.enabled and fp16.enabled are both true, DeepSpeed takes one of them")
    autocast = _torch_autocast(path, config)
    if autocast and any(half.values()):
        raise QuestionError(f"{path}: torch_autocast and bf16 or fp16 are both enabled, DeepSpeed takes one of them")
    dtype = "bfloat16" if half["bf16"] else "float16" if half["fp16"] else init_dtype(path, config) or "float32"
    zero = _zero(path, config.get("zero_optimization", {}))
    bf16 = section_of(path, config, "bf16")
    fp16 = section_of(path, config, "fp16")
    _check_masters(path, bf16, fp16, zero)
    low = bool(bf16.get("bf16_master_weights_and_grads") or fp16.get("fp16_master_weights_and_grads"))
    types = section_of(path, config, "data_types")
    accum = types.get("grad_accum_dtype")
    model = "bfloat16" if half["bf16"] else "float16" if half["fp16"] else "float32"
    engine = DeepSpeedEngine(
        zero,
        master=dtype if low else "float32",
        grad_accum=dtype_of(accum, f"{path}: data_types.grad_accum_dtype") if accum else model,
        immediate_update=bool(bf16.get("immediate_grad_update")),
        overflow_check=half["fp16"],
    )
    return Strategy(
        path, "deepspeed", dtype, _deepspeed_optimizer(path, config, zero, bf16, client), autocast,
        accumulation=count_of(path, config, "gradient_accumulation_steps", 1), clip=number_of(path, config, "gradient_clipping", 0.0),
        engine=engine, lora=peft_adapters(path, config), batch=_micro_batch(path, config, given), file=file,
        config={key: value for key, value in config.items() if key not in OURS}, client=config.get("client_optimizer"),
    )  # fmt: skip


def _check_masters(path: str, bf16: Mapping[str, Any], fp16: Mapping[str, Any], zero: Zero) -> None:
    """What DeepSpeed asserts about low-precision masters (runtime/config.py:703 to :714, zero/stage_1_and_2.py:331)."""
    masters, states = bf16.get("bf16_master_weights_and_grads"), bf16.get("bf16_optimizer_states")
    half = fp16.get("fp16_master_weights_and_grads")
    if states and not masters:
        raise QuestionError(f"{path}: bf16.bf16_optimizer_states needs bf16.bf16_master_weights_and_grads, which is not set")
    if (masters or half) and zero.stage == 0:
        raise QuestionError(f"{path}: low-precision master weights need ZeRO stage 1, 2 or 3, this is stage 0")
    if ((masters and not states) or half) and zero.offload_optimizer is None:
        raise QuestionError(
            f"{path}: low-precision master weights without low-precision states need zero_optimization.offload_optimizer on cpu"
        )


def _no_auto(path: str, value: Any, at: str = "") -> None:
    if value == "auto":
        raise QuestionError(
            f'{path}: {at} is "auto", which only the Trainer fills in: give the TrainingArguments file that names this config under deepspeed'
        )
    for key, item in value.items() if isinstance(value, dict) else ():
        _no_auto(path, item, f"{at}.{key}" if at else key)


def _deepspeed_optimizer(path: str, config: Mapping[str, Any], zero: Zero, bf16: Mapping[str, Any], client: Optimizer | None) -> Optimizer:
    section = config.get("optimizer")
    if section is None:
        if config.get("client_optimizer") is not None:
            return client_optimizer(path, config["client_optimizer"])
        if client is not None:
            return client
        raise QuestionError(f"{path}: no optimizer: expected an optimizer section, or client_optimizer for one that the caller made")
    if not isinstance(section, dict) or "type" not in section:
        raise QuestionError(f"{path}: optimizer: expected an object with type and params")
    params = section.get("params")
    half_states = bool(bf16.get("bf16_optimizer_states"))
    return deepspeed_optimizer(
        section["type"],
        params if isinstance(params, dict) else {},
        offload=zero.offload_optimizer is not None,
        half_states=half_states,
        where=f"{path}: optimizer.type",
    )


def _zero(path: str, section: Any) -> Zero:
    if not isinstance(section, dict):
        raise QuestionError(f"{path}: zero_optimization: expected an object, found {type(section).__name__}")
    stage = section.get("stage", 0)
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= 3:
        raise QuestionError(f"{path}: zero_optimization.stage {stage!r}: DeepSpeed has stages 0, 1, 2 and 3")
    overlap = section.get("overlap_comm")
    where = f"{path}: zero_optimization"
    default = Zero()
    return Zero(
        stage=stage,
        contiguous_gradients=bool(section.get("contiguous_gradients", True)),
        overlap_comm=bool(stage == 3 if overlap is None else overlap),
        reduce_scatter=bool(section.get("reduce_scatter", True)),
        reduce_bucket_size=count_of(where, section, "reduce_bucket_size", default.reduce_bucket_size),
        allgather_bucket_size=count_of(where, section, "allgather_bucket_size", default.allgather_bucket_size),
        sub_group_size=count_of(where, section, "sub_group_size", default.sub_group_size),
        prefetch_bucket_size=count_of(where, section, "stage3_prefetch_bucket_size", default.prefetch_bucket_size, least=0),
        param_persistence_threshold=count_of(
            where, section, "stage3_param_persistence_threshold", default.param_persistence_threshold, least=0
        ),
        max_live_parameters=count_of(where, section, "stage3_max_live_parameters", default.max_live_parameters, least=0),
        round_robin_gradients=bool(section.get("round_robin_gradients", False)),
        parameter_alignment=bool(section.get("parameter_alignment", False)),
        offload_optimizer=_offload(where, section, "offload_optimizer"),
        offload_param=_offload(where, section, "offload_param"),
    )


def _offload(where: str, section: Mapping[str, Any], key: str) -> str | None:
    target = section.get(key)
    if target is None:
        return "cpu" if section.get("cpu_offload") and key == "offload_optimizer" else None
    device = target.get("device", "none") if isinstance(target, dict) else target
    if device == "none":
        return None
    if device != "cpu":
        raise QuestionError(f"{where}.{key}.device {device!r}: only cpu and none are modelled here (DeepSpeed also knows nvme)")
    return "cpu"


def _torch_autocast(path: str, config: Mapping[str, Any]) -> str | None:
    section = section_of(path, config, "torch_autocast")
    return dtype_of(section.get("dtype", "bfloat16"), f"{path}: torch_autocast.dtype") if section.get("enabled") else None


def _micro_batch(path: str, config: Mapping[str, Any], given: Given) -> int | None:
    micro = count_of(path, config, "train_micro_batch_size_per_gpu", 1) if "train_micro_batch_size_per_gpu" in config else None
    if "train_batch_size" not in config:
        return micro
    total, steps = count_of(path, config, "train_batch_size", 1), count_of(path, config, "gradient_accumulation_steps", 1)
    if micro is not None and "gradient_accumulation_steps" not in config:
        steps = total // micro // given.world_size
    each = total // steps // given.world_size if micro is None and steps else micro or 0
    if each * steps * given.world_size != total or total < 1 or each < 1:
        raise QuestionError(
            f"{path}: train_batch_size {total} is not a micro batch of {each or 1} x {steps} steps x {given.world_size} processes: DeepSpeed refuses it"
            " (runtime/config.py:602)"
        )
    return each
