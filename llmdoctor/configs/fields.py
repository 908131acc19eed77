"""The normalised settings: one name for what the frameworks call by many, with what kind of value it has and how it is named to a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FieldKind = Literal["count", "size", "number", "flag", "dtype", "text", "names", "object", "any"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A normalised setting: the kind of its value, what it is called in a refusal, and the values with which it changes nothing."""

    kind: FieldKind
    about: str
    neutral: tuple[Any, ...] = (None,)


_OFF: tuple[Any, ...] = (None, False)
FIELDS: dict[str, Setting] = {
    # the step
    "batch": Setting("count", "sequences per device in one micro step"),
    "accumulation": Setting("count", "micro steps per optimizer step", (None, 1)),
    "sequence_length": Setting("count", "the length of a sequence in tokens"),
    "packing": Setting("flag", "several examples in one sequence", _OFF),
    "documents": Setting("any", "documents in one sequence that do not see each other"),
    "packing_strategy": Setting("text", "how examples are packed"),
    "length_multiple": Setting("any", "lengths rounded up to a multiple"),
    "padding_free": Setting("flag", "batches without padding", _OFF),
    "world_size": Setting("count", "the number of processes", (None, 1)),
    "objective": Setting("text", "the training objective", (None, "sft", "pretraining")),
    # precision
    "load_dtype": Setting("text", "the dtype in which the model is loaded"),
    "bf16": Setting("flag", "bfloat16 mixed precision", _OFF),
    "fp16": Setting("flag", "float16 mixed precision", _OFF),
    "precision_bf16": Setting("any", "bfloat16"),
    "precision_fp16": Setting("any", "float16"),
    "pure_bf16": Setting("flag", "training in bfloat16 throughout", _OFF),
    "pure_fp16": Setting("flag", "training in float16 throughout", _OFF),
    "autocast": Setting("dtype", "the dtype of autocast"),
    "float32_parts": Setting("text", "weights in float32 beside others in 16 bits"),
    "prepared": Setting("flag", "what is not quantized is converted to float32 (prepare_model_for_kbit_training)"),
    "text_only": Setting("flag", "only the language model of a model with images is trained", _OFF),
    "trained_dtype": Setting("dtype", "the dtype that the trained weights are converted to"),
    # what is kept for the backward
    "checkpointing": Setting("flag", "gradient checkpointing", _OFF),
    "checkpointing_kind": Setting("any", "gradient checkpointing"),
    "no_checkpointing": Setting("flag", "no gradient checkpointing", _OFF),
    **{f"attention_{name}": Setting("flag", "the attention implementation", _OFF) for name in ("flash", "sdpa", "eager")},
    "attention": Setting("text", "the attention implementation"),
    "liger": Setting("flag", "Liger kernels", _OFF),
    "liger_parts": Setting("object", "the choice of Liger kernels", (None, {})),
    "activation_offloading": Setting("flag", "activations kept in the host's memory", _OFF),
    "loss_type": Setting("any", "another loss"),
    "plugins": Setting("names", "a plugin", (None, ())),
    "cut_cross_entropy": Setting("flag", "a fused loss"),
    "fused_loss_chunked": Setting("flag", "a chunked loss", _OFF),
    **{
        f"liger_{name}": Setting("flag", "Liger kernels", _OFF)
        for name in (
            "rope",
            "rms_norm",
            "layer_norm",
            "swiglu",
            "glu_activation",
            "cross_entropy",
            "fused_linear_cross_entropy",
        )
    },
    "fused_loss": Setting("text", "a fused or chunked loss"),
    "compile": Setting("flag", "torch.compile", _OFF),
    "compile_backend": Setting("text", "torch.compile"),
    "compile_mode": Setting("text", "torch.compile"),
    # the optimizer
    "optimizer": Setting("text", "the optimizer"),
    "optimizer_arguments": Setting("any", "the optimizer's arguments", (None, "", {})),
    **{name: Setting("flag", "another optimizer", _OFF) for name in ("galore", "apollo", "badam", "adam_mini", "muon")},
    "optimizer_targets": Setting("any", "the layers that a low-rank optimizer projects", (None, [])),
    "optimizer_plugin": Setting("text", "an optimizer of ms-swift's own"),
    "weight_decay": Setting("number", "weight decay", (None, 0.0)),
    "clip": Setting("number", "gradient clipping"),
    "client_optimizer": Setting("object", "the optimizer that the caller makes"),
    # adapters
    "adapter": Setting("text", "parameter-efficient fine-tuning", (None, "none")),
    "lora_rank": Setting("count", "the rank of the adapters"),
    "lora_targets": Setting("any", "the layers that get adapters"),
    "lora_all_linear": Setting("flag", "adapters on all linear layers", _OFF),
    "lora_dropout": Setting("number", "dropout before the adapters", (None, 0.0)),
    "lora_bias": Setting("text", "which biases are trained", (None, "none")),
    "lora_regex": Setting("text", "the layers that get adapters"),
    "lora_dora": Setting("flag", "weight-decomposed adapters (DoRA)", _OFF),
    "lora_modules_to_save": Setting("names", "modules that are trained in full beside the adapters", (None, ())),
    "lora_layers": Setting("any", "the layers that get adapters, by number", (None, [])),
    "lora_layers_pattern": Setting("any", "the name of the list of layers", (None, "", [])),
    "lora_exclude": Setting("any", "layers that get no adapters", (None, [], "")),
    "lora_rank_pattern": Setting("object", "ranks that differ between layers", (None, {})),
    "lora_parameters": Setting("any", "parameters, not layers, that get adapters", (None, [])),
    "lora_float32": Setting("flag", "adapters in float32 whatever the model's dtype", (None, True)),
    # quantized weights
    "load_in_4bit": Setting("flag", "quantized weights", _OFF),
    "load_in_8bit": Setting("flag", "quantized weights", _OFF),
    "quantization_bits": Setting("any", "quantized weights", (None, 0)),
    "quantization_method": Setting("text", "how the weights are quantized"),
    "quantization_type": Setting("text", "the data type of the quantized weights"),
    "quantization_double": Setting("flag", "quantized quantization constants", _OFF),
    "quantization_compute": Setting("text", "the dtype of computations with quantized weights"),
    "quantization_storage": Setting("text", "the dtype that holds quantized weights"),
    "quantization": Setting("object", "quantized weights", (None, {})),
    # sharding
    "deepspeed": Setting("any", "a DeepSpeed configuration", (None, "", {})),
    "fsdp": Setting("any", "fully sharded data parallel (FSDP)", (None, "", False, [])),
    "fsdp_config": Setting("any", "fully sharded data parallel (FSDP)", (None, "", {}, [])),
    "mixed_precision": Setting("text", "mixed precision"),
    "distributed_type": Setting("text", "how the processes are distributed", (None, "NO", "MULTI_GPU", "DEEPSPEED")),
    "total_batch": Setting("count", "sequences of all processes in one optimizer step"),
    "immediate_update": Setting("flag", "gradients that are added at once", _OFF),
    "bf16_masters": Setting("flag", "master weights in bfloat16", _OFF),
    "bf16_states": Setting("flag", "optimizer states in bfloat16", _OFF),
    "fp16_masters": Setting("flag", "master weights in float16", _OFF),
    "fp16_auto_cast": Setting("flag", "inputs that are converted to float16", _OFF),
    "torch_autocast": Setting("flag", "autocast", _OFF),
    "torch_autocast_dtype": Setting("dtype", "the dtype of autocast"),
    "accumulation_dtype": Setting("dtype", "the dtype of accumulated gradients"),
    "parameter_dtype": Setting("dtype", "the dtype of parameters"),
    **{
        f"zero.{name}": Setting("flag", f"zero_optimization.{name}")
        for name in (
            "contiguous_gradients",
            "overlap_comm",
            "reduce_scatter",
            "round_robin_gradients",
            "parameter_alignment",
            "cpu_offload",
            "cpu_offload_param",
        )
    },
    **{
        f"zero.{name}": Setting("size", f"zero_optimization.{name}")
        for name in (
            "stage",
            "reduce_bucket_size",
            "allgather_bucket_size",
            "sub_group_size",
            "prefetch_bucket_size",
            "param_persistence_threshold",
            "max_live_parameters",
            "max_reuse_distance",
        )
    },
    "zero.offload_optimizer": Setting("text", "an optimizer on another device", (None, "none")),
    "zero.offload_param": Setting("text", "parameters on another device", (None, "none")),
    "zero.offload_ratio": Setting("number", "a part of the optimizer on another device", (None, 1.0)),
    "zero.offload_optimizer_null": Setting("any", "no offload"),
    "zero.offload_param_null": Setting("any", "no offload"),
    # evaluation between training steps
    "evaluation": Setting("text", "when the run evaluates", (None, "no")),
    "eval_batch": Setting("count", "sequences per device in a batch of the evaluation"),
    "eval_loss_only": Setting("flag", "an evaluation that returns the loss only", _OFF),
    "eval_metrics_by_batch": Setting("flag", "metrics that are computed batch by batch", _OFF),
    "eval_accumulation": Setting("any", "batches of an evaluation whose outputs stay on the device"),
    "eval_generates": Setting("flag", "text that is generated in the evaluation", _OFF),
    **{name: Setting("any", "the data of the evaluation") for name in ("eval_share", "eval_data")},
    # objectives with a second model
    "reference_model": Setting("flag", "a reference model beside the trained one", _OFF),
    "reference_dtype": Setting("text", "the dtype in which the reference model is loaded"),
    "precomputed_reference": Setting("flag", "log-probabilities of the reference model computed beforehand", _OFF),
    # training targets
    "completion_only": Setting("any", "only completions are trained"),
    "assistant_only": Setting("flag", "only assistant turns are trained"),
    "text_column": Setting("text", "the column of the text"),
    "chat_template": Setting("text", "the chat template"),
    "eos_token": Setting("text", "the end-of-sequence token"),
    "pad_token": Setting("text", "the padding token"),
    "train_on_prompt": Setting("any", "prompts are trained"),
    "mask_history": Setting("flag", "only the last answer is trained"),
    "system_prompt": Setting("text", "the system prompt"),
    "thinking": Setting("any", "reasoning in the template"),
    "tool_format": Setting("text", "the format of tool calls"),
    "loss_scale": Setting("text", "weights of parts of the loss"),
    "datasets": Setting("any", "the data sets"),
    "truncation": Setting("text", "where long examples are cut"),
    "prompt_length": Setting("count", "the longest prompt in tokens"),
}
