"""transformers' TrainingArguments, as JSON, YAML or a checkpoint's training_args.bin. Read in transformers 5.23.0, training_args.py and trainer.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs import peft
from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import NO_TARGETS, Meanings, declared, keys_of, removed_keys
from llmdoctor.configs.types import Format, Key, Refused, Uses, Variant

DEFAULT_OPTIMIZER = "adamw_torch_fused"  # training_args.py, default_optim with torch 2.8 or later
# What decides whether a run evaluates between its steps, and with how many sequences (trainer.py, evaluation_loop).
EVALUATION = {
    "eval_strategy": "evaluation",
    "evaluation_strategy": "evaluation",
    "per_device_eval_batch_size": "eval_batch",
    "per_gpu_eval_batch_size": "eval_batch",
    "prediction_loss_only": "eval_loss_only",
    "batch_eval_metrics": "eval_metrics_by_batch",
    "eval_accumulation_steps": "eval_accumulation",
    "predict_with_generate": "eval_generates",
}
_CHECKPOINT_PARTS = frozenset({"use_reentrant", "preserve_rng_state", "determinism_check", "debug"})
ARGUMENTS = Meanings(
    uses={
        "per_device_train_batch_size": "batch",
        "gradient_accumulation_steps": "accumulation",
        "max_grad_norm": "clip",
        "bf16": "bf16",
        "fp16": "fp16",
        "optim": "optimizer",
        "optim_args": "optimizer_arguments",
        "optim_target_modules": "optimizer_targets",
        "weight_decay": "weight_decay",
        "gradient_checkpointing": "checkpointing",
        "activation_checkpointing": "checkpointing",
        "use_liger_kernel": "liger",
        "liger_kernel_config": "liger_parts",
        "torch_compile": "compile",
        "torch_compile_backend": "compile_backend",
        "torch_compile_mode": "compile_mode",
        "deepspeed": "deepspeed",
        "fsdp": "fsdp",
        "fsdp_config": "fsdp_config",
        **EVALUATION,
    },
    ignored={
        "logging and reporting do not change memory": (
            "log_* logging_* report_to run_name project trackio_* disable_tqdm include_num_input_tokens_seen include_tokens_per_second debug "
            "skip_memory_metrics tpu_metrics_debug ray_scope plot_loss wandb* mlflow* swanlab* comet_* tensorboard*"
        ),
        "saving and publishing do not belong to a training step": (
            "output_dir overwrite_output_dir save_* hub_* push_to_hub* load_best_model_at_end metric_for_best_model greater_is_better "
            "resume_from_checkpoint restore_callback_states_from_checkpoint ignore_data_skip enable_jit_checkpoint"
        ),
        "it does not change what one batch of the evaluation holds": (
            "eval_* do_eval include_for_metrics include_inputs_for_metrics jit_mode_eval sortish_sampler use_legacy_prediction_loop"
        ),
        "it has an effect outside of training only (trainer.py, evaluation_loop)": "do_predict bf16_full_eval fp16_full_eval",
        "an option of predict_with_generate": "generation_max_length generation_num_beams generation_config",
        "the learning rate and the momenta have no influence on what is held": (
            "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps warmup_ratio adam_beta1 adam_beta2 adam_epsilon"
        ),
        "the number of steps does not change what one step holds": "num_train_epochs max_steps do_train",
        "the loading of data takes host memory only": (
            "dataloader_* remove_unused_columns label_names length_column_name group_by_length train_sampling_strategy dispatch_batches"
        ),
        "random numbers do not change memory": "seed data_seed full_determinism",
        "the bytes are the same": "tf32 average_tokens_across_devices fp16_opt_level save_safetensors",
        "it holds no memory": (
            "ddp_timeout ddp_backend ddp_find_unused_parameters ddp_broadcast_buffers ddp_static_graph local_rank torch_empty_cache_steps"
        ),
    },
    refused={
        "noise on the embeddings (NEFTune) is not modelled": "neftune_noise_alpha",
        "the Trainer computes a smoothed loss of its own, which is not modelled": "label_smoothing_factor",
        "the batch is chosen during the run": "auto_find_batch_size",
        "the keys and values of a cache are kept, which is not modelled": "use_cache",
        "the run does not use a GPU": "use_cpu no_cuda use_mps_device use_ipex tpu_num_cores",
        "tensor, context or pipeline parallelism is not modelled": "parallelism_config mp_parameters",
        "buckets of DistributedDataParallel of another size are not modelled": "ddp_bucket_cap_mb",
        "another way to set per_device_train_batch_size, which it replaces": "per_gpu_train_batch_size",
        "torch.compile changes what is held in memory and is not modelled": "torchdynamo",
        "another way to set optim, which it replaces": "adafactor",
        "another way to set fsdp_config": "fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap",
        "one batch is divided among the processes": "split_batches",
    },
    refused_if={
        **dict.fromkeys(("half_precision_backend", "fp16_backend"), Refused("apex is not modelled", ("auto", "cuda_amp", "cpu_amp", None))),
        "past_index": Refused("past states are kept, which is not modelled", (-1, None)),
        "accelerator_config": Refused(
            "one batch is divided among the processes (split_batches), or another setting of accelerate's that is not modelled",
            harmless_parts=frozenset(
                {"even_batches", "use_seedable_sampler", "non_blocking", "dispatch_batches", "data_seed", "use_configured_state"}
            ),
        ),
        **dict.fromkeys(
            ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
            Refused("only some layers are recomputed, or in another way, which is not modelled", harmless_parts=_CHECKPOINT_PARTS),
        ),
    },
    labels={},
)
# `model_init` and `client_optimizer`: keys of llmdoctor in a strategy's file, for what a script does before the Trainer is made.
MODEL_INIT = Meanings(
    uses={"dtype": "load_dtype", "torch_dtype": "load_dtype", "attn_implementation": "attention", "quantization_config": "quantization"},
    ignored={
        "it does not change how much memory the weights take": (
            "low_cpu_mem_usage device_map trust_remote_code revision token cache_dir local_files_only use_safetensors use_cache force_download "
            "pretrained_model_name_or_path model_name_or_path"
        )
    },
)
OURS = {
    **{
        f"model_init.{name}": Key(name=f"model_init.{name}", meanings={"memory": meaning, "labels": NO_TARGETS})
        for name in (*MODEL_INIT.uses, *" ".join(MODEL_INIT.ignored.values()).split())
        if (meaning := MODEL_INIT.memory(name)) is not None
    },
    "client_optimizer": Key(name="client_optimizer", type="dict", meanings={"memory": Uses("client_optimizer"), "labels": NO_TARGETS}),
}


RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",
    "group_by_length": "train_sampling_strategy",
    "adafactor": "optim",
}


@cache
def variant_of(name: str = "TrainingArguments") -> Variant:
    """Return the keys of TrainingArguments or Seq2SeqTrainingArguments."""
    keys = {**removed_keys("transformers", (ARGUMENTS,)), **keys_of("transformers", (name,), (ARGUMENTS,)), **OURS}
    keys |= peft.keys("model_init.peft_config.")
    return Variant(name=name, keys=keys, choices={"optim": tuple(declared("transformers")["values"]["optim"])}, renamed=RENAMED)


def variant(value: Mapping[str, Any]) -> Variant:
    """Return the class that reads `value`."""
    sequence = {"predict_with_generate", "sortish_sampler", "generation_max_length", "generation_num_beams"}
    return variant_of("Seq2SeqTrainingArguments" if sequence & value.keys() else "TrainingArguments")


def settle(normal: Normal) -> None:
    """Fill in what TrainingArguments' __post_init__ does, and what the Trainer assumes."""
    arguments(normal)
    settle_model_init(normal)


