"""DeepSpeed's configuration: every key of DeepSpeedConfig with its aliases and deprecated spellings. Read in deepspeed 0.19.8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.agreement import BATCHES
from llmdoctor.configs.deepspeed_releases import DeepSpeedRelease, deepspeed_release
from llmdoctor.configs.normal import Normal, shorter
from llmdoctor.configs.schema import NO_TARGETS, Meanings
from llmdoctor.configs.trainer import OURS, settle_model_init
from llmdoctor.configs.types import NOTHING_SET, Format, Ignored, Key, KeyEffect, Refused, Variant
from llmdoctor.core.errors import QuestionError

ZERO = "zero_optimization"
# Fields with an alias (runtime/zero/config.py, populate_by_name): the alias is the name that users write.
ALIASED = (
    "prefetch_bucket_size", "param_persistence_threshold", "model_persistence_threshold", "max_live_parameters", "max_reuse_distance",
    "gather_16bit_weights_on_model_save", "module_granularity_threshold", "use_all_reduce_for_fetch_params", "allgather_sequential",
)  # fmt: skip
ZERO_FIELDS = (
    "stage", "contiguous_gradients", "overlap_comm", "reduce_scatter", "reduce_bucket_size", "allgather_bucket_size", "sub_group_size",
    "round_robin_gradients", "parameter_alignment",
)  # fmt: skip
MEANINGS = Meanings(
    uses={
        "train_micro_batch_size_per_gpu": "batch",
        "train_batch_size": "total_batch",
        "gradient_accumulation_steps": "accumulation",
        "gradient_clipping": "clip",
        "bf16.enabled": "bf16",
        "fp16.enabled": "fp16",
        "bf16.immediate_grad_update": "immediate_update",
        "bf16.bf16_master_weights_and_grads": "bf16_masters",
        "bf16.bf16_optimizer_states": "bf16_states",
        "fp16.fp16_master_weights_and_grads": "fp16_masters",
        "fp16.auto_cast": "fp16_auto_cast",
        "torch_autocast.enabled": "torch_autocast",
        "torch_autocast.dtype": "torch_autocast_dtype",
        "data_types.grad_accum_dtype": "accumulation_dtype",
        "data_types.param_dtype": "parameter_dtype",
        "optimizer.type": "optimizer",
        "optimizer.params": "optimizer_arguments",
        "client_optimizer": "client_optimizer",
        **{f"{ZERO}.{name}": f"zero.{name}" for name in ZERO_FIELDS},
        f"{ZERO}.stage3_prefetch_bucket_size": "zero.prefetch_bucket_size",
        f"{ZERO}.stage3_param_persistence_threshold": "zero.param_persistence_threshold",
        f"{ZERO}.stage3_max_live_parameters": "zero.max_live_parameters",
        f"{ZERO}.stage3_max_reuse_distance": "zero.max_reuse_distance",
        f"{ZERO}.offload_optimizer": "zero.offload_optimizer_null",
        f"{ZERO}.offload_param": "zero.offload_param_null",
        f"{ZERO}.offload_optimizer.device": "zero.offload_optimizer",
        f"{ZERO}.offload_param.device": "zero.offload_param",
        f"{ZERO}.cpu_offload": "zero.cpu_offload",
        f"{ZERO}.cpu_offload_param": "zero.cpu_offload_param",
    },
    ignored={
        "logging and profiling do not change memory": (
            "steps_per_print dump_state comms_logger* tensorboard* wandb* csv_monitor* comet* flops_profiler* wall_clock_breakdown memory_breakdown "
            "log_level timers* datastates_ckpt* msamp replace_method inference* comment _comment comments description $schema vocabulary_size"
        ),
        "the learning rate and its schedule have no influence on what is held": "scheduler*",
        "saving and loading do not belong to a training step": (
            f"checkpoint* {ZERO}.load_from_fp32_weights {ZERO}.elastic_checkpoint {ZERO}.stage3_gather_16bit_weights_on_model_save "
            f"{ZERO}.stage3_gather_fp16_weights_on_model_save {ZERO}.pipeline_loading_checkpoint {ZERO}.save_muon_momentum_buffer_in_memory aio*"
        ),
        "the scale of the loss does not change memory": (
            "fp16.loss_scale fp16.initial_scale_power fp16.loss_scale_window fp16.hysteresis fp16.consecutive_hysteresis fp16.min_loss_scale "
            "prescale_gradients gradient_predivide_factor gradient_allreduce_op"
        ),
        "it decides how the same bytes travel": (
            f"{ZERO}.allgather_partitions disable_allgather allgather_size {ZERO}.offload_optimizer.pin_memory {ZERO}.offload_param.pin_memory "
            f"{ZERO}.cpu_offload_use_pin_memory {ZERO}.offload_optimizer.pipeline_read {ZERO}.offload_optimizer.pipeline_write "
            f"{ZERO}.offload_optimizer.fast_init {ZERO}.offload_optimizer.cpuadam_cores_perc"
        ),
        "buffers of an offload to NVMe": " ".join(
            f"{ZERO}.offload_{part}.{name}"
            for part in ("param", "optimizer")
            for name in ("nvme_path", "buffer_count", "buffer_size", "max_in_cpu")
        ),
        "it permits an optimizer and does not change one": "zero_allow_untested_optimizer zero_force_ds_cpu_optimizer",
        "it is a check and holds nothing": (
            f"{ZERO}.ignore_unused_parameters {ZERO}.log_trace_cache_warnings {ZERO}.enable_sanity_checks managed_gradient_accumulation"
        ),
        "the loading of data takes host memory only": "dataloader_drop_last disable_python_gc",
        "it configures deepspeed.checkpointing, which transformers' models do not call": "activation_checkpointing*",
        "it reads no memory of the device during a step": f"{ZERO}.legacy_stage1 {ZERO}.override_module_apply use_data_before_expert_parallelism",
    },
    refused={
        "tensor, sequence, pipeline or expert parallelism is not modelled": (
            "tensor_parallel* sequence_parallel_size expert_parallel* pipeline* inference_tp_size autotp_size"
        ),
        "quantized weights or gradients (ZeRO++) are not modelled": (
            f"{ZERO}.zero_quantized_weights {ZERO}.zero_quantized_gradients {ZERO}.zero_quantized_nontrainable_weights weight_quantization*"
        ),
        "torch.compile changes what is held in memory and is not modelled": "compile*",
        "the settings are chosen during the run": "autotuning*",
        "the length of a sequence changes during the run": "data_efficiency*",
        "another engine is used, which is not modelled": f"hybrid_engine* {ZERO}.zenflow {ZERO}.leaf_module {ZERO}.offload_optimizer.super_offload",
    },
    refused_if={
        f"{ZERO}.offload_optimizer.ratio": Refused("an optimizer that is offloaded in part is not modelled", (1.0, 1, None)),
        f"{ZERO}.zero_hpz_partition_size": Refused("a second shard of the weights (ZeRO++ hpZ) is not modelled", (1, 0, None)),
        f"{ZERO}.use_multi_rank_bucket_allreduce": Refused("another way to reduce gradients is not modelled", (True, None)),
        f"{ZERO}.compute_grad_norm": Refused("a step without the norm of the gradients is not modelled", (True, None)),
        f"{ZERO}.memory_efficient_linear": Refused("linear layers of torch's own are not modelled at stage 3", (True, None)),
        f"{ZERO}.stage3_model_persistence_threshold": Refused(
            "fewer parameters are kept whole, which is not modelled", (9223372036854775807, None)
        ),
        f"{ZERO}.stage3_module_granularity_threshold": Refused("modules are gathered as a whole, which is not modelled", (0, None)),
        f"{ZERO}.stage3_use_all_reduce_for_fetch_params": Refused("another way to gather parameters is not modelled"),
        f"{ZERO}.stage3_allgather_sequential": Refused("another way to gather parameters is not modelled"),
        "bf16.check_grad_overflow": Refused("a step without a search for overflow is not modelled", (True, None)),
        "communication_data_type": Refused("gradients travel in another dtype, whose copies are not modelled"),
        "seq_parallel_communication_data_type": Refused("sequence parallelism is not modelled", (None, "fp32", "float32")),
    },
)
# Sections without a model of their own here: one key means all of a section's content.
_WHOLE = frozenset(
    "scheduler activation_checkpointing comms_logger tensorboard wandb csv_monitor comet flops_profiler autotuning hybrid_engine pipeline "
    "data_efficiency checkpoint aio datastates_ckpt weight_quantization compile timers tensor_parallel expert_parallel".split()
)
_TYPES = {"bool": "bool", "int": "int", "int>=0": "int", "int>0": "int"}


@cache
def of_release(release: DeepSpeedRelease) -> Format:
    """Return the format as one release reads it: settings that it does not have are unknown, those that later ones removed are not modelled."""
    keys = dict(_variant().keys)
    for name in _variant().keys:
        *place, last = name.split(".")
        missing = tuple(place) in release.sections and last not in release.sections[tuple(place)]
        if missing or (not place and name in schema.TOP and name not in release.top):
            keys.pop(name)
    old = {f"{ZERO}.{name}": name for name in release.sections[ZERO,] if name in schema.REMOVED_ZERO}
    old |= {name: name for name in schema.REMOVED if name in release.top}
    keys |= {place: Key(name=place, meanings={"memory": _of_older(name), "labels": NO_TARGETS}) for place, name in old.items()}
    read = Variant(name="", keys=keys)
    return replace(FORMAT, version=release.version, variant=lambda _value: read, unknown=lambda key: unknown(key, release), at=FORMAT.at)


def _of_older(name: str) -> Ignored | Refused:
    """Return what a setting that newer releases removed means for memory: its default or an empty section changes nothing."""
    if name == "nebula":
        return Ignored("saving and loading do not belong to a training step")
    off = (*NOTHING_SET, -1, {"enabled": False})
    return Refused("a setting that newer releases of DeepSpeed removed is not modelled", off)


@cache
def _variant() -> Variant:
    keys: dict[str, Key] = {}

    def add(name: str, kind: str = "Any", aliases: tuple[str, ...] = ()) -> None:
        memory = MEANINGS.memory(name) or Refused("its influence on memory is not modelled")
        keys[name] = Key(name=name, type=kind, meanings={"memory": memory, "labels": NO_TARGETS}, aliases=aliases)

    for name in sorted((schema.TOP | schema.OTHERS) - {"model_init", "client_optimizer", "zero_optimization", "bf16", "fp16", "bfloat16"}):
        if name in _WHOLE or f"{name}." not in " ".join(MEANINGS.uses):
            add(name)
    for place, fields in schema.SECTIONS.items():
        for field, kind in fields.items():
            plain = field.removeprefix("stage3_")
            if field in ALIASED:
                continue
            old = (f"{'.'.join(place)}.{plain}",) if plain != field and plain in ALIASED else ()
            add(f"{'.'.join(place)}.{field}", _TYPES.get(kind, "Any"), (*old, *((f"bfloat16.{field}",) if place == ("bf16",) else ())))
    for name in ("torch_autocast.enabled", "torch_autocast.dtype", "data_types.grad_accum_dtype", "data_types.param_dtype"):
        add(name)
    keys["torch_autocast.lower_precision_safe_modules"] = Key(
        name="torch_autocast.lower_precision_safe_modules",
        meanings={"memory": Refused("only some modules run under autocast, which is not modelled"), "labels": NO_TARGETS},
    )
    add("optimizer.type")
    add("optimizer.params")
    for name in ("optimizer.legacy_fusion", "fp16", "bf16", ZERO):
        keys[name] = Key(name=name, meanings={"memory": Ignored("its value changes nothing"), "labels": NO_TARGETS})
    return Variant(name="", keys={**keys, **OURS, **_adapters()}, replaced={"bfloat16": "bf16"})


def _adapters() -> dict[str, Key]:
    from llmdoctor.configs import peft

    return peft.keys("model_init.peft_config.")


def variant(_value: Mapping[str, Any]) -> Variant:
    """Return the keys of DeepSpeedConfig."""
    return _variant()


def unknown(key: str, release: DeepSpeedRelease | None = None) -> KeyEffect:
    """Return what DeepSpeed does with a key that it does not know: validated sections and removed names raise, the top level ignores."""
    known = release or deepspeed_release()
    section = key.partition(".")[0]
    validated = {place[0] for place in known.validated} | ({"bfloat16"} if ("bf16",) in known.validated else set()) | {"model_init"}
    return "raises" if ("." in key and section in validated) or section in known.removed else "ignores"


def settle(normal: Normal) -> None:
    """Turn deprecated spellings into what DeepSpeedZeroConfig makes of them (runtime/zero/config.py, offload_optimizer and offload_param)."""
    _check_values(normal)
    for name in ("offload_optimizer", "offload_param"):
        normal.drop(f"zero.{name}_null")
    if normal.raw.get(ZERO) is True and normal.values.get("zero.stage") is None:  # read_zero_config_deprecated
        normal.put("zero.stage", 1, ZERO)
    for old, new in (("cpu_offload", "offload_optimizer"), ("cpu_offload_param", "offload_param")):
        if normal.get(f"zero.{old}", False) and normal.values.get(f"zero.{new}") is None:
            normal.put(f"zero.{new}", "cpu", normal.key(f"zero.{old}"))
        normal.drop(f"zero.{old}")
    settle_model_init(normal)


def _check_values(normal: Normal) -> None:
    """Raise QuestionError for values of a type that DeepSpeed does not read, as its models and its batch arithmetic do (runtime/config.py)."""
    keys = _variant().keys
    for key, value in normal.raw.items():
        objects = {ZERO: (True, False), "bf16": (None,), "fp16": (), f"{ZERO}.offload_optimizer": (None,), f"{ZERO}.offload_param": (None,)}
        if key in objects and not isinstance(value, Mapping) and not any(value is one for one in objects[key]):
            raise QuestionError(f"{key}: DeepSpeed expects an object, found {shorter(value)}")
        number = key in BATCHES or (key in keys and keys[key].type == "int" and not str(value).strip().lstrip("+-").isdigit())
        if number and isinstance(value, str) and value != "auto":
            raise QuestionError(
                f"{key}: DeepSpeed reads no number from the text {shorter(value)} (YAML reads 5e8 as text, and 5.0e+8 as a number)"
            )


def is_deepspeed(value: Any) -> bool:
    """Return whether `value` is a DeepSpeed configuration: it has DeepSpeed's own keys, or a batch size beside sections that it has."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get(ZERO), dict | bool) or "train_micro_batch_size_per_gpu" in value:
        return True
    if {"zero_allow_untested_optimizer", "data_types", "torch_autocast"} & value.keys():
        return True
    if any(isinstance(value.get(key), dict) and "enabled" in value[key] for key in ("bf16", "fp16")):
        return True
    sections = ("optimizer", "scheduler", "fp16", "bf16", "activation_checkpointing")
    return "train_batch_size" in value and any(isinstance(value.get(key), dict) for key in sections)


FORMAT = Format(
    name="deepspeed",
    title="DeepSpeed config",
    library="deepspeed",
    version="0.19.8",
    recognise=is_deepspeed,
    variant=variant,
    settle=settle,
    unknown=unknown,
    auto=True,
    arguments=False,
    engine=True,
    at=lambda version: of_release(deepspeed_release(version)),
)
