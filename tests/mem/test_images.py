"""Images in a micro step: models whose processor scales every image to one size, and models whose images are not modelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.options import MemCompareOptions

pytestmark = pytest.mark.live
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1003,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56, "patch_size": 14}
CONFIGS: dict[str, dict[str, Any]] = {
    "llava": {"architectures": ["LlavaForConditionalGeneration"], "image_token_index": 1000, "text_config": {"model_type": "llama", **TEXT},
              "vision_config": {"model_type": "clip_vision_model", **VISION}},
    "gemma3": {"architectures": ["Gemma3ForConditionalGeneration"], "image_token_index": 1000, "mm_tokens_per_image": 4,
               "text_config": {"model_type": "gemma3_text", "head_dim": 16, **TEXT},
               "vision_config": {"model_type": "siglip_vision_model", **VISION}},
    "paligemma": {"architectures": ["PaliGemmaForConditionalGeneration"], "image_token_index": 1000, "projection_dim": 48, "hidden_size": 48,
                  "text_config": {"model_type": "gemma", "head_dim": 16, **TEXT},
                  "vision_config": {"model_type": "siglip_vision_model", "projection_dim": 48, **VISION}},
    "qwen3_vl": {"architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 1000,
                 "text_config": {"model_type": "qwen3_vl_text", "head_dim": 16, "rope_parameters": {
                     "rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}, **TEXT},
                 "vision_config": {"model_type": "qwen3_vl", "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4,
                                   "out_hidden_size": 48, "deepstack_visual_indexes": [1]}},
}  # fmt: skip


def compared(folder: Path, family: str, image: str | None, length: int = 24) -> Any:
    (folder / "config.json").write_text(json.dumps({"model_type": family, **CONFIGS[family]}))
    return compare_report(MemCompareOptions(model=str(folder), strategy=("trainer:sgd,bf16",), batch=2, seq_len=length, image=image))


@pytest.mark.parametrize(("family", "tokens"), [("llava", 16), ("gemma3", 4), ("paligemma", 16)])
def test_an_image_is_scaled_and_takes_its_tokens(family: str, tokens: int, tmp_path: Path) -> None:
    with_image, without = (compared(tmp_path, family, image) for image in ("640x480", None))
    assert with_image.result["model"]["with_gradient"] > without.result["model"]["with_gradient"]  # the vision tower
    assert "no image assumed: --image" in without.verdict.text
    assert "no image" not in with_image.verdict.text
    with pytest.raises(QuestionError, match=f"{tokens} image tokens do not fit"):
        compared(tmp_path, family, "640x480", length=tokens + 1)


def test_features_of_vision_layers_in_the_language_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="deepstack"):
        compared(tmp_path, "qwen3_vl", "56x56")