def arguments(normal: Normal) -> None:
    """Fill in the defaults that the frameworks share which extend TrainingArguments."""
    for name, value in (("batch", 8), ("accumulation", 1), ("clip", 1.0), ("optimizer", DEFAULT_OPTIMIZER), ("eval_batch", 8)):
        if normal.values.get(name) is None:
            normal.put(name, value)
    for name in ("compile_backend", "compile_mode"):
        if not normal.is_neutral(name):
            normal.put("compile", True, normal.key(name))
        normal.drop(name)


def settle_model_init(normal: Normal) -> None:
    """Turn an adapter under model_init into an adapter of the run."""
    if any(key.startswith("model_init.peft_config.") for key in normal.raw):
        peft.settle(normal)


SIGNATURE = frozenset(
    "output_dir learning_rate num_train_epochs max_steps optim bf16 fp16 deepspeed gradient_checkpointing lr_scheduler_type warmup_ratio "
    "warmup_steps weight_decay max_grad_norm logging_steps save_steps eval_strategy evaluation_strategy gradient_accumulation_steps "
    "per_device_eval_batch_size".split()
)


def is_arguments(value: Any) -> bool:
    """Return whether `value` has the names of TrainingArguments (TRL's, LLaMA-Factory's and ms-swift's files have them too)."""
    if not isinstance(value, dict):
        return False
    named = len(SIGNATURE & set(value))
    return ("per_device_train_batch_size" in value and named >= 1) or ("output_dir" in value and named >= 4)


FORMAT = Format(
    name="transformers",
    title="TrainingArguments",
    library="transformers",
    version=declared("transformers")["version"],
    recognise=is_arguments,
    variant=variant,
    settle=settle,
    extended=True,
)
