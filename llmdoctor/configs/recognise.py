"""What a configuration is, by its keys. Told apart so that a file of another program is never judged."""

from __future__ import annotations

from typing import Any

_BESIDE_BATCH = frozenset(
    {"optimizer", "scheduler", "fp16", "bf16", "activation_checkpointing", "zero_allow_untested_optimizer", "torch_autocast"}
)
_ARGUMENTS = frozenset(
    "output_dir learning_rate num_train_epochs max_steps optim bf16 fp16 deepspeed gradient_checkpointing lr_scheduler_type warmup_ratio "
    "warmup_steps weight_decay max_grad_norm logging_steps save_steps eval_strategy evaluation_strategy gradient_accumulation_steps "
    "per_device_eval_batch_size".split()
)
_AXOLOTL = frozenset(
    "base_model datasets sequence_len num_epochs optimizer lr_scheduler adapter sample_packing output_dir deepspeed".split()
)


def is_deepspeed(value: Any) -> bool:
    """A DeepSpeed config: its own keys, or a batch size beside sections that it has."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("zero_optimization"), dict | bool) or "train_micro_batch_size_per_gpu" in value:
        return True
    return "train_batch_size" in value and any(isinstance(value.get(key), dict) for key in _BESIDE_BATCH)


def is_accelerate(value: Any) -> bool:
    """What `accelerate config` writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("distributed_type"), str)
        and bool({"compute_environment", "mixed_precision"} & set(value))
    )


def is_training(value: Any) -> bool:
    """TrainingArguments in any of the forms that name them: the Trainer's own, LLaMA-Factory's, axolotl's."""
    return is_arguments(value) or is_axolotl(value)


def is_arguments(value: Any) -> bool:
    """The Trainer's own names (LLaMA-Factory's are the same)."""
    if not isinstance(value, dict):
        return False
    named = len(_ARGUMENTS & set(value))
    return ("per_device_train_batch_size" in value and named >= 1) or ("output_dir" in value and named >= 4)


def is_axolotl(value: Any) -> bool:
    """axolotl's names."""
    return isinstance(value, dict) and "base_model" in value and len(_AXOLOTL & set(value)) >= 4
