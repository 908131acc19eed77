"""TRL's configurations, as `trl sft --config FILE` and its other commands read them. Read in trl 1.0.0: trainer/base_config.py, scripts/utils.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from llmdoctor.configs import handbook, trainer
from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import NO_TARGETS, Meanings, declared, fields_of, keys_of, meaning_of, removed_keys
from llmdoctor.configs.types import Format, Ignored, Key, Meaning, Purpose, Uses, Variant
from llmdoctor.core.errors import QuestionError

MODEL = Meanings(
    uses={
        "dtype": "load_dtype",
        "torch_dtype": "load_dtype",
        "attn_implementation": "attention",
        "use_peft": "adapter",
        "lora_r": "lora_rank",
        "lora_dropout": "lora_dropout",
        "lora_target_modules": "lora_targets",
        "lora_target_parameters": "lora_parameters",
        "lora_modules_to_save": "lora_modules_to_save",
        "use_dora": "lora_dora",
        "load_in_8bit": "load_in_8bit",
        "load_in_4bit": "load_in_4bit",
        "bnb_4bit_quant_type": "quantization_type",
        "use_bnb_nested_quant": "quantization_double",
        "bnb_4bit_quant_storage": "quantization_storage",
    },
    ignored={
        "it names the model or its code": "model_name_or_path model_revision trust_remote_code",
        "a factor of the adapters' output": "lora_alpha use_rslora",
        "it does not change the adapters' size": "lora_task_type",
        "it names the data": "dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming datasets streaming test_split_size",
        "buffers are not counted by DistributedDataParallel": "ignore_bias_buffers",
        "the environment of the process": "env",
    },
)
TRAINERS = Meanings(
    uses={
        "max_length": "sequence_length",
        "max_seq_length": "sequence_length",
        "loss_type": "loss_type",
        "precompute_ref_log_probs": "precomputed_reference",
        "packing": "packing",
        "packing_strategy": "packing_strategy",
        "padding_free": "padding_free",
        "activation_offloading": "activation_offloading",
    },
    ignored={
        "lengths that are rounded up hold no more tokens than full rows": "pad_to_multiple_of",
        "it decides how examples become tokens, not how many are held": (
            "dataset_text_field dataset_kwargs dataset_num_proc dataset_batch_size chat_template_kwargs eos_token pad_token "
            "padding_value truncation_mode shuffle_dataset completion_only_loss assistant_only_loss eval_packing tools label_pad_token_id "
            "is_encoder_decoder num_of_sequences chars_per_token skip_prepare_dataset"
        ),
        "a factor of the loss": (
            "beta label_smoothing loss_weights ld_alpha f_divergence_type f_alpha_divergence_coef use_weighting discopop_tau rpo_alpha "
            "desirable_weight undesirable_weight center_rewards_coefficient cpo_alpha simpo_gamma alpha_scale epsilon epsilon_high delta "
            "scale_rewards reward_weights multi_objective_aggregation importance_sampling_level"
        ),
        "log-probabilities of the reference model are computed before the first step, which holds less": "precompute_ref_batch_size",
        "max_length holds for the prompt and the answer together": "max_prompt_length",
        "logging and reporting do not change memory": "log_completions* num_completions_to_print log_unique_prompts wandb_log_unique_prompts exp_name",
    },
    refused={
        "generation during training is not modelled": (
            "num_generations* max_completion_length max_new_tokens use_vllm vllm_* use_transformers_paged cache_implementation generation_* "
            "steps_per_generation num_iterations temperature top_p top_k min_p repetition_penalty max_tool_calling_iterations response_length "
            "missing_eos_penalty stop_token* local_rollout_forward_batch_size"
        ),
        "the embeddings can be resized for the tokens of another chat template, which is not modelled": "chat_template_path",
        "a second model that follows the trained one is not modelled": "sync_ref_model ref_model_*",
        "the language model head computes in float32, which is not modelled": "cast_lm_head_to_fp32",
        "a chunked or fused loss of TRL's is not modelled": "use_liger_loss use_liger",
    },
    labels={
        "max_length": "sequence_length",
        "max_seq_length": "sequence_length",
        "packing": "packing",
        "packing_strategy": "packing_strategy",
        "padding_free": "padding_free",
        "pad_to_multiple_of": "length_multiple",
        "completion_only_loss": "completion_only",
        "assistant_only_loss": "assistant_only",
        "dataset_text_field": "text_column",
        "chat_template_path": "chat_template",
        "eos_token": "eos_token",
        "pad_token": "pad_token",
        "truncation_mode": "truncation",
        "max_prompt_length": "prompt_length",
    },
    labels_refused="center_rewards_coefficient dataset_kwargs datasets shuffle_dataset tools",
)
TABLES = (trainer.ARGUMENTS, MODEL, TRAINERS)
OBJECTIVES = {  # the class: what it trains; the first that has the most keys of a file reads it
    "SFTConfig": "sft", "DPOConfig": "dpo", "GRPOConfig": "grpo", "RewardConfig": "reward", "RLOOConfig": "rloo", "KTOConfig": "kto", "ORPOConfig": "orpo",
    "CPOConfig": "cpo", "GKDConfig": "gkd", "OnlineDPOConfig": "online dpo", "PPOConfig": "ppo", "NashMDConfig": "nash md", "XPOConfig": "xpo",
    "PRMConfig": "process reward", "BCOConfig": "bco",
}  # fmt: skip
RENAMED = {**trainer.RENAMED, "max_seq_length": "max_length", "torch_dtype": "dtype", "use_liger": "use_liger_kernel"}
# Defaults of the releases that had the names of older ones still (trl 0.12.2 and 0.19.1), where they differ from those of 1.0.0.
OLD_DEFAULTS = {
    "trl 0.19.1": {"gradient_checkpointing": False},
    "trl 0.12.2": {"gradient_checkpointing": False, "bf16": False},
    "transformers 4.44.2": {"gradient_checkpointing": False, "bf16": False},
}
_OWNERS = {"max_seq_length": "SFTConfig"}  # settings of older releases that one class had
_MIXTURE = ("datasets", "streaming", "test_split_size", "env")
WITH_REFERENCE = frozenset({"dpo", "kto", "bco"})
# Losses that hold no more than the class's default one: those of DPO are computed from one number per sequence (trainer/dpo_trainer.py:1250).
NEUTRAL_LOSSES = {
    "KTOConfig": ("kto",),
    "SFTConfig": ("nll",),
    "DPOConfig": (
        "nll", "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop",
    ),
}  # fmt: skip


@cache
def variant_of(name: str) -> Variant:
    """Return the keys that a file for the class `name` may have: its own, ModelConfig's, ScriptArguments'."""
    keys = {
        **removed_keys("transformers", TABLES),
        **removed_keys("trl", TABLES),
        **keys_of("trl", ("ScriptArguments", "ModelConfig", name), TABLES),
    }
    keys |= keys_of("trl", (name,), TABLES)
    for key in _MIXTURE:
        meaning = MODEL.memory(key) or Ignored("")
        keys[key] = Key(name=key, meanings={"memory": meaning, "labels": meaning_of(key, TABLES)["labels"]})
    keys |= {key: value for key, value in trainer.variant_of().keys.items() if key.startswith(("model_init", "client_optimizer"))}
    keys |= model_kwargs(loads=False)
    keys["model_init_kwargs"] = Key(name="model_init_kwargs", meanings={"memory": _UNUSED, "labels": NO_TARGETS})
    if name == "DPOConfig":
        for key in ("model_init_kwargs.dtype", "model_init_kwargs.torch_dtype"):  # trainer/dpo_trainer.py:753: the reference model alone
            keys[key] = Key(name=key, meanings={"memory": Uses("reference_dtype"), "labels": NO_TARGETS})
    return Variant(name=name, keys=keys, choices=trainer.variant_of().choices, facts={"objective": OBJECTIVES[name]}, renamed=RENAMED)


_UNUSED = Ignored("the commands of TRL load the model themselves, as dtype, attn_implementation and load_in_4bit of the same file say")


def model_kwargs(*, loads: bool = True) -> dict[str, Key]:
    """Return the keys of model_init_kwargs, which TRL's trainers pass to from_pretrained if a script gives them the name of a model.

    `loads` is false for a file of `trl sft` and its other commands, which give the trainer a loaded model (trl 1.0.0, scripts/sft.py:103).
    """
    own = {key: value for key, value in trainer.OURS.items() if key.startswith("model_init.")}
    found = {key.replace("model_init.", "model_init_kwargs.", 1): value.meanings for key, value in own.items()}
    unused: Mapping[Purpose, Meaning] = {"memory": _UNUSED, "labels": NO_TARGETS}
    return {key: Key(name=key, meanings=meanings if loads else unused) for key, meanings in found.items()}


def variant(value: Mapping[str, Any]) -> Variant:
    """Return the class that has the most of the file's keys: SFTConfig if several have all of them."""
    counts = {name: _shared(variant_of(name), value) for name in OBJECTIVES}
    first, *others = [name for name, count in counts.items() if count == max(counts.values())]
    found = variant_of(first)
    others = [name for name in others if not variant_of(name).keys.keys() >= found.keys.keys()]  # GKDConfig extends SFTConfig
    if others:
        several = f"{', '.join(others[:2])} and {len(others) - 2} more" if len(others) > 3 else " and ".join(others)
        found = replace(found, limits=(f"read as {first}: {several} {'have' if len(others) > 1 else 'has'} all these settings too",))
    return replace(found, keys={**handbook.keys(), **found.keys}) if handbook.MARKS & value.keys() else found


