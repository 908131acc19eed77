"""Tiny configurations that the mask tests share: what config.json holds, as a dict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_BASE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 4096,
}  # fmt: skip
_TEXT = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
_VISION = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_BASE, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "head_dim": 8},
    "mistral": {**_BASE, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "head_dim": 8, "sliding_window": 4},
    "gemma2": {**_BASE, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "head_dim": 8, "sliding_window": 4},
    "llama4_text": {
        **_BASE, "model_type": "llama4_text", "architectures": ["Llama4ForCausalLM"], "head_dim": 8, "attention_chunk_size": 4,
        "layer_types": ["chunked_attention", "full_attention"], "intermediate_size_mlp": 48, "num_local_experts": 2, "num_experts_per_tok": 1,
    },
    "gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 128,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "bloom": {
        "model_type": "bloom", "architectures": ["BloomForCausalLM"], "hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 128,
    },
    "t5": {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "vocab_size": 128, "decoder_start_token_id": 0, "is_encoder_decoder": True,
    },
    "jamba": {
        **_BASE, "model_type": "jamba", "architectures": ["JambaForCausalLM"], "num_experts": 2, "num_experts_per_tok": 1, "attn_layer_period": 2,
        "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
    },
    "qwen2_vl": {
        "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "image_token_id": 120, "video_token_id": 121,
        "text_config": {**_BASE, **_TEXT, "model_type": "qwen2_vl_text"}, "vision_config": {**_VISION, "model_type": "qwen2_vl_vision"},
    },
    "gemma3": {
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "image_token_index": 120, "mm_tokens_per_image": 4,
        "text_config": {
            **_BASE, "model_type": "gemma3_text", "head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"],
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 4,
        },
    },
}  # fmt: skip


def write_config(folder: Path, name: str, **changes: Any) -> Path:
    """A model directory of CONFIGS[name] under `folder`; a value of None takes a field away."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**CONFIGS[name], **changes}.items() if value is not None}
    (path / "config.json").write_text(json.dumps(config))
    return path
