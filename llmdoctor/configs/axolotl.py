"""axolotl's YAML. Read in axolotl 0.19.0: utils/schemas, utils/config/__init__.py (resolve_dtype, normalize_config), core/builders/base.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs import trainer
from llmdoctor.configs.normal import Normal, flag
from llmdoctor.configs.schema import Meanings, declared, keys_of, literal_choices
from llmdoctor.configs.types import Format, KeyEffect, Refused, Variant
from llmdoctor.core.errors import QuestionError

OWN = Meanings(
    uses={
        "micro_batch_size": "batch",
        "gradient_accumulation_steps": "accumulation",
        "sequence_len": "sequence_length",
        "bf16": "precision_bf16",
        "fp16": "precision_fp16",
        "bfloat16": "pure_bf16",
        "float16": "pure_fp16",
        "max_grad_norm": "clip",
        "optimizer": "optimizer",
        "optim_args": "optimizer_arguments",
        "optim_target_modules": "optimizer_targets",
        "weight_decay": "weight_decay",
        "gradient_checkpointing": "checkpointing_kind",
        "adapter": "adapter",
        "load_in_4bit": "load_in_4bit",
        "load_in_8bit": "load_in_8bit",
        "lora_r": "lora_rank",
        "lora_dropout": "lora_dropout",
        "lora_target_modules": "lora_targets",
        "lora_target_linear": "lora_all_linear",
        "lora_target_parameters": "lora_parameters",
        "lora_rank_pattern": "lora_rank_pattern",
        "peft_layers_to_transform": "lora_layers",
        "peft_layers_pattern": "lora_layers_pattern",
        "peft_use_dora": "lora_dora",
        "peft_autocast_adapter_dtype": "lora_float32",
        "attn_implementation": "attention",
        "flash_attention": "attention_flash",
        "sdp_attention": "attention_sdpa",
        "eager_attention": "attention_eager",
        "rl": "objective",
        "sample_packing": "documents",
        "eval_strategy": "evaluation",
        "evaluation_strategy": "evaluation",
        "eval_batch_size": "eval_batch",
        "val_set_size": "eval_share",
        "test_datasets": "eval_data",
        "deepspeed": "deepspeed",
        "fsdp": "fsdp",
        "fsdp_config": "fsdp_config",
        "torch_compile": "compile",
        "torch_compile_backend": "compile_backend",
        "torch_compile_mode": "compile_mode",
        "plugins": "plugins",
        "cut_cross_entropy": "cut_cross_entropy",
        "liger_fused_linear_cross_entropy": "liger_fused_linear_cross_entropy",
        **{f"liger_{name}": f"liger_{name}" for name in ("rope", "rms_norm", "layer_norm", "swiglu", "glu_activation", "cross_entropy")},
        "chunked_cross_entropy": "fused_loss_chunked",
    },
    ignored={
        "a batch without padding, or with lengths rounded up, holds no more tokens than full rows": "batch_flattening pad_to_multiple_of",
        "it names the model, its files or where it is loaded": (
            "base_model base_model_config tokenizer_* processor_type processor_kwargs trust_remote_code type_of_model revision_of_model strict "
            "is_falcon_derived_model is_llama_derived_model is_mistral_derived_model is_qwen_derived_model device device_map local_rank world_size ddp low_cpu_mem_usage hf_use_auth_token experimental_skip_move_to_device "
            "axolotl_config_path trainer_cls special_tokens tokens added_tokens_overrides fix_untrained_tokens mean_resizing_embeddings lora_model_dir_ "
            "lora_fan_in_fan_out lora_on_cpu_ qlora_sharded_model_loading"
        ),
        "it names the data or decides how examples become tokens": (
            "datasets shuffle_* dataset_* pretraining_dataset skip_prepare_dataset num_dataset_shards_to_save push_dataset_to_hub "
            "train_on_inputs chat_template* eot_tokens default_system_message is_preprocess preprocess_iterable total_* role_boundaries "
            "sample_packing_* eval_sample_packing pretrain_multipack_* pretraining_sample_concatenation streaming* min_sample_len excess_length_strategy "
            "max_prompt_len curriculum_sampling eval_sequence_len multipack_real_batches group_by_length remove_unused_columns "
            "pad_to_sequence_len"
        ),
        "the size of an image is given by --image": "image_size image_resize_algorithm",
        "the learning rate and the momenta have no influence on what is held": (
            "learning_rate embedding_lr embedding_lr_scale lr_* cosine_* adam_* loraplus_* warmup_* dion_* jagged_* qgalore_*"
        ),
        "a factor of the adapters' output": "lora_alpha lora_alpha_pattern peft_use_rslora",
        "a factor of the loss": (
            "dpo_beta dpo_label_smoothing dpo_use_weighting dpo_loss_weights dpo_norm_loss rl_beta orpo_alpha simpo_gamma cpo_alpha kto_* rpo_alpha "
            "center_rewards_coefficient eaft_alpha eaft_k kd_alpha kd_ce_alpha kd_temperature* kd_beta"
        ),
        "the number of steps does not change what one step holds": "num_epochs max_steps early_stopping_patience",
        "gradient_accumulation_steps is 1 all the same: its default is filled in first (utils/config/__init__.py, normalize_config)": "batch_size",
        "it does not change what one batch of the evaluation holds": "eval_* evals_per_epoch metric_for_best_model greater_is_better",
        "generated samples and benchmarks do not belong to a training step": (
            "do_causal_lm_eval do_bench_eval bench_* "
            "generate_samples num_generation_samples generation_* lm_eval_* dpo_generate_during_eval"
        ),
        "saving and publishing do not belong to a training step": (
            "output_dir hub_* save_* saves_per_epoch resume_from_checkpoint auto_resume_from_checkpoints load_best_model_at_end merge_lora merge_method "
            "dynamic_checkpoint fsdp_final_state_dict_type"
        ),
        "logging and reporting do not change memory": (
            "wandb_* use_wandb mlflow_* use_mlflow hf_mlflow* comet_* use_comet trackio_* use_trackio use_otel_metrics otel_* gradio_* logging_steps "
            "use_tensorboard include_tokens_per_second include_tkps profiler_* loss_watchdog_* swanlab* use_swanlab"
        ),
        "the loading of data takes host memory only": "dataloader_* accelerator_config",
        "it decides where and how the processes start": "use_ray ray_* resources_per_worker ddp_*",
        "it frees memory between steps and does not change the peak of one": "gc_steps torch_empty_cache_steps gc_collect_steps",
        "random numbers do not change memory": "seed",
        "the bytes are the same": "tf32 gpu_memory_limit max_memory",
        "an option of a method that another key switches on": (
            "chunked_cross_entropy_num_chunks tiled_mlp_num_shards tiled_mlp_use_original_mlp relora_* lisa_* pose_* heads_k_stride ring_attn_func "
            "liger_kernel_impl liger_use_token_scaling liger_rms_norm_gated fp8_config fp8_enable_fsdp_float8_all_gather flex_attn_compile_kwargs "
            "torch_compile_options scaling_softmax_factor scaling_softmax_bias grokfast_* expert_parallel_* nemo_gym_* diffusion hatchery mora llmcompressor spectrum_* kd_normalize_topk kd_online_* fp32_norm_classes "
            "gptq_ trl vllm nonexpert_quantization"
        ),
    },
    refused={
        "the batch is chosen during the run": "auto_find_batch_size",
        "adapters or weights are trained in turns, which is not modelled": "relora lisa_n_layers lisa_step_interval",
        "some parameters are frozen, which is not modelled": "unfrozen_parameters freeze_mm_modules",
        "an adapter that exists already is loaded, whose size is not read": "lora_model_dir",
        "the adapters are held in the host's memory, which is not modelled": "lora_on_cpu",
        "activations or layers are held in the host's memory, which is not modelled": "activation_offloading layer_offloading ple_cpu_offload selective_checkpointing",
        "weights are loaded in float32, or some are converted to it, which is not modelled": "float32 fp32_norms embeddings_skip_upcast",
        "8-bit floating point is not modelled": "fp8",
        "quantization-aware training and other quantizations are not modelled": (
            "qat quantization gptq model_quantization_config* bnb_config_kwargs use_onebitllms quantize_moe_experts peft"
        ),
        "the embeddings change their size, which is not modelled": "resize_token_embeddings_to_32x shrink_embeddings",
        "the model's configuration is changed, which is not modelled": "overrides_of_model_config overrides_of_model_kwargs rope_scaling cls_model_config",
        "another model than a causal language model is trained, which is not modelled": "reward_model process_reward_model num_labels ebft",
        "another attention is used, which is not modelled": (
            "s2_attention xformers_attention flex_attention flash_optimum sage_attention gemma4_hybrid_attn_impl large_head_attention flash_attn_d512 "
            "sdpa_varlen fused_attn_kernel flash_attn_fuse_mlp flash_attn_rms_norm scaling_softmax"
        ),
        "another loss is computed, which is not modelled": "flash_attn_cross_entropy use_eaft kd_trainer dpo_use_liger_kernel dpo_loss_type dpo_padding_free",
        "fused kernels for adapters are not modelled": "lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel",
        "the MLP is computed in parts, which is not modelled": "tiled_mlp",
        "tensor, sequence, context or sharded data parallelism of axolotl's own is not modelled": (
            "sequence_parallel_degree context_parallel_size tensor_parallel_size dp_shard_size dp_replicate_size deepcompile fsdp_version"
        ),
        "noise on the embeddings (NEFTune) is not modelled": "neftune_noise_alpha noisy_embedding_alpha",
        "positions are skipped, which is not modelled": "use_pose",
        "layers are repeated, or another initialisation is used, which is not modelled": "peft_layer_replication peft_init_lora_weights",
        "modules that are trained in full beside the adapters, in a dtype that axolotl chooses, are not modelled": "lora_modules_to_save",
        "rows of the embeddings are trained, which is not modelled": "peft_trainable_token_indices peft_ensure_weight_tying",
        "another implementation of the model is used, which is not modelled": (
            "use_kernels experts_implementation llama4_linearized_experts dense_mixer expert_* moe_* use_scattermoe use_sonicmoe use_dsv4* use_glm* dsv4* "
            "gemma4_fp8* gemma4_nf4*"
        ),
        "log-probabilities of a reference model are computed beforehand, which is not modelled": "precompute_ref_log_probs dpo_use_logits_to_keep",
    },
    refused_if={
        "tensor_parallel_size": Refused("tensor parallelism is not modelled", (None, 0, 1)),
        "context_parallel_size": Refused("context parallelism is not modelled", (None, 0, 1)),
        "sequence_parallel_degree": Refused("sequence parallelism is not modelled", (None, 0, 1)),
        "dp_shard_size": Refused("sharded data parallelism is not modelled", (None, 0, 1)),
        "gradient_checkpointing_kwargs": trainer.ARGUMENTS.refused_if["gradient_checkpointing_kwargs"],
    },
    labels={
        "sequence_len": "sequence_length",
        "sample_packing": "packing",
        "train_on_inputs": "train_on_prompt",
        "chat_template": "chat_template",
        "datasets": "datasets",
        "default_system_message": "system_prompt",
        "excess_length_strategy": "truncation",
        "min_sample_len": "truncation",
        **dict.fromkeys(("chat_template_jinja", "chat_template_kwargs"), "chat_template"),
        **dict.fromkeys(("eot_tokens", "special_tokens"), "eos_token"),
    },
    labels_refused=(
        "added_tokens_overrides curriculum_sampling dataset_exact_deduplication dataset_shard_idx dataset_shard_num max_packed_sequence_len "
        "pose_max_context_len pose_num_chunks pose_split_on_token_ids pretraining_dataset process_reward_model reward_model rl role_boundaries "
        "skip_prepare_dataset streaming tokenizer_legacy tokenizer_type tokenizer_use_mistral_common tokens val_set_size"
    ),
)
_CLASSES = (
    "AxolotlInputConfig", "LigerArgs", "CutCrossEntropyArgs", "DenseMixerArgs", "GrokfastArgs", "KDArgs", "KernelsArgs", "LMEvalArgs", "SpectrumArgs",
    "ExpertParallelArgs", "SwanLabConfig", "LLMCompressorArgs", "DiffusionArgs", "HatcheryArgs", "MoraArgs", "NemoGymArgs",
)  # fmt: skip
_LIGER = ("rope", "rms_norm", "layer_norm", "swiglu", "glu_activation", "cross_entropy")
_PLUGINS = {"liger", "cut_cross_entropy"}
MARKS = frozenset(
    "datasets sequence_len num_epochs optimizer lr_scheduler adapter sample_packing output_dir deepspeed micro_batch_size load_in_4bit load_in_8bit "
    "val_set_size dataset_prepared_path wandb_project lora_r rl plugins num_epochs flash_attention attn_implementation".split()
)


@cache
def _variant() -> Variant:
    keys = keys_of("axolotl", _CLASSES, (OWN,), aliases=declared("axolotl")["aliases"])
    optimizers = (*declared("transformers")["values"]["optim"], *declared("axolotl")["values"]["optimizer"])
    choices = {name: found for name, key in keys.items() if (found := literal_choices(key.type)) and name == "adapter"}
    return Variant(name="", keys=keys, choices={**choices, "optimizer": optimizers})


def variant(_value: Mapping[str, Any]) -> Variant:
    """Return the keys of AxolotlInputConfig and of the plugins' arguments."""
    return _variant()


