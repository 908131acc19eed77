"""Models whose layers are of more than one stack, or attend to what no text mask shows: stacks of their own, images, an indexer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions

BASE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "pad_token_id": 0,
}  # fmt: skip


def planned(folder: Path, config: dict[str, Any], fields: dict[str, Any] | None = None, **options: Any) -> Report:
    (folder / "config.json").write_text(json.dumps(config))
    if fields is not None:
        (folder / "in.json").write_text(json.dumps(fields))
        options["input_ids"] = str(folder / "in.json")
    return inspect_report(MaskInspectOptions(model=str(folder), **options))


def test_layers_that_read_an_image_alone_are_named_in_the_first_line(tmp_path: Path) -> None:
    """Mllama leaves its cross-attention layers out without an image; with one, nothing is known of them."""
    text = {**BASE, "model_type": "mllama_text_model", "num_hidden_layers": 4, "cross_attention_layers": [1]}
    report = planned(tmp_path, {"model_type": "mllama", "architectures": ["MllamaForConditionalGeneration"], "text_config": text})
    result = report.result or {}
    assert result["unobserved"] == [1]
    assert {tuple(group["layers"]) for group in result["layers"]} == {(0, 2, 3)}
    assert report.verdict is not None
    assert "nothing is known of layers 1" in report.verdict.text


def test_the_decoder_of_t5gemma_is_read(tmp_path: Path) -> None:
    """Each stack has windows of its own, cross-attention has none, and flash-attention sees one token less at either side than the mask shows."""
    stack = {
        **BASE,
        "model_type": "t5_gemma_module",
        "head_dim": 8,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    config = {"model_type": "t5gemma", "architectures": ["T5GemmaForConditionalGeneration"], "encoder": stack, "decoder": stack}
    ids = {"input_ids": [list(range(5, 17))], "decoder_input_ids": [list(range(5, 11))]}
    report = planned(tmp_path, config, ids, backend=("eager", "flash_attention_2"))
    layers = (report.result or {})["layers"]
    assert {(group["type"], group["q_len"], group["kv_len"]) for group in layers} == {
        ("encoder", 12, 12), ("sliding_attention", 6, 6), ("full_attention", 6, 6), ("cross", 6, 12),
    }  # fmt: skip
    windows = {group["backend"]: group["visible"] for group in layers if group["type"] == "encoder" and group["layers"] == [0]}
    assert windows == {"eager": 12 * 9 - 2 * 10, "flash_attention_2": 12 * 7 - 2 * 6}
    assert not [each for each in (report.result or {})["inputs"]["ignored"] if each["key"] == "decoder_input_ids"]
    with pytest.raises(QuestionError, match="position_ids reach only the encoder"):
        planned(tmp_path, config, packed="5,7")


def test_an_indexer_is_named_in_the_first_line(tmp_path: Path) -> None:
    config = {**BASE, "model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"], "index_topk": 4, "kv_lora_rank": 8}
    report = planned(tmp_path, config, shape="1,16", backend=("eager",))
    assert report.verdict is not None
    assert "sparse attention: an indexer keeps 4 keys" in report.verdict.text