def _shared(one: Variant, value: Mapping[str, Any]) -> int:
    return sum(key in one.keys and (one.keys[key].removed is None or _OWNERS.get(key) == one.name) for key in value)


@cache
def own_keys() -> frozenset[str]:
    """Return the keys that some class of TRL's has and TrainingArguments has not."""
    classes = declared("trl")["classes"]
    names = {key for name in classes for key in fields_of("trl", name)} | set(declared("trl")["older"]) | set(_MIXTURE)
    return frozenset(names - set(trainer.variant_of("Seq2SeqTrainingArguments").keys))


def is_trl(value: Any) -> bool:
    """Return whether `value` are arguments of the Trainer with at least one that only TRL has."""
    if not isinstance(value, dict) or not own_keys() & value.keys():
        return False
    return trainer.is_arguments(value) or ("model_name_or_path" in value and len(trainer.SIGNATURE & value.keys()) >= 2)


def settle(normal: Normal) -> None:
    """Fill in what TRL's classes set: float32 weights, gradient checkpointing, and bf16 unless fp16 is set."""
    _older_defaults(normal)
    if not normal.is_neutral("attention_flash") and normal.values.get("attention") is None:
        normal.put("attention", "flash_attention_2", normal.key("attention_flash"))
    normal.drop("attention_flash")
    if normal.values.get("checkpointing") is None:
        normal.put("checkpointing", True)
    if normal.values.get("bf16") is None:
        normal.put("bf16", not normal.get("fp16", False))
    if normal.values.get("load_dtype") is None:
        normal.put("load_dtype", "float32")
    if normal.values.get("sequence_length") is None and "max_length" in variant_of(normal.variant).keys and "max_length" not in normal.raw:
        normal.put("sequence_length", variant_of(normal.variant).keys["max_length"].default)
    if not any(key.startswith("model_init.peft_config.") for key in normal.raw):
        _adapter(normal)
    _quantization(normal)
    trainer.arguments(normal)
    trainer.settle_model_init(normal)
    _objective(normal)
    _documents(normal)