def unknown(_key: str) -> KeyEffect:
    """Return what axolotl does with a key that it does not know: its pydantic models ignore it."""
    return "ignores"


def settle(normal: Normal) -> None:
    """Say what axolotl makes of its settings."""
    for name, value in (("batch", 1), ("sequence_length", 512), ("optimizer", "adamw_torch_fused")):
        if normal.values.get(name) is None:
            normal.put(name, value)
    if {"batch_size", "gradient_accumulation_steps"} <= normal.raw.keys():  # utils/schemas/validation.py:278
        raise QuestionError("batch_size: axolotl accepts only one of gradient_accumulation_steps and batch_size")
    if normal.get("objective") in ("sft", None):
        normal.drop("objective")
    normal.put("documents", "rows", normal.key("documents")) if normal.get("documents", False) else normal.drop("documents")
    _evaluation(normal)
    _precision(normal)
    _checkpointing(normal)
    _adapter(normal)
    _attention(normal)
    _float32_parts(normal)
    _plugins(normal)
    trainer.arguments(normal)


def _precision(normal: Normal) -> None:
    """bf16: auto is true on a GPU that has it; bf16: full loads bfloat16 and trains without autocast (core/builders/base.py)."""
    bf16, fp16 = normal.get("precision_bf16", "auto"), normal.get("precision_fp16", False)
    bf16_key, fp16_key = normal.key("precision_bf16"), normal.key("precision_fp16")
    half = fp16 != "full" and flag(fp16, "fp16")
    if bf16 == "auto":
        bf16 = not (half or fp16 == "full")
    pure = bf16 == "full" or normal.get("pure_bf16", False)
    mixed = bf16 != "full" and flag(bf16, "bf16")
    for name in ("precision_bf16", "precision_fp16"):
        normal.drop(name)
    bits = normal.get("load_in_8bit", False) or half or fp16 == "full" or normal.get("pure_fp16", False)
    normal.put("load_dtype", "bfloat16" if pure or mixed else "float16" if bits else "float32", bf16_key or fp16_key)
    for name in ("pure_bf16", "pure_fp16"):
        normal.drop(name)
    normal.put("bf16", mixed and not pure, bf16_key)
    normal.put("fp16", half and not mixed and not pure, fp16_key)


