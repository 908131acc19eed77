"""LLaMA-Factory's configuration (`llamafactory-cli train FILE`). Read in llamafactory 0.9.5: hparams/parser.py, model/adapter.py, model/patcher.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs import trainer
from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import Meanings, declared, keys_of, removed_keys
from llmdoctor.configs.types import Format, Refused, Variant
from llmdoctor.core.errors import QuestionError

OWN = Meanings(
    uses={
        "stage": "objective",
        "finetuning_type": "adapter",
        "cutoff_len": "sequence_length",
        "pure_bf16": "pure_bf16",
        "flash_attn": "attention",
        "disable_gradient_checkpointing": "no_checkpointing",
        "enable_liger_kernel": "liger",
        "quantization_bit": "quantization_bits",
        "quantization_method": "quantization_method",
        "quantization_type": "quantization_type",
        "double_quantization": "quantization_double",
        "lora_rank": "lora_rank",
        "lora_target": "lora_targets",
        "lora_dropout": "lora_dropout",
        "use_dora": "lora_dora",
        "use_galore": "galore",
        "use_apollo": "apollo",
        "use_badam": "badam",
        "use_adam_mini": "adam_mini",
        "use_muon": "muon",
    },
    ignored={
        "rows are filled up to the length that is predicted": "packing neat_packing",
        "it names the model, its files or where it is loaded": (
            "model_name_or_path adapter_folder cache_dir use_fast_tokenizer model_revision low_cpu_mem_usage offload_folder hf_hub_token ms_hub_token "
            "om_hub_token trust_remote_code print_param_status quantization_device_map device_map add_tokens add_special_tokens "
            "new_special_tokens_config init_special_tokens split_special_tokens use_kv_cache"
        ),
        "it is an option of inference or export": (
            "infer_* export_* vllm_* sglang_* do_sample temperature top_p top_k num_beams max_length max_new_tokens repetition_penalty length_penalty "
            "skip_special_tokens"
        ),
        "it names the data or decides how examples become tokens": (
            "template dataset eval_dataset dataset_dir media_dir train_on_prompt mask_history streaming buffer_size mix_strategy interleave_probs "
            "overwrite_cache preprocessing_* max_samples ignore_pad_token_for_loss val_size tool_format default_system "
            "enable_thinking preserve_thinking tokenized_path data_shared_file_system disable_shuffling"
        ),
        "the size of an image is given by --image": "image_* video_* audio_* crop_to_patches use_audio_in_video fps frames",
        "a factor of the adapters' output, or a learning rate": "lora_alpha use_rslora loraplus_*",
        "a factor of the loss": "pref_beta pref_ftx pref_bco_weight dpo_label_smoothing kto_* simpo_gamma ld_alpha ppo_target asft_alpha eaft_alpha",
        "an option of a method that another key switches on": (
            "galore_* apollo_* badam_* freeze_trainable_layers freeze_trainable_modules freeze_extra_modules oft_* module_dropout ppo_* pissa_iter "
            "pissa_convert pref_loss reward_model_type kt_* fp8_backend fp8_enable_fsdp_float8_all_gather hyper_parallel_args "
            "use_reentrant_gc"
        ),
        "logging and reporting do not change memory": "plot_loss compute_accuracy include_effective_tokens_per_second use_swanlab swanlab_* early_stopping_steps",
        "it decides where and how the processes start": "ray_* master_addr master_port placement_strategy resources_per_worker",
        "profiling does not belong to the answer": "enable_torch_profiler profiler_* profile_modules",
        "saving and publishing do not belong to a training step": "overwrite_output_dir",
    },
    refused={
        "modules that are trained in full beside the adapters, in a dtype that LLaMA-Factory chooses, are not modelled": "additional_target",
        "an adapter that exists already is loaded, whose size is not read": "adapter_name_or_path create_new_adapter",
        "a second model beside the trained one is not modelled": "ref_model* reward_model*",
        "another implementation of the model or of training is used, which is not modelled": (
            "use_unsloth use_unsloth_gc shift_attn mixture_of_depths use_kt use_mca use_hyper_parallel fp8 use_llama_pro"
        ),
        "the embeddings grow, which is not modelled": "resize_vocab",
        "the router's logits are kept for a loss of their own, which is not modelled": "moe_aux_loss_coef",
        "the weights are made, not loaded, in a dtype that is not read": "train_from_scratch",
        "positions are scaled, which can change what the model keeps": "rope_scaling",
        "some weights or outputs are converted to float32, which is not modelled": "upcast_layernorm upcast_lmhead_output",
        "another loss is computed, which is not modelled": "use_dft_loss use_asft_loss use_eaft_loss",
        "the language model is frozen, which is not modelled": "freeze_language_model",
        "another initialisation computes decompositions, which is not modelled": "pissa_init",
    },
    refused_if={
        "freeze_vision_tower": Refused("the vision tower is trained, which is not modelled", (True, None)),
        "freeze_multi_modal_projector": Refused("the projector of images is trained, which is not modelled", (True, None)),
    },
    labels={
        "cutoff_len": "sequence_length",
        "packing": "packing",
        "neat_packing": "packing",
        "template": "chat_template",
        "train_on_prompt": "train_on_prompt",
        "mask_history": "mask_history",
        "default_system": "system_prompt",
        "enable_thinking": "thinking",
        "preserve_thinking": "thinking",
        "tool_format": "tool_format",
    },
    labels_refused=(
        "add_special_tokens add_tokens interleave_probs max_samples mix_strategy new_special_tokens_config split_special_tokens stage streaming "
        "tokenized_path val_size"
    ),
)
TABLES = (OWN, trainer.ARGUMENTS)
CLASSES = ("ModelArguments", "DataArguments", "FinetuningArguments", "GeneratingArguments", "TrainingArguments")
_ATTENTION = {"auto": None, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3"}
_OBJECTIVES = {"pt": "pretraining", "sft": "sft", "rm": "reward"}
_METHODS = {"bnb": "bitsandbytes", "bitsandbytes": "bitsandbytes"}
_OPTIMIZERS = {"galore": "galore_adamw", "apollo": "apollo_adamw", "badam": "badam", "adam_mini": "adam_mini", "muon": "muon"}
MARKS = frozenset(
    "finetuning_type cutoff_len lora_target lora_rank dataset_dir stage template freeze_trainable_layers quantization_bit pure_bf16".split()
)


@cache
def _variant() -> Variant:
    keys = {**removed_keys("transformers", TABLES), **keys_of("llamafactory", CLASSES, TABLES)}
    return Variant(name="", keys=keys, choices=trainer.variant_of().choices, renamed=trainer.RENAMED)


def variant(_value: Mapping[str, Any]) -> Variant:
    """Return the keys of LLaMA-Factory's five classes of arguments."""
    return _variant()


