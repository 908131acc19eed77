"""What DeepSpeed 0.19.8 knows: every key of a config, with the type that its pydantic models accept.

Held against the real models by tests/mem/config_rules/test_against_deepspeed.py. A type is bool, int, float, text or any; "int>0" and "int>=0" carry
the field's bound, "!" refuses true and false, "?" takes null. "auto" is dropped before a model looks (runtime/config_utils.py:56), so it is
accepted everywhere and means the default.
"""

from __future__ import annotations

import math
from typing import Any

_OFFLOAD = {"device": "device", "nvme_path": "text?", "buffer_count": "int>=0", "pin_memory": "bool"}
SECTIONS: dict[tuple[str, ...], dict[str, str]] = {
    ("zero_optimization",): {
        **dict.fromkeys(
            "contiguous_gradients reduce_scatter use_multi_rank_bucket_allreduce allgather_partitions compute_grad_norm load_from_fp32_weights "
            "elastic_checkpoint gather_16bit_weights_on_model_save use_all_reduce_for_fetch_params allgather_sequential ignore_unused_parameters "
            "stage3_gather_16bit_weights_on_model_save stage3_use_all_reduce_for_fetch_params stage3_allgather_sequential legacy_stage1 "
            "stage3_gather_fp16_weights_on_model_save round_robin_gradients parameter_alignment zero_quantized_weights zero_quantized_gradients "
            "zero_quantized_nontrainable_weights memory_efficient_linear pipeline_loading_checkpoint override_module_apply log_trace_cache_warnings "
            "enable_sanity_checks save_muon_momentum_buffer_in_memory".split(),
            "bool",
        ),
        **dict.fromkeys(
            "allgather_bucket_size sub_group_size prefetch_bucket_size param_persistence_threshold model_persistence_threshold max_live_parameters "
            "max_reuse_distance stage3_prefetch_bucket_size stage3_param_persistence_threshold stage3_model_persistence_threshold "
            "stage3_max_live_parameters stage3_max_reuse_distance zero_hpz_partition_size".split(),
            "int>=0",
        ),
        **dict.fromkeys(("module_granularity_threshold", "stage3_module_granularity_threshold"), "int"),
        **dict.fromkeys(("overlap_comm", "cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory"), "bool?"),
        **dict.fromkeys(("offload_param", "offload_optimizer"), "object?"),
        **dict.fromkeys(("zenflow", "leaf_module"), "any"),
        "stage": "stage",
        "reduce_bucket_size": "int>0",
    },
    ("zero_optimization", "offload_param"): {**_OFFLOAD, "buffer_size": "int>=0", "max_in_cpu": "int>=0"},
    ("zero_optimization", "offload_optimizer"): {
        **_OFFLOAD,
        "pipeline_read": "bool",
        "pipeline_write": "bool",
        "fast_init": "bool",
        "ratio": "share",
        "super_offload": "bool",
        "cpuadam_cores_perc": "share",
    },
    ("bf16",): dict.fromkeys(
        ("enabled", "immediate_grad_update", "check_grad_overflow", "bf16_master_weights_and_grads", "bf16_optimizer_states"), "bool"
    ),
    ("fp16",): {
        **dict.fromkeys(("enabled", "auto_cast", "consecutive_hysteresis", "fp16_master_weights_and_grads"), "bool"),
        **dict.fromkeys(("initial_scale_power", "hysteresis"), "int"),
        **dict.fromkeys(("loss_scale_window", "min_loss_scale"), "int!"),
        "loss_scale": "float!>=0",
    },
}
FILE_OF = {
    "bf16": "runtime/precision_config.py:41",
    "fp16": "runtime/precision_config.py:100",
    "zero_optimization": "runtime/zero/config.py:90",
}

