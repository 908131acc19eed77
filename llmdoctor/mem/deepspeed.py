"""A DeepSpeed configuration as the prediction of memory needs it. Lines are deepspeed 0.19.8's; mem/deepspeed_limits.py has what other releases do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.configs.deepspeed import FORMAT
from llmdoctor.configs.deepspeed_releases import deepspeed_release
from llmdoctor.configs.reading import read_value
from llmdoctor.configs.types import Configuration
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import release as as_numbers
from llmdoctor.mem.adapters import adapters_of, quantization_of
from llmdoctor.mem.keys import StrategyContext, check_modelled
from llmdoctor.mem.optimizers import client_optimizer, deepspeed_optimizer
from llmdoctor.mem.settings import DeepSpeedEngine, Optimizer, Strategy, Zero, dtype_of

MODELLED = frozenset(
    "batch total_batch accumulation clip bf16 fp16 fp16_auto_cast immediate_update bf16_masters bf16_states fp16_masters torch_autocast "
    "torch_autocast_dtype accumulation_dtype optimizer optimizer_arguments client_optimizer load_dtype adapter lora_rank lora_targets "
    "lora_dropout lora_float32 lora_modules_to_save lora_dora attention quantization prepared".split()
) | frozenset(f"zero.{name}" for name in Zero.__slots__)
OURS = ("model_init", "client_optimizer")  # keys of llmdoctor in a file, which DeepSpeed does not know
OFFLOADS = {None: None, "none": None, "cpu": "cpu"}
FLAGS = ("contiguous_gradients", "reduce_scatter", "round_robin_gradients", "parameter_alignment")
SIZES = (
    "reduce_bucket_size", "allgather_bucket_size", "sub_group_size", "prefetch_bucket_size", "param_persistence_threshold",
    "max_live_parameters", "max_reuse_distance",
)  # fmt: skip


def deepspeed_strategy(configuration: Configuration, context: StrategyContext, client: Optimizer | None = None) -> Strategy:
    """Return the strategy that a DeepSpeed configuration describes; `client` is the caller's optimizer if the configuration names none.

    Raises QuestionError for what DeepSpeed refuses or is not modelled.
    """
    check_modelled(configuration, MODELLED)
    path, normal, value = configuration.path, configuration.normal, configuration.values
    for key in autos(value):
        raise QuestionError(
            f'{path}: {key} is "auto", which only the Trainer fills in: give the TrainingArguments file that names this config under deepspeed'
        )
    bf16, fp16, autocast = normal.get("bf16", False), normal.get("fp16", False), _autocast(configuration)
    if (bf16 and fp16) or (autocast and (bf16 or fp16)):
        raise QuestionError(f"{path}: bf16, fp16 and torch_autocast: more than one of them is enabled, but DeepSpeed accepts only one")
    half = "bfloat16" if bf16 else "float16" if fp16 else None
    loaded = normal.get("load_dtype")
    zero = zero_of(configuration)
    _check_masters(path, configuration, zero)
    dtype = half or (dtype_of(loaded, f"{path}: model_init.dtype") if loaded not in (None, "auto") else "float32")
    version = context.releases.get("deepspeed")
    release = deepspeed_release(version)
    numbers = as_numbers(release.rules)
    cuts = half == "bfloat16" and zero.stage == 0 and numbers < (0, 17, 6)  # engine.py, _do_optimizer_sanity_check and get_data_types
    low = bool(normal.get("bf16_masters", False) or normal.get("fp16_masters", False))
    engine = DeepSpeedEngine(
        zero,
        master=dtype if low else "float32",
        grad_accum=normal.get("accumulation_dtype") or ("float32" if cuts else half) or "float32",
        immediate_update=bool(normal.get("immediate_update", release.defaults["bf16.immediate_grad_update"])),
        overflow_check=bool(fp16),
        cuts_stage0=cuts,
        whole_stage1=(0, 17, 6) <= numbers < (0, 18, 5),  # constants.py: DDP_BFLOAT16 is BFLOAT16, and takes its place
    )
    micro, steps = _batches(configuration, context.processes)
    given = normal.get("client_optimizer")
    caller = client_optimizer(given, f"{path}: client_optimizer") if given is not None else client
    return Strategy(
        path,
        "deepspeed",
        dtype,
        _optimizer(configuration, zero, caller),
        autocast,
        accumulation=steps,
        clip=normal.get("clip", 0.0),
        engine=engine,
        lora=adapters_of(configuration),
        quantization=quantization_of(configuration),
        attention=normal.get("attention"),
        batch=micro,
        file=path,
        config=nested(value),
        client=given,
    )


def zero_of(configuration: Configuration) -> Zero:
    """Return zero_optimization with DeepSpeed's defaults. offload_param below stage 3 is accepted and has no effect, as in DeepSpeed."""
    path, normal, default = configuration.path, configuration.normal, Zero()
    stage = normal.get("zero.stage", 0)
    if stage > 3:
        raise QuestionError(f"{path}: zero_optimization.stage {stage}: DeepSpeed has stages 0, 1, 2 and 3")
    offloads = {}
    for name in ("offload_optimizer", "offload_param"):
        device = normal.get(f"zero.{name}")
        if device not in OFFLOADS:
            raise QuestionError(f"{path}: zero_optimization.{name}.device {device!r} is not modelled, expected cpu or none")
        offloads[name] = OFFLOADS[device]
    values: dict[str, Any] = {name: normal.get(f"zero.{name}", getattr(default, name)) for name in (*FLAGS, *SIZES)}
    return Zero(
        stage=stage,
        overlap_comm=bool(normal.get("zero.overlap_comm", stage == 3)),
        offload_optimizer=offloads["offload_optimizer"],
        offload_param=offloads["offload_param"] if stage == 3 else None,
        offload_ratio=normal.get("zero.offload_ratio", 1.0),
        **values,
    )