def _evaluation(normal: Normal) -> None:
    """A run evaluates if it has data for it, at the end of an epoch if nothing else is set (core/builders/base.py, _configure_eval)."""
    key = normal.key("eval_data") or normal.key("eval_share")
    data = bool(normal.get("eval_data")) or bool(normal.get("eval_share"))
    normal.put("evaluation", normal.get("evaluation", "epoch") if data else "no", normal.key("evaluation") or key if data else None)
    if normal.values.get("eval_batch") is None:
        normal.put("eval_batch", normal.get("batch"))
    for name in ("eval_data", "eval_share"):
        normal.drop(name)


def _checkpointing(normal: Normal) -> None:
    kind, key = normal.get("checkpointing_kind", False), normal.key("checkpointing_kind")
    normal.drop("checkpointing_kind")
    if kind in ("offload", "offload_disk", "unsloth"):
        normal.put("activation_offloading", True, key)
        kind = True
    normal.put("checkpointing", kind, key)


def _adapter(normal: Normal) -> None:
    kind, key = normal.get("adapter"), normal.key("adapter")
    if kind in ("lora", "qlora"):
        normal.put("adapter", "lora", key)
        if normal.get("lora_all_linear", False):
            normal.put("lora_targets", "all-linear", normal.key("lora_all_linear"))
        if _switches_kernels_on(normal, kind):
            normal.assumed["LoRA kernels (lora_mlp_kernel, ...)"] = "off; axolotl 0.19.0 switches them on here, and they hold less"
            normal.limits.append("axolotl's LoRA kernels, which hold less, are not modelled")
    normal.put("prepared", False)  # norms and embeddings go back to the dtype of the model: _float32_parts
    normal.drop("lora_all_linear")
    if kind is None:
        for name in [name for name in normal.values if name.startswith("lora_")]:
            normal.drop(name)
    if kind == "qlora" and not normal.get("load_in_8bit", False) and "load_in_4bit" not in normal.values:
        normal.put("load_in_4bit", True, key)
    for bits, name in ((4, "load_in_4bit"), (8, "load_in_8bit")):
        if normal.get(name, False):
            normal.put("quantization_bits", bits, normal.key(name))
            normal.put("quantization_method", "bitsandbytes")
            normal.put("quantization_type", "nf4")
            normal.put("quantization_double", True)
        normal.drop(name)


