"""What `accelerate config` writes. Read in accelerate 1.15.0, commands/config and utils/dataclasses.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs import trainer
from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import NO_TARGETS, Meanings, declared, keys_of
from llmdoctor.configs.types import Format, Ignored, Key, Refused, Variant
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
FSDP = (
    "fsdp_version fsdp_reshard_after_forward fsdp_offload_params fsdp_auto_wrap_policy fsdp_transformer_layer_cls_to_wrap fsdp_min_num_params "
    "fsdp_backward_prefetch fsdp_state_dict_type fsdp_forward_prefetch fsdp_use_orig_params fsdp_cpu_ram_efficient_loading fsdp_sync_module_states "
    "fsdp_activation_checkpointing fsdp_sharding_strategy fsdp_backward_prefetch_policy fsdp_mixed_precision_policy"
).split()


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
        name = f"fsdp_config.{word}"
        keys[name] = Key(
            name=name, meanings={"memory": Refused("fully sharded data parallel (FSDP) is not modelled", ()), "labels": NO_TARGETS}
        )
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
    if kind == "DEEPSPEED":
        _deepspeed(normal)
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
