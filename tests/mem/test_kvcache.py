"""Bytes of key-value caches, held against the libraries' own objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.cache_kinds import read_cache
from llmdoctor.mem.kvcache import kvcache_report, layer_of, layer_shapes
from llmdoctor.mem.options import KvcacheOptions
from tests.mem.conftest import CONFIGS, LAYERS, write_config

SLIDING = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 24, "head_dim": 12}
HYBRID = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "sliding_window": 16,
    "sliding_window_pattern": 3,
    "head_dim": 12,
}
BATCH = 2


def cache_of(model: Path, **options: Any) -> dict[str, Any]:
    report = kvcache_report(
        KvcacheOptions(
            model=str(model),
            batch=options.get("batch", BATCH),
            length=options["length"],
            cache=options.get("cache", "dynamic"),
            dtype=options.get("dtype", "bfloat16"),
        )
    )
    assert report.result is not None
    return report.result["kvcache"]


def stored(cache: Any) -> int:
    """Bytes of the storages of a real cache's keys and values, each once."""
    storages = {}
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def fill(cache: Any, config: Any, lengths: list[int], heads: int, size: int) -> None:
    import torch

    for length in lengths:
        for layer in range(config.num_hidden_layers):
            states = torch.zeros(BATCH, heads, length, size, dtype=torch.bfloat16)
            cache.update(states, states.clone(), layer)


@pytest.mark.live
@pytest.mark.parametrize("length", [1, 8, 15, 16, 17, 23, 24, 25, 60])
@pytest.mark.parametrize(("changes", "family"), [({}, "qwen2"), (SLIDING, "qwen2"), (HYBRID, "qwen2")], ids=["full", "sliding", "hybrid"])
def test_dynamic_and_static_are_the_real_objects(tmp_path: Path, changes: dict[str, Any], family: str, length: int) -> None:
    from transformers import AutoConfig, DynamicCache, StaticCache

    model = write_config(tmp_path / "m", family, **changes)
    config = AutoConfig.from_pretrained(model).get_text_config()
    real = DynamicCache(config=config)
    fill(real, config, [length - 1, 1] if length > 1 else [1], 2, 12)
    mine = cache_of(model, length=length)
    assert mine["allocated_bytes"] == stored(real)
    assert mine["used_bytes"] == sum(t.numel() * t.element_size() for layer in real.layers for t in (layer.keys, layer.values))
    static = StaticCache(config=config, max_cache_len=64)
    fill(static, config, [length], 2, 12)
    assert cache_of(model, length=length, cache="static:64")["allocated_bytes"] == stored(static)