_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")


def _switches_kernels_on(normal: Normal, adapter: str) -> bool:
    """Return whether axolotl switches its kernels for adapters on by itself (utils/schemas/config.py, check_auto_enable_lora_kernels)."""
    raw = normal.raw
    held = any(raw.get(name) is not None for name in _KERNELS)
    return not (held or raw.get("rl") or raw.get("trust_remote_code") or (adapter == "lora" and raw.get("load_in_8bit")))


def _float32_parts(normal: Normal) -> None:
    """Norms, embeddings and the output layer become float32, and go back to the dtype of the model for adapters and for other attentions than
    eager and sdpa (loaders/model.py, _configure_embedding_dtypes; utils/schemas/enums.py, ATTN_IMPLS_WITHOUT_DTYPE_CAST).
    """
    whole = normal.is_neutral("adapter") and normal.get("attention") in (None, "sdpa", "eager")
    if whole and normal.get("load_dtype") != "float32" and normal.is_neutral("fsdp_config"):
        normal.put(
            "float32_parts", "norms, embeddings and output layer: with eager, sdpa or no attn_implementation, axolotl 0.19.0 converts them"
        )


def _attention(normal: Normal) -> None:
    for name, implementation in (("flash", "flash_attention_2"), ("sdpa", "sdpa"), ("eager", "eager")):
        if normal.get(f"attention_{name}", False) and normal.values.get("attention") is None:
            normal.put("attention", implementation, normal.key(f"attention_{name}"))
        normal.drop(f"attention_{name}")


