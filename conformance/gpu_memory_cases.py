"""The cases of gpu_memory.py: shapes and settings that are in no measured file. A case keeps its number: append, do not insert."""

from __future__ import annotations

from typing import Any

from llmdoctor.demo.shapes import QWEN2_VL_2B

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192,
}
MODELS: dict[str, dict[str, Any]] = {
    "qwen2-vl-2b": QWEN2_VL_2B,
    "llama-1.7b-untied": {**LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
                          "num_key_value_heads": 4, "vocab_size": 64000, "tie_word_embeddings": False},
    "gpt2-large": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 1280, "n_layer": 36, "n_head": 20,
                   "n_positions": 1024, "vocab_size": 50257},
    "qwen3-0.6b": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
                   "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
                   "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096},
    "pythia-1b": {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 2048,
                  "intermediate_size": 8192,
                  "num_hidden_layers": 16, "num_attention_heads": 8, "vocab_size": 50304, "max_position_embeddings": 2048,
                  "tie_word_embeddings": False},
    "t5-large": {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 1024, "d_ff": 2816, "d_kv": 64, "num_layers": 24,
                 "num_heads": 16, "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
                 "eos_token_id": 1, "pad_token_id": 0, "is_encoder_decoder": True},
    "bart-large": {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]},
    "falcon-rw-1b": {"model_type": "falcon", "architectures": ["FalconForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 24,
                     "num_attention_heads": 32, "vocab_size": 50304, "multi_query": False, "parallel_attn": False, "bias": True, "alibi": True,
                     "new_decoder_architecture": False},
    "bloom-1b1": {"model_type": "bloom", "architectures": ["BloomForCausalLM"], "hidden_size": 1536, "n_layer": 24, "n_head": 16,
                  "vocab_size": 250880},
    "mpt-1b": {"model_type": "mpt", "architectures": ["MptForCausalLM"], "d_model": 2048, "n_layers": 24, "n_heads": 16, "vocab_size": 50368,
               "max_seq_len": 2048},
    "phi3-window": {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632,
                    "num_hidden_layers": 20, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 32064, "sliding_window": 1024,
                    "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "hidden_act": "silu", "pad_token_id": 32000,
                    "tie_word_embeddings": False},
    "mistral-window": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_size": 2048, "intermediate_size": 7168,
                       "num_hidden_layers": 20, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32000,
                       "sliding_window": 1024, "max_position_embeddings": 32768, "hidden_act": "silu", "tie_word_embeddings": False},
    "gemma2-2b": {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "hidden_size": 2304, "intermediate_size": 9216,
                  "num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000,
                  "sliding_window": 1024, "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh"},
    "gemma3-1b": {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "hidden_size": 1152, "intermediate_size": 6912,
                  "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
                  "sliding_window": 512, "sliding_window_pattern": 6, "max_position_embeddings": 32768, "tie_word_embeddings": True,
                  "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256},
    "starcoder2-1b": {"model_type": "starcoder2", "architectures": ["Starcoder2ForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
                      "num_hidden_layers": 20, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 49152, "sliding_window": 1024,
                      "max_position_embeddings": 16384, "embedding_dropout": 0.1, "residual_dropout": 0.1, "attention_dropout": 0.1},
    "opt-1.3b": {"model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": 2048, "ffn_dim": 8192, "num_hidden_layers": 24,
                 "num_attention_heads": 32, "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 2048},
    "qwen2-moe": {"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 1024, "intermediate_size": 2816,
                  "moe_intermediate_size": 704, "shared_expert_intermediate_size": 2816, "num_hidden_layers": 8, "num_experts": 16,
                  "num_experts_per_tok": 4, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936},
    "llava-1b": {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "image_token_index": 32000, "vision_feature_layer": -2,
                 "vision_feature_select_strategy": "default",
                 "text_config": {**LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16, "num_attention_heads": 16,
                                 "num_key_value_heads": 16, "vocab_size": 32064},
                 "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                                   "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768}},
    "gemma3-vl": {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "mm_tokens_per_image": 256,
                  "text_config": {"model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 14,
                                  "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262208, "sliding_window": 512,
                                  "max_position_embeddings": 32768, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256},
                  "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 12,
                                    "num_attention_heads": 16, "image_size": 896, "patch_size": 14}},
    "paligemma": {"model_type": "paligemma", "architectures": ["PaliGemmaForConditionalGeneration"], "image_token_index": 257152,
                  "projection_dim": 2048, "hidden_size": 2048,
                  "text_config": {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 8,
                                  "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 257216},
                  "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 12,
                                    "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "projection_dim": 2048}},
    "roberta-large-cls": {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"], "hidden_size": 1024,
                          "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 50265, "pad_token_id": 0,
                          "max_position_embeddings": 514, "type_vocab_size": 1, "num_labels": 2},
}  # fmt: skip
VISION = {"image": "448x448", "batch": 2, "seq_len": 512}
TORCH_ADAM = {"type": "AdamW", "params": {"lr": 1e-5, "torch_adam": True}}
ZERO2 = {"bf16": {"enabled": True}, "gradient_clipping": 1.0, "optimizer": TORCH_ADAM, "zero_optimization": {"stage": 2}}
FUSED = {"optim": "adamw_torch_fused", "bf16": True, "model_init": {"dtype": "bfloat16"}}
LORA = {"peft_type": "LORA", "r": 16, "target_modules": "all-linear"}
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"}
AUTO = {
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
SFT = {"packing": False, "dataset_text_field": "text", "optim": "adamw_torch_fused", "bf16": True}
KTO = {"desirable_weight": 1.0, "precompute_ref_log_probs": False, "optim": "adamw_torch_fused", "bf16": True}
DPO = {"beta": 0.1, "precompute_ref_log_probs": False, "optim": "adamw_torch_fused", "bf16": True}
CHECKPOINTED = {"gradient_checkpointing": True}


def _adapted(**settings: Any) -> dict[str, Any]:
    """Return the Trainer's arguments of a run with LoRA; `quantization_config` belongs to the model, the rest to the Trainer."""
    init = {"dtype": "bfloat16", "peft_config": LORA}
    if "quantization_config" in settings:
        init["quantization_config"] = settings.pop("quantization_config")
    return {**FUSED, "model_init": init, **settings}


def _with_adapters(adapter: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return _adapted with more arguments of LoraConfig."""
    found = _adapted(**settings)
    return {**found, "model_init": {**found["model_init"], "peft_config": {**LORA, **adapter}}}


SAVED = {"modules_to_save": ["embed_tokens", "lm_head"]}


# (model, strategy: a name or a file's content, options): shapes and settings that are in no measured file.
NEW: list[tuple[str, Any, dict[str, Any]]] = [
    ("qwen2-vl-2b", "trainer:adamw_torch_fused,bf16", {**VISION, "stage": "vision"}),
    ("qwen2-vl-2b", "trainer:adamw_torch_fused,bf16", {**VISION, "stage": "all"}),
    ("qwen2-vl-2b", "trainer:adamw_torch_fused,bf16", {**VISION, "stage": "llm"}),
    ("qwen2-vl-2b", ZERO2, {**VISION, "stage": "vision"}),
    ("qwen2-vl-2b", ZERO2, {**VISION, "stage": "all"}),
    ("qwen2-vl-2b", ZERO2, {**VISION, "stage": "llm"}),
    ("qwen2-vl-2b", {**ZERO2, "zero_optimization": {"stage": 3}}, {**VISION, "stage": "llm"}),
    ("llama-1.7b-untied", "trainer:adamw_torch,bf16", {"batch": 3, "seq_len": 768}),
    ("llama-1.7b-untied", "trainer:adamw_torch_fused,amp_bf16,gc", {"batch": 4, "seq_len": 1024}),
    ("llama-1.7b-untied", "trainer:adafactor,bf16", {"batch": 2, "seq_len": 512}),
    ("llama-1.7b-untied", {**ZERO2, "gradient_accumulation_steps": 2}, {"batch": 2, "seq_len": 640}),
    ("llama-1.7b-untied", {**ZERO2, "zero_optimization": {"stage": 1, "overlap_comm": True}}, {"batch": 2, "seq_len": 640}),
    ("llama-1.7b-untied", {**ZERO2, "zero_optimization": {"stage": 3, "sub_group_size": 200000000}}, {"batch": 2, "seq_len": 640}),
    ("llama-1.7b-untied", {**ZERO2, "zero_optimization": {"stage": 0}}, {"batch": 2, "seq_len": 640}),
    ("gpt2-large", "trainer:adamw_torch_fused,amp_bf16", {"batch": 2, "seq_len": 1024}),
    ("gpt2-large", "trainer:adamw_torch,fp32", {"batch": 1, "seq_len": 640}),
    ("gpt2-large", "trainer:sgd,amp_fp16", {"batch": 4, "seq_len": 384}),
    ("gpt2-large", ZERO2, {"batch": 2, "seq_len": 1024}),
    ("qwen3-0.6b", "trainer:adamw_torch,bf16", {"batch": 1, "seq_len": 4096}),
    ("qwen3-0.6b", "trainer:adamw_torch,bf16", {"batch": 4, "seq_len": 512, "attn": "eager"}),
    ("qwen3-0.6b", "trainer:adamw_torch_fused,fp32", {"batch": 2, "seq_len": 512}),
    ("pythia-1b", "trainer:adamw_torch_fused,amp_bf16", {"batch": 2, "seq_len": 1024}),
    ("pythia-1b", {**ZERO2, "bf16": {"enabled": False}, "fp16": {"enabled": True}}, {"batch": 2, "seq_len": 1024}),
    # 23: attention that is handed a mask or a bias
    ("t5-large", FUSED, {"batch": 4, "seq_len": 512}),
    ("t5-large", "trainer:adafactor,bf16", {"batch": 2, "seq_len": 768}),
    ("bart-large", FUSED, {"batch": 4, "seq_len": 512}),
    ("falcon-rw-1b", FUSED, {"batch": 2, "seq_len": 1024}),
    ("bloom-1b1", FUSED, {"batch": 2, "seq_len": 768}),
    ("mpt-1b", FUSED, {"batch": 2, "seq_len": 768}),
    ("phi3-window", FUSED, {"batch": 2, "seq_len": 2048}),
    ("mistral-window", FUSED, {"batch": 2, "seq_len": 2048}),
    ("mistral-window", FUSED, {"batch": 2, "seq_len": 768}),
    ("gemma2-2b", FUSED, {"batch": 2, "seq_len": 1536}),
    ("gemma3-1b", "trainer:adamw_torch_fused,amp_bf16", {"batch": 2, "seq_len": 1024}),
    ("starcoder2-1b", FUSED, {"batch": 2, "seq_len": 1536}),
    ("opt-1.3b", "trainer:adamw_torch_fused,amp_fp16", {"batch": 2, "seq_len": 640}),
    ("qwen2-moe", FUSED, {"batch": 2, "seq_len": 1024}),
    ("roberta-large-cls", "trainer:adamw_torch_fused,amp_bf16", {"batch": 16, "seq_len": 256}),
    # 38: adapters, quantized weights, checkpointing, fused losses
    ("qwen3-0.6b", _adapted(), {"batch": 4, "seq_len": 768}),
    ("llama-1.7b-untied", _adapted(**CHECKPOINTED), {"batch": 4, "seq_len": 1024}),
    ("llama-1.7b-untied", _adapted(quantization_config=FOUR_BIT, optim="paged_adamw_8bit", **CHECKPOINTED), {"batch": 2, "seq_len": 1024}),
    ("llama-1.7b-untied", _adapted(quantization_config=FOUR_BIT), {"batch": 1, "seq_len": 512}),
    ("llama-1.7b-untied", _adapted(quantization_config={"load_in_8bit": True}), {"batch": 2, "seq_len": 512}),
    ("llama-1.7b-untied", {**FUSED, "use_liger_kernel": True}, {"batch": 2, "seq_len": 1024}),
    ("llama-1.7b-untied", {**FUSED, **CHECKPOINTED}, {"batch": 1, "seq_len": 8192}),
    ("qwen3-0.6b", {**FUSED, "use_liger_kernel": True, **CHECKPOINTED}, {"batch": 4, "seq_len": 2048}),
    ("gemma3-1b", {**FUSED, "use_liger_kernel": True}, {"batch": 2, "seq_len": 1024}),
    # 47: optimizers
    ("qwen3-0.6b", {**FUSED, "optim": "lion_8bit"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "lion_32bit"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "paged_adamw_32bit"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "ademamix_8bit"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "rmsprop_bnb_32bit"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "adagrad"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "rmsprop", "optim_args": "momentum=0.9,centered=true"}, {"batch": 1, "seq_len": 512}),
    ("qwen3-0.6b", {**FUSED, "optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 0.1}, {"batch": 1, "seq_len": 512}),
    # 55: DeepSpeed with adapters and checkpointing
    ("llama-1.7b-untied", {**_adapted(**CHECKPOINTED), "deepspeed": {**AUTO, "zero_optimization": {"stage": 2}}},
     {"batch": 2, "seq_len": 1024}),
    ("llama-1.7b-untied", {**FUSED, **CHECKPOINTED, "deepspeed": {**AUTO, "zero_optimization": {"stage": 3}}},
     {"batch": 2, "seq_len": 1024}),
    # 57: padded and packed batches, TRL's objectives
    ("llama-1.7b-untied", FUSED, {"batch": 4, "seq_len": 1024, "lengths": "1024,700,512,130"}),
    ("qwen3-0.6b", {**FUSED, **CHECKPOINTED}, {"batch": 4, "seq_len": 2048, "lengths": "2048,1500,900,64"}),
    ("llama-1.7b-untied", FUSED, {"batch": 2, "seq_len": 1024, "packed": "600,424"}),
    ("qwen3-0.6b", {**SFT}, {"batch": 2, "seq_len": 1024}),
    ("qwen3-0.6b", {**DPO}, {"batch": 2, "seq_len": 512}),
    ("qwen3-0.6b", {**DPO, "model_init": {"dtype": "bfloat16", "peft_config": LORA}}, {"batch": 2, "seq_len": 512}),
    # 63: other models and mixtures
    ("mistral-window", _adapted(quantization_config=FOUR_BIT, **CHECKPOINTED), {"batch": 4, "seq_len": 2048}),
    ("gemma3-1b", _adapted(**CHECKPOINTED), {"batch": 2, "seq_len": 2048}),
    ("qwen3-0.6b", {**FUSED, "optim": "paged_ademamix_8bit", "use_liger_kernel": True}, {"batch": 4, "seq_len": 1024}),
    ("bloom-1b1", {**FUSED, **CHECKPOINTED}, {"batch": 4, "seq_len": 1024}),
    ("qwen3-0.6b", "trainer:rmsprop_bnb_8bit,bf16", {"batch": 1, "seq_len": 512}),
    ("opt-1.3b", "trainer:adamw_bnb_8bit,amp_bf16", {"batch": 2, "seq_len": 1024}),
    # 69: models whose processor scales every image to one size
    ("llava-1b", "trainer:adamw_torch_fused,bf16", {"batch": 2, "seq_len": 1024, "image": "448x448"}),
    ("gemma3-vl", "trainer:adamw_torch_fused,bf16", {"batch": 2, "seq_len": 1024, "image": "448x448"}),
    ("paligemma", "trainer:adamw_torch_fused,bf16", {"batch": 2, "seq_len": 768, "image": "224x224"}),
    ("llava-1b", "trainer:adamw_torch_fused,amp_bf16,gc", {"batch": 4, "seq_len": 1024, "image": "448x448"}),
    ("gemma3-vl", "trainer:adamw_torch_fused,bf16,gc", {"batch": 2, "seq_len": 2048, "image": "448x448"}),
    # 74: modules_to_save beside adapters
    ("qwen3-0.6b", _with_adapters(SAVED), {"batch": 2, "seq_len": 1024}),
    ("llama-1.7b-untied", _with_adapters(SAVED, **CHECKPOINTED), {"batch": 4, "seq_len": 1024}),
    ("llama-1.7b-untied", _with_adapters({"modules_to_save": ["lm_head"]}), {"batch": 2, "seq_len": 768}),
    ("llama-1.7b-untied", _with_adapters(SAVED, quantization_config=FOUR_BIT, **CHECKPOINTED), {"batch": 2, "seq_len": 1024}),
    ("gpt2-large", {**FUSED, "model_init": {"dtype": "float32", "peft_config": {**LORA, "modules_to_save": ["wte"]}}},
     {"batch": 2, "seq_len": 1024}),
    # 79: DoRA
    ("llama-1.7b-untied", _with_adapters({"use_dora": True}), {"batch": 2, "seq_len": 1024}),
    ("llama-1.7b-untied", _with_adapters({"use_dora": True, "lora_dropout": 0.05}, **CHECKPOINTED), {"batch": 2, "seq_len": 1024}),
    ("qwen3-0.6b", _with_adapters({"use_dora": True, "lora_dropout": 0.1}), {"batch": 2, "seq_len": 768}),
    ("gpt2-large", _with_adapters({"use_dora": True}), {"batch": 2, "seq_len": 512}),
    ("qwen3-0.6b", _with_adapters({"use_dora": True, **SAVED}), {"batch": 2, "seq_len": 512}),
    # 84: KTO, with a reference model and with adapters
    ("qwen3-0.6b", KTO, {"batch": 4, "seq_len": 512}),
    ("qwen3-0.6b", {**KTO, "model_init": {"dtype": "bfloat16"}}, {"batch": 2, "seq_len": 1024}),
    ("llama-1.7b-untied", {**KTO, "model_init": {"dtype": "bfloat16", "peft_config": LORA}}, {"batch": 4, "seq_len": 512}),
    # 87: 8-bit weights
    ("llama-1.7b-untied", _adapted(quantization_config={"load_in_8bit": True}, **CHECKPOINTED), {"batch": 2, "seq_len": 1024}),
    ("mistral-window", _adapted(quantization_config={"load_in_8bit": True}), {"batch": 1, "seq_len": 1024}),
    # 89: KTO again, predicted after the cases above had been measured
    ("opt-1.3b", {**KTO, "gradient_checkpointing": False, "model_init": {"dtype": "bfloat16"}}, {"batch": 2, "seq_len": 640}),
    ("mistral-window", {**KTO, "model_init": {"dtype": "bfloat16", "peft_config": LORA}}, {"batch": 3, "seq_len": 1536}),
    ("gemma3-1b", {**KTO, "gradient_checkpointing": False, "model_init": {"dtype": "bfloat16", "peft_config": LORA}}, {"batch": 2, "seq_len": 512}),
    ("llama-1.7b-untied", _with_adapters({"use_dora": True, **SAVED}, **CHECKPOINTED), {"batch": 1, "seq_len": 4096}),
]  # fmt: skip