@pytest.mark.live
def test_fp8_is_the_real_object(models: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(models["qwen2"])
    try:
        real = transformers.QuantizedCache("fp8", config)
    except (ValueError, ImportError):
        pytest.skip("this transformers has no fp8 cache")
    fill(real, config, [10], 2, 12)
    held = sum(
        part[0].numel() * part[0].element_size() for layer in real.layers for part in (layer._quantized_keys, layer._quantized_values)
    )
    assert cache_of(models["qwen2"], length=10, cache="quantized:fp8")["allocated_bytes"] == held


@pytest.mark.live
def test_latent_attention_caches_what_deepseek_caches(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.DeepseekV3Config(
        hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=64,
        kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, q_lora_rank=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=2, max_position_embeddings=64,
    )  # fmt: skip
    config.architectures = ["DeepseekV3ForCausalLM"]
    config.save_pretrained(tmp_path)
    model = transformers.DeepseekV3ForCausalLM(config)
    cache = transformers.DynamicCache(config=config)
    with torch.no_grad():
        model(torch.zeros(BATCH, 10, dtype=torch.int64), past_key_values=cache, use_cache=True)
    assert cache_of(tmp_path, length=10, dtype="float32")["used_bytes"] == sum(
        t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values)
    )


def test_gpt_fast_rounds_to_eight_and_adds_a_mask(models: dict[str, Path]) -> None:
    mine = cache_of(models["llama"], length=5, cache="gpt-fast:97", batch=1)
    assert mine["layers"][0]["tokens"] == 104
    assert mine["allocated_bytes"] == LAYERS * 2 * 2 * 12 * 104 * 2
    assert mine["mask_bytes"] == 104 * 104
    assert mine["used_bytes"] * 104 == mine["allocated_bytes"] * 5


def test_quantized_counts_bits_scales_and_zero_points(models: dict[str, Path]) -> None:
    mine = cache_of(models["llama"], length=64, cache="quantized:4", batch=1)
    elements = LAYERS * 2 * 2 * 12 * 64
    assert mine["allocated_bytes"] == elements // 2 + 2 * 2 * elements // 64


def test_text_part_of_a_composite_and_gpt2s_names(models: dict[str, Path]) -> None:
    assert cache_of(models["qwen2_vl"], length=3, batch=1)["used_bytes"] == LAYERS * 2 * 2 * 12 * 3 * 2
    assert cache_of(models["gpt2"], length=3, batch=1)["used_bytes"] == LAYERS * 2 * 4 * 12 * 3 * 2


@pytest.mark.parametrize("cache", ["static", "static:0", "static:x", "paged", "quantized:5", "gpt-fast:-1", ""])
def test_unknown_caches_are_refused(models: dict[str, Path], cache: str) -> None:
    with pytest.raises(QuestionError, match="--cache"):
        cache_of(models["llama"], length=3, cache=cache)


def test_what_is_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    with pytest.raises(QuestionError, match="does not fit"):
        cache_of(models["llama"], length=65, cache="static:64")
    recurrent = {**CONFIGS["qwen2"], "layer_types": ["linear_attention"] * LAYERS}
    (tmp_path / "config.json").write_text(json.dumps(recurrent))
    with pytest.raises(QuestionError, match="a state other than keys and values"):
        cache_of(tmp_path, length=3)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x"}))
    with pytest.raises(QuestionError, match="was not compared with a real one"):
        cache_of(tmp_path, length=3)


def test_every_layer_uses_at_most_what_it_holds() -> None:
    for cache in (read_cache("dynamic"), read_cache("static:40"), read_cache("gpt-fast:40")):
        for length in range(1, 41):
            for shape in set(
                layer_shapes(
                    {
                        **CONFIGS["qwen2"],
                        **SLIDING,
                        "layer_types": ["sliding_attention", "full_attention"] + ["full_attention"] * (LAYERS - 2),
                    }
                )
            ):
                layer = layer_of(shape, cache, 1, length, "bfloat16")
                assert 0 <= layer.used <= layer.allocated


_SMALL = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128, "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
REAL: dict[str, dict[str, Any]] = {
    "falcon, one head": {"model_type": "falcon", "multi_query": True, **_SMALL},
    "falcon, its newer architecture": {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2, **_SMALL},
    "bloom": {"model_type": "bloom", "num_key_value_heads": 2, **_SMALL},  # a field that the class does not know
    "qwen2, windows by default": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
        "num_key_value_heads": 2,
        **_SMALL,
    },
    "gemma2": {"model_type": "gemma2", "sliding_window": 6, "head_dim": 12, "num_key_value_heads": 2, **_SMALL},
}


@pytest.mark.live
@pytest.mark.parametrize("name", REAL)
def test_the_cache_of_a_real_forward(name: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    (tmp_path / "config.json").write_text(json.dumps(REAL[name]))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path), attn_implementation="eager").eval()
    ids = torch.arange(2 * 20).reshape(2, 20) + 3
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        model(ids[:, -1:], past_key_values=cache, use_cache=True)
    assert cache_of(tmp_path, length=20, dtype="float32")["allocated_bytes"] == stored(cache)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "jamba", **_SMALL},
        {"model_type": "bert", **_SMALL},
        {"model_type": "t5", "is_encoder_decoder": True, "d_model": 48, "num_layers": 2, "num_heads": 4},
        {"model_type": "mimo_v2_flash", **_SMALL},
        {"model_type": "gemma3n_text", **_SMALL},
        {"model_type": "nobody's", **_SMALL},
        {"model_type": "llama", "num_kv_shared_layers": 1, **_SMALL},
    ],
    ids=lambda config: str(config["model_type"]),
)
def test_other_caches_are_refused_by_name(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuestionError, match=config["model_type"]):
        cache_of(tmp_path, length=20)