TOP = frozenset(
    "train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps managed_gradient_accumulation steps_per_print dump_state "
    "disable_python_gc disable_allgather communication_data_type seq_parallel_communication_data_type prescale_gradients gradient_predivide_factor "
    "gradient_allreduce_op zero_optimization activation_checkpointing comms_logger tensorboard wandb csv_monitor comet gradient_clipping fp16 bf16 "
    "bfloat16 torch_autocast optimizer scheduler zero_allow_untested_optimizer zero_force_ds_cpu_optimizer flops_profiler wall_clock_breakdown "
    "memory_breakdown autotuning use_data_before_expert_parallelism hybrid_engine pipeline data_efficiency checkpoint data_types aio "
    "dataloader_drop_last log_level datastates_ckpt weight_quantization compile timers tensor_parallel expert_parallel "
    "vocabulary_size sequence_parallel_size allgather_size".split()
)
# Read by others from the same file: accelerate (accelerator.py, utils/dataclasses.py), transformers, mem compare, DeepSpeed's examples and inference.
OTHERS = frozenset("msamp inference model_init client_optimizer comment _comment comments description $schema replace_method".split())
MEANT = {  # the names that other libraries have for it
    "max_grad_norm": "gradient_clipping",
    **dict.fromkeys(("per_device_train_batch_size", "micro_batch_size"), "train_micro_batch_size_per_gpu"),
    **dict.fromkeys(("learning_rate", "lr"), "optimizer.params.lr"),
    **dict.fromkeys(("mixed_precision", "precision"), "bf16"),
}
# runtime/config.py:78 and :117, with what to do about each.
REMOVED = {
    "nebula": "remove it", "compression_training": "remove it", "amp": 'use "bf16", "fp16" or "torch_autocast"', "quantize_training": "remove it",
    "sparse_gradients": "remove it", "eigenvalue": "remove it", "sparse_attention": "remove it",
    "elasticity": "set the batch sizes themselves", "graph_harvesting": "remove it",
    "curriculum_learning": 'move it to "data_efficiency": {"data_sampling": {"curriculum_learning": ...}}', "progressive_layer_drop": "remove it",
}  # fmt: skip
REMOVED_ZERO = ("mics_shard_size", "mics_hierarchical_params_gather", "zeropp_loco_param")
DEPRECATED = {
    "cpu_offload": ("offload_optimizer", '"offload_optimizer": {"device": "cpu"}'),
    "cpu_offload_param": ("offload_param", '"offload_param": {"device": "cpu"}'),
    "cpu_offload_use_pin_memory": ("", '"pin_memory" inside offload_optimizer and offload_param'),
    "stage3_gather_fp16_weights_on_model_save": ("gather_16bit_weights_on_model_save", '"stage3_gather_16bit_weights_on_model_save"'),
}
ONLY_STAGE_3 = frozenset(
    "offload_param sub_group_size prefetch_bucket_size param_persistence_threshold model_persistence_threshold max_live_parameters max_reuse_distance "
    "stage3_prefetch_bucket_size stage3_param_persistence_threshold stage3_model_persistence_threshold stage3_max_live_parameters "
    "stage3_max_reuse_distance stage3_gather_16bit_weights_on_model_save gather_16bit_weights_on_model_save module_granularity_threshold "
    "stage3_module_granularity_threshold zero_hpz_partition_size zero_quantized_weights zero_quantized_nontrainable_weights".split()
)
ONLY_STAGES_1_2 = frozenset("allgather_bucket_size round_robin_gradients parameter_alignment ignore_unused_parameters".split())
_WORDS = ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n")


def refusal(value: Any, kind: str) -> str | None:
    """What a field of `kind` expects, if pydantic (lax mode) refuses `value`; None if it takes it."""
    if value == "auto" or kind == "any" or (kind.endswith("?") and value is None):
        return None
    kind = kind.rstrip("?")
    if kind == "object":
        return None if isinstance(value, dict) else "an object"
    if kind == "bool":
        fine = isinstance(value, bool) or value in (0, 1) or (isinstance(value, str) and value.lower() in _WORDS)
        return None if fine else "true or false"
    if kind == "device":
        return None if value in ("none", "cpu", "nvme") else '"none", "cpu" or "nvme"'
    if kind == "text":
        return None if isinstance(value, str) else "a text"
    number = None if "!" in kind and isinstance(value, bool) else _number(value, whole=kind.startswith(("int", "stage")))
    if kind == "stage":
        return None if number in (0, 1, 2, 3) else "0, 1, 2 or 3"
    if number is None:
        return "a whole number" if kind.startswith("int") else "a number"
    if kind == "share":
        return None if 0 <= number <= 1 else "a number from 0 to 1"
    bound = kind.lstrip("intfloa!")
    wrong = (bound == ">0" and number <= 0) or (bound == ">=0" and number < 0)
    return f"a number {'above 0' if bound == '>0' else 'of at least 0'}" if wrong else None


def _number(value: Any, *, whole: bool) -> float | None:
    """The number that pydantic makes of `value`; None if it makes none."""
    if isinstance(value, str):
        try:
            value = int(value) if whole else float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return None if whole and value != int(value) else value
