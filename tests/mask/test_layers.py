"""The kinds of all layers from config.json, against the real configuration classes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask import architectures
from llmdoctor.modeldir import layerkinds
from llmdoctor.modeldir.layerkinds import layer_rule, layer_types, ruled_types

DEPTHS = (2, 5, 8, 13)
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "qwen2": [
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 3},
        {"use_sliding_window": False, "sliding_window": 6},
    ],
    "qwen3": [{"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0}],
    "qwen2_moe": [{"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 4}],
    "mistral": [{"sliding_window": None}, {"sliding_window": 7}],
    "phi3": [{"sliding_window": None}, {"sliding_window": 7}],
    "cohere2": [{"sliding_window_pattern": 3}],
    "smollm3": [{"use_sliding_window": True, "sliding_window": 4}],
    "jamba": [{"attn_layer_period": 3, "attn_layer_offset": 2}],
    "llama4_text": [{"no_rope_layer_interval": 2}],
    "qwen3_next": [{"full_attention_interval": 3}],
    "zamba2": [{"layers_block_type": ["mamba", "hybrid", "mamba"]}],
    "granitemoehybrid": [{"layer_types": ["mamba", "attention"]}],
}


@pytest.mark.live
@pytest.mark.parametrize("kind", sorted(ruled_types()))
def test_layer_types_are_those_of_the_class(kind: str) -> None:
    from transformers import CONFIG_MAPPING
    from transformers.cache_utils import get_layer_types_and_kwargs

    if kind not in CONFIG_MAPPING or "text" in layerkinds.table()["types"].get(kind, {}):
        pytest.skip("no configuration class of its own")
    entry = layerkinds.table()["types"][kind]
    compared = 0
    for depth in DEPTHS:
        for variant in [{}, *VARIANTS.get(kind, [])]:
            given = {entry.get("names", {}).get("num_hidden_layers", "num_hidden_layers"): depth, **variant}
            if isinstance(variant.get("layers_block_type", variant.get("layer_types")), list):
                given["num_hidden_layers"] = len(variant.get("layers_block_type", variant.get("layer_types")))
            try:
                config = CONFIG_MAPPING[kind](**given)
                expected = getattr(config, "layer_types", None) or get_layer_types_and_kwargs(config)[0]
            except Exception:  # noqa: BLE001 a class may refuse a depth
                continue
            filled = layerkinds.filled({**given, "model_type": kind}, kind, entry)
            assert layer_types(kind, filled, layer_rule(kind) or "") == tuple(expected), (depth, variant)
            compared += 1
    assert compared


def test_qwen2_gates_its_window() -> None:
    assert all("layers" in each for each in layerkinds._all_traits().values() if each.get("gated_window"))
    config = {"model_type": "qwen2", "num_hidden_layers": 3, "sliding_window": 4, "use_sliding_window": False}
    assert {layer.type for layer in architectures.read(config).layers} == {"full_attention"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "no model_type"),
        ({"model_type": "unheard_of"}, "unheard_of"),
        ({"model_type": 7}, "no model_type"),
        ({"model_type": "resnet"}, "resnet"),
        ({"model_type": "llama", "num_hidden_layers": -1}, "number of layers"),
        ({"model_type": "llama", "num_hidden_layers": "many"}, "number of layers"),
        ({"model_type": "mistral", "sliding_window": "wide"}, "sliding_window"),
        ({"model_type": "gemma2", "layer_types": [1, 2]}, "layer_types"),
        ({"model_type": "gemma2", "layer_types": ["sliding_attention"], "sliding_window": None}, "sliding_window"),
    ],
    ids=json.dumps,
)
def test_what_cannot_be_told_is_refused_in_one_sentence(config: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError, match=said) as refused:
        architectures.read(config)
    assert "\n" not in str(refused.value)


def _kinds(config: dict[str, Any]) -> tuple[list[str], bool]:
    arch = architectures.read(config)
    return [layer.type for layer in arch.layers], arch.verified


def test_a_list_that_the_class_does_not_read_is_not_followed() -> None:
    config = {"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]}
    assert _kinds(config) == (["sliding_attention"] * 2, False)
    assert _kinds({**config, "model_type": "ministral"}) == (["full_attention", "sliding_attention"], True)


def test_the_usual_name_of_a_field_counts_before_the_own_one() -> None:
    pytest.importorskip("transformers")
    from transformers import BartConfig, GPT2Config

    assert GPT2Config(n_layer=2, num_hidden_layers=4).n_layer == len(
        _kinds({"model_type": "gpt2", "n_layer": 2, "num_hidden_layers": 4})[0]
    )
    bart = {"model_type": "bart", "encoder_layers": 3, "num_hidden_layers": 5, "decoder_layers": 2}
    made = BartConfig(**{name: value for name, value in bart.items() if name != "model_type"})
    arch = architectures.read({**bart, "is_encoder_decoder": True})
    assert (made.encoder_layers, made.decoder_layers) == (len(arch.encoder), len(arch.layers)) == (5, 2)
    assert len(_kinds({**bart, "architectures": ["BartForCausalLM"], "is_encoder_decoder": False, "is_decoder": True})[0]) == 2


def test_a_null_chunk_size_raises_whatever_the_layers_are() -> None:
    config = {"model_type": "llama4_text", "num_hidden_layers": 2, "attention_chunk_size": None, "layer_types": ["full_attention"] * 2}
    assert "attention_chunk_size" in architectures.read(config).raises
    assert architectures.read({**config, "attention_chunk_size": 4}).raises == ""
