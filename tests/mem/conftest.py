"""Small models as configs alone, one of each family, and what a test asks of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LAYERS = 7  # more than are traced
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1003,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True, "hidden_act": "silu", **TEXT},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True, "head_dim": 16, "hidden_act": "silu", **TEXT},
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "hidden_act": "silu", **TEXT},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 48, "n_layer": LAYERS,
             "n_head": 4, "n_positions": 128, "vocab_size": 1003},
    "gpt_neox": {
        "model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "tie_word_embeddings": False,
        **{key: value for key, value in TEXT.items() if key not in ("num_key_value_heads", "rms_norm_eps")},
    },
    "qwen2_vl": {
        "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "image_token_id": 1000, "video_token_id": 1001,
        "vision_start_token_id": 998, "vision_end_token_id": 999, "tie_word_embeddings": True,
        "text_config": {"model_type": "qwen2_vl_text", "hidden_act": "silu", "tie_word_embeddings": True,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]}, **TEXT},
        "vision_config": {"model_type": "qwen2_vl_vision", "depth": 6, "embed_dim": 32, "hidden_size": 48, "num_heads": 4,
                          "mlp_ratio": 2, "patch_size": 14,
                          "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3},
    },
}  # fmt: skip


def write_config(folder: Path, family: str, **changes: Any) -> Path:
    """A directory with a config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[family], **changes}, indent=2))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family's directory."""
    folder = tmp_path_factory.mktemp("models")
    return {family: write_config(folder / family, family) for family in CONFIGS}