def _plugins(normal: Normal) -> None:
    """Arguments of a plugin have an effect if the plugin is listed."""
    names = [str(name).lower() for name in normal.get("plugins") or ()]
    key = normal.key("plugins")
    liger, cut = any("liger" in name for name in names), any("cut_cross_entropy" in name for name in names)
    rest = [name for name in names if not any(known in name for known in _PLUGINS)]
    normal.drop("plugins")
    if rest:
        normal.put("plugins", rest, key)
    if liger:
        _liger(normal)
    if cut and normal.get("cut_cross_entropy", True):
        normal.put("fused_loss", "cut_cross_entropy", normal.key("cut_cross_entropy") or key)
    elif normal.get("fused_loss_chunked", False):
        normal.put("fused_loss", "chunked", normal.key("fused_loss_chunked"))
    for name in ("cut_cross_entropy", "liger_fused_linear_cross_entropy", "fused_loss_chunked", *(f"liger_{one}" for one in _LIGER)):
        normal.drop(name)


def _liger(normal: Normal) -> None:
    """Say which of Liger's kernels run: each has a switch of its own that is off (integrations/liger/plugin.py); rope alone holds what torch holds."""
    on = {name for name in ("fused_linear_cross_entropy", *_LIGER) if normal.get(f"liger_{name}", False)} - {"rope"}
    keys = {name: normal.key(f"liger_{name}") for name in sorted(on)}
    gated, loss = {"swiglu", "glu_activation"} & on, "fused_linear_cross_entropy" in on
    if loss and gated and "rms_norm" in on and "cross_entropy" not in on:
        normal.put("liger", True, keys["fused_linear_cross_entropy"])
    elif on == {"fused_linear_cross_entropy"}:
        normal.put("fused_loss", "liger", keys["fused_linear_cross_entropy"])
    elif on:
        normal.put("liger_parts", dict.fromkeys(sorted(on), True), next(iter(keys.values())))


def is_axolotl(value: Any) -> bool:
    """Return whether `value` has axolotl's names: a base_model and at least two of its own keys."""
    return isinstance(value, dict) and "base_model" in value and len(MARKS & value.keys()) >= 2


FORMAT = Format(
    name="axolotl",
    title="axolotl configuration",
    library="axolotl",
    version=declared("axolotl")["version"],
    recognise=is_axolotl,
    variant=variant,
    settle=settle,
    unknown=unknown,
    renames={"per_device_train_batch_size": "micro_batch_size"},
)
