"""ms-swift's arguments (`swift sft FILE`, and args.json of its checkpoints). Read in ms-swift 4.6.0: arguments, pipelines/train/tuner.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs import trainer
from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import Meanings, declared, keys_of, removed_keys
from llmdoctor.configs.types import Format, Refused, Variant

OWN = Meanings(
    uses={
        "tuner_type": "adapter",
        "train_type": "adapter",
        "rlhf_type": "objective",
        "max_length": "sequence_length",
        "torch_dtype": "load_dtype",
        "attn_impl": "attention",
        "lora_rank": "lora_rank",
        "lora_dropout": "lora_dropout",
        "lora_bias": "lora_bias",
        "target_modules": "lora_targets",
        "target_regex": "lora_regex",
        "target_parameters": "lora_parameters",
        "use_dora": "lora_dora",
        "quant_method": "quantization_method",
        "quant_bits": "quantization_bits",
        "bnb_4bit_quant_type": "quantization_type",
        "bnb_4bit_use_double_quant": "quantization_double",
        "bnb_4bit_compute_dtype": "quantization_compute",
        "bnb_4bit_quant_storage": "quantization_storage",
        "use_galore": "galore",
        "optimizer": "optimizer_plugin",
        "split_dataset_ratio": "eval_share",
        "val_dataset": "eval_data",
    },
    ignored={
        "rows are filled up to the length that is predicted": "packing packing_*",
        "a batch without padding holds no more tokens than full rows": "padding_side padding_free",
        "it names the model, its files or where it is loaded": (
            "model model_type model_revision model_name model_author local_repo_path use_hf hub_token custom_register_path external_plugins "
            "device_map max_memory max_model_len init_strategy model_kwargs_ load_args load_data_args add_version check_model safe_serialization "
            "max_shard_size enable_npu_model_patch ignore_args_error tuner_backend_"
        ),
        "it names the data or decides how examples become tokens": (
            "dataset* val_dataset_* cached_* load_from_cache_file streaming interleave_prob stopping_strategy shuffle_buffer_size "
            "download_mode columns strict disable_auto_column_mapping custom_dataset_info template template_backend system truncation_strategy "
            "agent_template norm_bbox use_chat_template loss_scale is_binary_loss_scale response_prefix enable_thinking preserve_thinking "
            "add_non_thinking_prefix disable_ignore_empty_think lazy_tokenize decision_* new_special_tokens_ train_dataloader_shuffle"
        ),
        "the size of an image is given by --image": "max_pixels",
        "it is an option of inference": "max_new_tokens temperature top_k top_p repetition_penalty num_beams stream stop_words logprobs top_logprobs structured_outputs_regex",
        "an option of a method that another key switches on": (
            "ray_exp_name device_groups galore_* lisa_step_interval lora_ga_* fourier_* boft_* vera_* adapter_act adapter_length adalora_* llamapro_* reft_* hqq_axis"
        ),
        "a factor of the adapters' output, or a learning rate": "lora_alpha use_rslora lorap_lr_ratio aligner_lr vit_lr router_aux_loss_coef",
        "it does not change what one batch of the evaluation holds": "eval_* extra_eval_args early_stop_interval acc_strategy",
        "logging and reporting do not change memory": "swanlab_* logging_dir create_checkpoint_symlink callbacks",
        "saving does not belong to a training step": "resume_only_model use_flash_ckpt ds3_gather_for_generation",
        "the number of steps does not change what one step holds": "max_epochs",
        "a factor of the loss": (
            "beta label_smoothing_ rpo_alpha ld_alpha discopop_tau loss_weights cpo_alpha simpo_gamma desirable_weight undesirable_weight "
            "center_rewards_coefficient sft_alpha"
        ),
    },
    refused={
        "modules that are trained in full beside the adapters, in a dtype that ms-swift chooses, are not modelled": "modules_to_save",
        "an adapter that exists already is loaded, whose size is not read": "adapters",
        "some parameters are frozen or trained, which is not modelled": (
            "freeze_parameters freeze_parameters_regex freeze_parameters_ratio trainable_parameters trainable_parameters_regex freeze_llm lisa_activated_layers"
        ),
        "sequence or tensor parallelism is not modelled": "sequence_parallel_size deepspeed_autotp_size",
        "another loss is computed, which is not modelled": "enable_dft_loss enable_channel_loss loss_type use_logits_to_keep mrl_dims",
        "another implementation of adapters is used, which is not modelled": "use_swift_lora lora_dtype",
        "positions are scaled, which can change what the model keeps": "rope_scaling",
        "the model is changed, which is not modelled": "num_labels problem_type new_special_tokens model_kwargs experts_impl",
        "a second shard of the weights (ZeRO++ hpZ) is not modelled": "zero_hpz_partition_size",
    },
    refused_if={
        "tuner_backend": Refused("another implementation of adapters is used, which is not modelled", ("peft", None)),
        "sequence_parallel_size": Refused("sequence parallelism is not modelled", (1, None)),
        "task_type": Refused("another head is trained than that of a causal language model, which is not modelled", ("causal_lm", None)),
        **dict.fromkeys(
            ("freeze_vit", "freeze_aligner"), Refused("parts beside the language model are trained, which is not modelled", (True, None))
        ),
        "vit_gradient_checkpointing": Refused("the vision tower is not recomputed, which is not modelled", (True, None)),
        "init_weights": Refused("this initialisation changes the base weights, which is not modelled", ("true", "false", "gaussian", None)),
    },
    labels={
        "max_length": "sequence_length",
        "packing": "packing",
        "template": "chat_template",
        "system": "system_prompt",
        "loss_scale": "loss_scale",
        "truncation_strategy": "truncation",
        "use_chat_template": "chat_template",
        "enable_thinking": "thinking",
        "preserve_thinking": "thinking",
        "add_non_thinking_prefix": "thinking",
        "disable_ignore_empty_think": "thinking",
    },
    labels_refused=(
        "agent_template cached_dataset columns custom_register_path disable_auto_column_mapping external_plugins max_model_len new_special_tokens "
        "rlhf_type strict streaming task_type template_backend"
    ),
)
TABLES = (OWN, trainer.ARGUMENTS)
OBJECTIVES = {"SftArguments": "sft", "RLHFArguments": "dpo"}
_REMOVED = {"train_type": "tuner_type", "sft_type": "tuner_type"}  # spellings of older releases
_ATTENTION = {
    "flash_attn": "flash_attention_2", "flash_attention_2": "flash_attention_2", "flash_attention_3": "flash_attention_3", "sdpa": "sdpa", "eager": "eager",
}  # fmt: skip
_TUNERS = {"tuner_type", "train_type", "sft_type"}  # names that no other framework has
MARKS = frozenset(
    "tuner_type train_type sft_type split_dataset_ratio target_modules lora_rank attn_impl template agent_template tuner_backend rlhf_type freeze_vit "
    "quant_bits quant_method loss_scale max_pixels dataset_num_proc load_from_cache_file".split()
)


@cache
def variant_of(name: str) -> Variant:
    """Return the keys of SftArguments or RLHFArguments."""
    keys = {**removed_keys("transformers", TABLES), **keys_of("ms_swift", (name,), TABLES)}
    for old, new in _REMOVED.items():
        keys[old] = keys[new].__class__(name=old, type=keys[new].type, meanings=keys[new].meanings, removed="ms-swift 3")
    return Variant(
        name=name,
        keys=keys,
        choices=trainer.variant_of().choices,
        facts={"objective": OBJECTIVES[name]},
        renamed={**trainer.RENAMED, **_REMOVED},
    )


def variant(value: Mapping[str, Any]) -> Variant:
    """Return the class that reads `value`."""
    own = variant_of("RLHFArguments").keys.keys() - variant_of("SftArguments").keys.keys()
    return variant_of("RLHFArguments" if own & value.keys() else "SftArguments")


def settle(normal: Normal) -> None:
    """Say what ms-swift makes of its arguments: LoRA on all linear layers, gradient checkpointing, bf16 if the model is in bfloat16."""
    for name, value in (("batch", 1), ("checkpointing", True)):
        if normal.values.get(name) is None:
            normal.put(name, value)
    if normal.values.get("accumulation") is None:
        normal.put("accumulation", max(1, math.ceil(16 / normal.get("batch"))))
    if normal.values.get("weight_decay") is None:
        normal.put("weight_decay", 0.1)
    given = normal.get("attention")
    if given is not None:
        normal.put("attention", _ATTENTION.get(given, given), normal.key("attention"))
    _evaluation(normal)
    _precision(normal)
    _adapter(normal)
    if normal.is_neutral("quantization_bits"):
        for name in [name for name in normal.values if name.startswith("quantization_")]:
            normal.drop(name)
    else:
        method = normal.get("quantization_method", "bnb")
        normal.put("quantization_method", "bitsandbytes" if method == "bnb" else method, normal.key("quantization_method"))
        if normal.values.get("quantization_double") is None:
            normal.put("quantization_double", True)
    normal.put("prepared", False)  # no call of prepare_model_for_kbit_training
    normal.put("text_only", True)  # freeze_vit and freeze_aligner
    if normal.get("galore", False):
        normal.put("optimizer", "galore_adamw", normal.key("galore"))
    normal.drop("galore")
    named = normal.get("deepspeed")
    known: dict[str, Any] = declared("ms_swift")["values"]["deepspeed"]
    if isinstance(named, str) and named in known:
        normal.put("deepspeed", known[named], normal.key("deepspeed"))
    trainer.arguments(normal)


def _evaluation(normal: Normal) -> None:
    """A run with data for it evaluates whenever it saves, one sequence at once (arguments/sft_args.py, _init_eval_strategy)."""
    key = normal.key("eval_data") or normal.key("eval_share")
    data = bool(normal.get("eval_data")) or bool(normal.get("eval_share"))
    normal.put("evaluation", normal.get("evaluation", "steps") if data else "no", normal.key("evaluation") or key if data else None)
    if normal.values.get("eval_batch") is None:
        normal.put("eval_batch", 1)
    for name in ("eval_data", "eval_share"):
        normal.drop(name)


def _precision(normal: Normal) -> None:
    """Without bf16 and fp16, the dtype of the model decides (arguments/base_args/model_args.py:129)."""
    loaded = normal.get("load_dtype")
    if normal.values.get("bf16") is None and normal.values.get("fp16") is None:
        normal.put("bf16", loaded in (None, "bfloat16"))
        normal.put("fp16", loaded in ("float16", "float32"))
        if loaded is None:
            normal.put("load_dtype", "bfloat16")


def _adapter(normal: Normal) -> None:
    kind, key = str(normal.get("adapter", "lora")), normal.key("adapter")
    if kind == "full":
        for name in [name for name in normal.values if name.startswith("lora_")]:
            normal.drop(name)
        normal.put("adapter", "none", key)
        return
    normal.put("adapter", kind, key)
    regex = normal.get("lora_regex")
    if regex:
        normal.put("lora_targets", regex, normal.key("lora_regex"))
    normal.drop("lora_regex")
    if normal.get("lora_targets") in (None, ["all-linear"], "all-linear"):
        normal.put("lora_targets", "all-linear", normal.key("lora_targets"))
    for name, value in (("lora_rank", 8), ("lora_dropout", 0.05)):
        if normal.values.get(name) is None:
            normal.put(name, value)


def is_swift(value: Any) -> bool:
    """Return whether `value` has ms-swift's names: a model, and its name for the kind of tuning or two others of its own."""
    return (
        isinstance(value, dict)
        and "model" in value
        and isinstance(value["model"], str)
        and (len(MARKS & value.keys()) >= 2 or bool(_TUNERS & value.keys()))
    )


FORMAT = Format(
    name="ms-swift",
    title="ms-swift arguments",
    library="ms-swift",
    version=declared("ms_swift")["version"],
    recognise=is_swift,
    variant=variant,
    settle=settle,
)