def settle(normal: Normal) -> None:
    """Say what LLaMA-Factory does with its arguments, in the order of hparams/parser.py and model/adapter.py."""
    if str(normal.raw.get("do_train", False)).lower() not in ("true", "1", "yes"):
        normal.limits.append("without do_train: true, which the file does not set, LLaMA-Factory trains nothing")
    normal.put("prepared", False)  # no call of prepare_model_for_kbit_training
    normal.put("text_only", True)  # freeze_vision_tower and freeze_multi_modal_projector
    stage = normal.get("objective", "sft")
    normal.put("objective", _OBJECTIVES.get(stage, stage), normal.key("objective"))
    if normal.values.get("sequence_length") is None:
        normal.put("sequence_length", 2048)
    _precision(normal)
    _adapter(normal)
    _quantization(normal)
    given = normal.get("attention", "auto")
    if given not in _ATTENTION:
        raise QuestionError(f"flash_attn: {given!r} is none of {', '.join(_ATTENTION)}")
    normal.put("attention", _ATTENTION[given], normal.key("attention"))
    if not normal.get("no_checkpointing", False):
        normal.put("checkpointing", True, normal.key("checkpointing"))
    elif not normal.get("checkpointing", False):
        normal.put("checkpointing", False, normal.key("no_checkpointing"))
    normal.drop("no_checkpointing")
    for name, optimizer in _OPTIMIZERS.items():
        if normal.get(name, False):
            normal.put("optimizer", optimizer, normal.key(name))
        normal.drop(name)
    trainer.arguments(normal)


def _precision(normal: Normal) -> None:
    """The model is loaded in the dtype of the computation; what is trained becomes float32 unless pure_bf16 is set (model/adapter.py:313)."""
    pure = normal.get("pure_bf16", False)
    compute = "bfloat16" if pure or normal.get("bf16", False) else "float16" if normal.get("fp16", False) else "float32"
    key = normal.key("pure_bf16") if pure else normal.key("bf16") or normal.key("fp16")
    normal.drop("pure_bf16")
    whole = normal.get("adapter", "lora") == "full" and not pure
    normal.put("load_dtype", "float32" if whole else compute, key)
    if not pure:
        normal.put("trained_dtype", "float32")


def _adapter(normal: Normal) -> None:
    kind, key = normal.get("adapter", "lora"), normal.key("adapter")
    if kind == "full":
        for name in [name for name in normal.values if name.startswith("lora_")]:
            normal.drop(name)
        normal.put("adapter", "none", key)
        return
    normal.put("adapter", kind, key)
    if kind == "lora":
        targets = normal.get("lora_targets", "all")
        whole = targets in ("all", ["all"])
        normal.put(
            "lora_targets",
            "all-linear" if whole else targets.split(",") if isinstance(targets, str) else targets,
            normal.key("lora_targets"),
        )
        if normal.values.get("lora_rank") is None:
            normal.put("lora_rank", 8)


def _quantization(normal: Normal) -> None:
    if normal.is_neutral("quantization_bits"):
        for name in ("quantization_bits", "quantization_method", "quantization_type", "quantization_double"):
            normal.drop(name)
        return
    method = normal.get("quantization_method", "bnb")
    normal.put("quantization_method", _METHODS.get(str(method).lower(), method), normal.key("quantization_method"))
    if normal.values.get("quantization_double") is None:
        normal.put("quantization_double", True)
    if normal.values.get("quantization_type") is None:
        normal.put("quantization_type", "nf4")


def is_llamafactory(value: Any) -> bool:
    """Return whether `value` has keys of LLaMA-Factory's: at least one that decides how it trains, beside a model or arguments of the Trainer."""
    if not isinstance(value, dict) or "base_model" in value:
        return False
    marks = MARKS & value.keys()
    return len(marks) >= 2 or (bool(marks - {"template", "stage"}) and ("model_name_or_path" in value or trainer.is_arguments(value)))


FORMAT = Format(
    name="llamafactory",
    title="LLaMA-Factory configuration",
    library="llamafactory",
    version=declared("llamafactory")["version"],
    recognise=is_llamafactory,
    variant=variant,
    settle=settle,
)
