"""What `accelerate config` writes. Read in accelerate 1.15.0, commands/config and utils/dataclasses.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs import trainer
from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import NO_TARGETS, Meanings, declared, keys_of
from llmdoctor.configs.types import Format, Ignored, Key, Refused, Uses, Variant
from llmdoctor.core.errors import QuestionError

CLUSTER = Meanings(
    uses={"distributed_type": "distributed_type", "mixed_precision": "mixed_precision", "num_processes": "world_size"},
    ignored={
        "it decides where and how the processes start": (
            "compute_environment machine_rank num_machines gpu_ids main_process_ip main_process_port rdzv_backend same_network "
            "main_training_function enable_cpu_affinity mpirun_config command_file commands tpu_* debug use_mps_device dispatch_batches "
            "megatron_lm_path"
        ),
    },
    refused={
        "the run does not use a GPU": "use_cpu",
        "tensor, context or pipeline parallelism is not modelled": "parallelism_config megatron_lm_config",
        "torch.compile changes what is held in memory and is not modelled": "dynamo_config dynamo_backend",
        "8-bit floating point is not modelled": "fp8_config",
        "another representation of bfloat16 on TPUs is not modelled": "downcast_bf16",
    },
)
SECTION = Meanings(
    uses={
        "zero_stage": "zero.stage",
        "offload_optimizer_device": "zero.offload_optimizer",
        "offload_param_device": "zero.offload_param",
        "gradient_accumulation_steps": "accumulation",
        "gradient_clipping": "clip",
        "deepspeed_config_file": "deepspeed",
    },
    ignored={
        "it decides where and how the processes start": "deepspeed_multinode_launcher deepspeed_hostfile deepspeed_exclusion_filter deepspeed_inclusion_filter",
        "saving and loading do not belong to a training step": "zero3_save_16bit_model zero3_init_flag",
        "buffers of an offload to NVMe": "offload_optimizer_nvme_path offload_param_nvme_path",
    },
    refused={"layers with experts are not modelled under DeepSpeed": "deepspeed_moe_layer_cls_names"},
)
# Keys of the section fsdp_config without their prefix "fsdp_", and what TrainingArguments' fsdp_config calls them.
FSDP = {
    **{name: name for name in ("version", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "backward_prefetch", "forward_prefetch")},
    **{name: name for name in ("use_orig_params", "activation_checkpointing", "reshard_after_forward", "min_num_params")},
    **{name: name for name in ("state_dict_type", "cpu_ram_efficient_loading", "sync_module_states")},
    "offload_params": "cpu_offload",
    "sharding_strategy": "sharding_strategy",
}
_FSDP_REFUSED = {
    "activation_checkpointing_offload": "activations kept in the host's memory are not modelled",
    "ignored_modules": "modules that FSDP leaves whole are not modelled",
    "mixed_precision_policy": "another precision than the run's under FSDP is not modelled",
}


@cache
def _variant() -> Variant:
    keys = keys_of("accelerate", ("ClusterConfig",), (CLUSTER,))
    for name in ("deepspeed_config", "fsdp_config"):
        keys.pop(name)
        keys[name] = Key(name=name, meanings={"memory": Ignored("it sets nothing"), "labels": NO_TARGETS})
    for words in (SECTION.uses, *(table.split() for table in (*SECTION.ignored.values(), *SECTION.refused.values()))):
        for word in words:
            name = f"deepspeed_config.{word}"
            keys[name] = Key(name=name, meanings={"memory": SECTION.memory(word) or Ignored(""), "labels": NO_TARGETS})
    for word in FSDP:
        keys[f"fsdp_config.fsdp_{word}"] = Key(
            name=f"fsdp_config.fsdp_{word}", meanings={"memory": Uses("fsdp_config"), "labels": NO_TARGETS}
        )
    for word, reason in _FSDP_REFUSED.items():
        keys[f"fsdp_config.fsdp_{word}"] = Key(name=f"fsdp_config.fsdp_{word}", meanings={"memory": Refused(reason), "labels": NO_TARGETS})
    for name in ("use_mps_device", "dispatch_batches", "dynamo_backend"):  # written by older releases
        keys[name] = Key(name=name, meanings={"memory": CLUSTER.memory(name) or Ignored(""), "labels": NO_TARGETS})
    return Variant(
        name="", keys={**keys, **{key: value for key, value in trainer.variant_of().keys.items() if key.startswith("model_init.")}}
    )


def variant(_value: Mapping[str, Any]) -> Variant:
    """Return the keys of ClusterConfig, and of its sections for DeepSpeed and FSDP."""
    return _variant()


def settle(normal: Normal) -> None:
    """Say what accelerate makes of its file: the precision, and a DeepSpeed configuration from the section deepspeed_config."""
    precision = str(normal.get("mixed_precision", "no")).lower()
    if precision not in ("no", "bf16", "fp16"):
        raise QuestionError(f"mixed_precision {precision!r} is not modelled, expected no, bf16 or fp16")
    normal.put("bf16", precision == "bf16", normal.key("mixed_precision") if precision == "bf16" else None)
    normal.put("fp16", precision == "fp16", normal.key("mixed_precision") if precision == "fp16" else None)
    normal.drop("mixed_precision")
    kind = str(normal.get("distributed_type", "NO")).upper()
    normal.put("distributed_type", kind, normal.key("distributed_type"))
    if kind not in ("NO", "MULTI_GPU", "DEEPSPEED", "FSDP"):
        raise QuestionError(f"distributed_type {kind} is not modelled, expected NO, MULTI_GPU, DEEPSPEED or FSDP")
    if kind == "DEEPSPEED":
        _deepspeed(normal)
    if kind == "FSDP":
        _sharded(normal)
    else:
        normal.drop("fsdp_config")
    for name in ("zero.stage", "zero.offload_optimizer", "zero.offload_param"):
        normal.drop(name)
    if normal.values.get("optimizer") is None:
        normal.put("optimizer", trainer.DEFAULT_OPTIMIZER)
    trainer.settle_model_init(normal)


def _deepspeed(normal: Normal) -> None:
    if normal.is_neutral("deepspeed"):
        zero: dict[str, Any] = {"stage": normal.get("zero.stage", 2)}
        for name in ("offload_optimizer", "offload_param"):
            device = normal.get(f"zero.{name}", "none")
            if device != "none":
                zero[name] = {"device": device}
        made = {
            "zero_optimization": zero, "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"},
            "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
        }  # fmt: skip
        normal.put("deepspeed", made, "deepspeed_config")


def _sharded(normal: Normal) -> None:
    """Say what `accelerate launch` makes of fsdp_config: the defaults of its command line (commands/launch.py:514, utils/launch.py:304)."""
    prefix = "fsdp_config.fsdp_"
    given = {
        FSDP[key.removeprefix(prefix)]: value
        for key, value in normal.raw.items()
        if key.startswith(prefix) and key.removeprefix(prefix) in FSDP
    }
    version, strategy = str(given.setdefault("version", 1)), str(given.pop("sharding_strategy", "FULL_SHARD")).upper()
    if str(given.get("auto_wrap_policy", "NO_WRAP")).upper() == "NO_WRAP":
        raise QuestionError("fsdp_config: fsdp_auto_wrap_policy is not set, so that the whole model is one unit, which is not modelled")
    if version == "1":
        given.pop("reshard_after_forward", None)  # sharding_strategy goes before it (utils/dataclasses.py:1845)
        if strategy not in ("FULL_SHARD", "1"):
            raise QuestionError(f"fsdp_config.fsdp_sharding_strategy: {strategy} is not modelled, expected FULL_SHARD")
    normal.put("fsdp", "full_shard", "distributed_type")
    normal.put("fsdp_config", given, "fsdp_config")


def is_accelerate(value: Any) -> bool:
    """Return whether `value` is what `accelerate config` writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("distributed_type"), str)
        and bool({"compute_environment", "mixed_precision", "num_processes", "deepspeed_config", "fsdp_config"} & set(value))
    )


FORMAT = Format(
    name="accelerate",
    title="accelerate config",
    library="accelerate",
    version=declared("accelerate")["version"],
    recognise=is_accelerate,
    variant=variant,
    settle=settle,
    arguments=False,
)