def autos(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of flat settings whose value is "auto", or holds one."""
    for key, item in value.items():
        if item == "auto" or (isinstance(item, dict) and any(True for _ in autos(item))):
            yield key


def _autocast(configuration: Configuration) -> str | None:
    normal = configuration.normal
    return str(normal.get("torch_autocast_dtype", "bfloat16")) if normal.get("torch_autocast", False) else None


def _check_masters(path: str, configuration: Configuration, zero: Zero) -> None:
    """Raise QuestionError for what DeepSpeed asserts about low-precision masters (runtime/config.py:703 to :714, zero/stage_1_and_2.py:331)."""
    normal = configuration.normal
    masters, states, half = (bool(normal.get(name, False)) for name in ("bf16_masters", "bf16_states", "fp16_masters"))
    if states and not masters:
        raise QuestionError(f"{path}: bf16.bf16_optimizer_states needs bf16.bf16_master_weights_and_grads, which is not set")
    if (masters or half) and zero.stage == 0:
        raise QuestionError(f"{path}: low-precision master weights need ZeRO stage 1, 2 or 3, this is stage 0")
    if ((masters and not states) or half) and zero.offload_optimizer is None:
        raise QuestionError(
            f"{path}: low-precision master weights without low-precision states need zero_optimization.offload_optimizer on cpu"
        )


def _optimizer(configuration: Configuration, zero: Zero, client: Optimizer | None) -> Optimizer:
    path, normal = configuration.path, configuration.normal
    name = normal.get("optimizer")
    if name is None:
        if client is None:
            raise QuestionError(f"{path}: no optimizer: expected an optimizer section, or client_optimizer for one that the caller makes")
        return client
    params = normal.get("optimizer_arguments")
    return deepspeed_optimizer(
        name,
        params if isinstance(params, dict) else {},
        offload=zero.offload_optimizer is not None and zero.stage > 0,
        half_states=bool(normal.get("bf16_states", False)),
        where=f"{path}: optimizer.type",
    )


def _batches(configuration: Configuration, processes: int) -> tuple[int | None, int]:
    """Return the sequences of a micro step and the micro steps of an optimizer step. Raises QuestionError if the three batch sizes contradict each
    other (runtime/config.py:602).
    """
    normal = configuration.normal
    micro: int | None = normal.get("batch")
    total: int | None = normal.get("total_batch")
    steps: int = normal.get("accumulation", 1)
    if total is None:
        return micro, steps
    if micro is not None and normal.key("accumulation") is None:
        steps = total // micro // processes
    each = total // steps // processes if micro is None and steps else micro or 0
    if each * steps * processes != total or each < 1:
        raise QuestionError(
            f"{configuration.path}: train_batch_size {total} is not a micro batch of {each or 1} x {steps} steps x {processes} processes, which "
            "DeepSpeed refuses (runtime/config.py:602)"
        )
    return int(each), steps


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings ("bf16.enabled") as DeepSpeed's own file holds them, without the keys of llmdoctor."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        if (sections or [last])[0] in OURS:
            continue
        place = out
        for section in sections:
            inner = place.get(section)
            place[section] = place = inner if isinstance(inner, dict) else {}
        if not (isinstance(place.get(last), dict) and not isinstance(value, dict)):
            place[last] = value
    return out


def with_autos_filled(configuration: Configuration, strategy: Strategy, context: StrategyContext) -> Configuration:
    """Return a DeepSpeed configuration with every "auto" filled in as transformers 5.23 does (integrations/deepspeed.py).

    Raises QuestionError for a value that contradicts TrainingArguments, and for an "auto" that the Trainer does not fill in.
    """
    path = configuration.path
    half = strategy.autocast
    batch, steps, width = strategy.batch or 8, strategy.accumulation, context.hidden_size
    zero = "zero_optimization"
    fill: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": batch,
        "gradient_accumulation_steps": steps,
        "train_batch_size": batch * steps * context.processes,
        "gradient_clipping": strategy.clip,
        "bf16.enabled": half == "bfloat16",
        "fp16.enabled": half == "float16",
        f"{zero}.reduce_bucket_size": None if width is None else width * width,
        f"{zero}.stage3_prefetch_bucket_size": None if width is None else int(0.9 * width * width),
        f"{zero}.stage3_param_persistence_threshold": None if width is None else 10 * width,
    }
    values: dict[str, Any] = {}
    for key, value in configuration.values.items():
        if value == "auto" and key.partition(".")[0] in ("scheduler", "optimizer") and not key.endswith(".type"):
            continue  # lr, betas, eps, weight_decay, warm-up: nothing that is held
        if value == "auto" and fill.get(key) is None:
            raise QuestionError(f"{path}: {key} is auto, which the Trainer does not fill in for this model")
        values[key] = fill[key] if value == "auto" else _without_autos(value)
    for name, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        if half == dtype and not any(key.partition(".")[0] == name for key in values):
            values[f"{name}.enabled"] = True  # accelerate 1.15.0, utils/dataclasses.py, set_mixed_precision
    for key, name in (("bf16.enabled", "bf16"), ("fp16.enabled", "fp16")):
        if key in values and bool(values[key]) != fill[key]:
            raise QuestionError(
                f"{path}: {key} is {values[key]} and {name} in TrainingArguments is {fill[key]}: the Trainer refuses this, set it to auto"
            )
    filled = read_value(nested(values), path, FORMAT.of(context.releases))
    return replace(filled, normal=_with_dtype(filled, strategy), without=configuration.without)


def _without_autos(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_autos(item) for key, item in value.items() if item != "auto"}


def _with_dtype(filled: Configuration, strategy: Strategy) -> Any:
    """Return the settings with the dtype in which the Trainer's model is loaded."""
    filled.normal.put("load_dtype", strategy.dtype)
    return filled.normal