def _older_defaults(normal: Normal) -> None:
    """Raise QuestionError if a file with names of an older release leaves open what that release decided in another way than the present one."""
    keys = variant_of(normal.variant).keys
    for key in normal.raw:
        release = keys[key].removed if key in keys and not isinstance(keys[key].meanings["memory"], Ignored) else None
        for name, default in OLD_DEFAULTS.get(release or "", {}).items():
            if name not in normal.raw:
                now = "true unless fp16 is set" if name == "bf16" else "true"
                raise QuestionError(
                    f"{key} is a name of {release} or older, whose default of {name} is {str(default).lower()} (trl 1.0.0: {now}): set {name}"
                )


def _documents(normal: Normal) -> None:
    """A batch is one row of tokens under padding_free, and under packing with another strategy than wrapped (trainer/sft_trainer.py:837)."""
    packed = normal.get("packing", False) and normal.get("packing_strategy", "bfd") in ("bfd", "bfd_split")
    if packed or normal.get("padding_free", False):
        normal.put("documents", "flat", normal.key("packing") if packed else normal.key("padding_free"))


def _objective(normal: Normal) -> None:
    """A reference model is kept beside the trained one unless adapters are trained.

    It stays on the device if its log-probabilities are computed beforehand, too (trl 1.0.0, trainer/dpo_trainer.py:780 and :806).
    """
    kept = normal.get("objective") in WITH_REFERENCE and normal.is_neutral("adapter")
    if kept:
        normal.put("reference_model", True)
    if kept and normal.variant == "DPOConfig":
        # trainer/dpo_trainer.py:753 passes model_init_kwargs alone, and create_model_from_path loads float32 (trainer/utils.py:1037)
        if str(normal.key("load_dtype")).startswith("model_init_kwargs."):  # a script
            normal.put("reference_dtype", normal.get("load_dtype"))
        if normal.values.get("reference_dtype") is None:
            normal.put("reference_dtype", "float32")
            normal.assumed["the dtype of the reference model"] = "float32 (trl 1.0.0 loads it so unless model_init_kwargs.dtype is set)"
    else:
        normal.drop("reference_dtype")
    losses = normal.get("loss_type")
    if all(
        loss in NEUTRAL_LOSSES.get(normal.variant, ())
        for loss in (losses if isinstance(losses, list) else [losses or NEUTRAL_LOSSES.get(normal.variant, ("",))[0]])
    ):
        normal.drop("loss_type")


def _adapter(normal: Normal) -> None:
    """ModelConfig's LoRA arguments have an effect with use_peft only."""
    used = str(normal.values.get("adapter", "false")).lower() in ("true", "1", "yes")
    key = normal.key("adapter")
    normal.drop("adapter")
    lora = [name for name in normal.values if name.startswith("lora_")]
    if not used:
        for name in lora:
            normal.drop(name)
        return
    normal.put("adapter", "lora", key)
    for name, given in (("lora_rank", "lora_r"), ("lora_dropout", "lora_dropout")):
        if normal.values.get(name) is None:
            normal.put(name, variant_of(normal.variant).keys[given].default)


def _quantization(normal: Normal) -> None:
    for bits, name in ((4, "load_in_4bit"), (8, "load_in_8bit")):
        if normal.get(name, False) and normal.values.get("quantization_bits") is None:
            normal.put("quantization_bits", bits, normal.key(name))
            normal.put("quantization_method", "bitsandbytes")
        normal.drop(name)
    if not (normal.is_neutral("quantization_bits") and normal.is_neutral("quantization")):
        normal.put("lora_float32", False)  # trl 1.0.0, trainer/sft_trainer.py:822: adapters of quantized weights become bfloat16
        if normal.values.get("prepared") is None:
            normal.put("prepared", False)  # :821 enables checkpointing and the gradients of the inputs, and converts nothing
    if normal.values.get("quantization_bits") is None:
        for name in ("quantization_type", "quantization_double", "quantization_storage"):
            normal.drop(name)


FORMAT = Format(
    name="trl",
    title="TRL configuration",
    library="trl",
    version=declared("trl")["version"],
    recognise=is_trl,
    variant=variant,
    settle=settle,
    extended=True,
)
