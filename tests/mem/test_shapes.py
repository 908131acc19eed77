"""Parameters without torch are the parameters that the real model has; headers of another model are told."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.options import MemCompareOptions
from llmdoctor.mem.predictor import compare_strategies
from llmdoctor.mem.shapes import FAMILIES, weights_without_torch
from llmdoctor.mem.workload import Workload
from llmdoctor.modeldir.directory import read_model_dir
from tests.mem.conftest import CONFIGS, write_config


def static(model: Path) -> list[tuple[str, tuple[int, ...]]]:
    return [(weight.name, weight.shape) for weight in weights_without_torch(read_model_dir(str(model)), Workload())]


@pytest.mark.live
@pytest.mark.parametrize("family", CONFIGS)
def test_shapes_are_the_real_models(models: dict[str, Path], family: str) -> None:
    from llmdoctor.mem.live.build import meta_model, read_config, weights_of

    real = [(weight.name, weight.shape) for weight in weights_of(meta_model(read_config(str(models[family])), Workload()))]
    assert sorted(static(models[family])) == sorted(real)
    assert family in FAMILIES


@pytest.mark.live
@pytest.mark.parametrize("strategy", ["trainer:adamw_torch,bf16", "deepspeed:zero2", "deepspeed:zero3", "deepspeed:zero0,fp32"])
def test_steady_without_torch_is_steady_with_it(models: dict[str, Path], strategy: str) -> None:
    static, live = (
        compare_strategies(MemCompareOptions(model=str(models["llama"]), strategy=(strategy,), static=flag))[0] for flag in (True, False)
    )
    parts = [
        {name: size for name, size in answer.estimates[0].prediction.steady.components.items() if name != "model_buffers"}
        for answer in (static, live)
    ]
    assert parts[0] == parts[1]
    assert static.skipped
    assert not live.skipped


def save(folder: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file with these tensors, zeros."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def test_headers_that_disagree_with_the_config_are_refused(tmp_path: Path) -> None:
    model = write_config(tmp_path / "m", "qwen2")
    shapes = {name: list(shape) for name, shape in static(model)}
    save(model, shapes)
    compare_strategies(MemCompareOptions(model=str(model), strategy=("deepspeed:zero2",), static=True))
    save(model, {**shapes, "lm_head.weight": shapes["model.embed_tokens.weight"]})  # a tied output layer may be stored
    compare_strategies(MemCompareOptions(model=str(model), strategy=("deepspeed:zero2",), static=True))
    save(model, {name: shape for name, shape in shapes.items() if ".6." not in name})
    with pytest.raises(QuestionError, match="they are not of one model"):
        compare_strategies(MemCompareOptions(model=str(model), strategy=("deepspeed:zero2",), static=True))


def test_an_unknown_family_needs_its_files(tmp_path: Path) -> None:
    model = write_config(tmp_path / "m", "qwen2", model_type="falcon_h9")
    with pytest.raises(QuestionError, match="from safetensors files only"):
        compare_strategies(MemCompareOptions(model=str(model), strategy=("deepspeed:zero2",), static=True))
    save(model, {"a.embed.weight": [10, 4], "b.weight": [4, 4]})
    answer, _ = compare_strategies(MemCompareOptions(model=str(model), strategy=("deepspeed:zero2",), static=True))
    assert answer.estimates[0].prediction.parameters == 56


def test_the_dtype_is_the_files_and_else_the_checkpoints(tmp_path: Path) -> None:
    model = write_config(tmp_path / "m", "qwen2")
    options = MemCompareOptions(model=str(model), strategy=("trainer:adamw_torch",), static=True)
    config = json.loads((model / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (model / "config.json").write_text(json.dumps(config))
    assumed = compare_strategies(options)[0].estimates[0]
    assert assumed.strategy.dtype == "float32"
    assert any("neither config.json nor a checkpoint here gives a dtype" in limit for limit in assumed.strategy.limits)
    save(model, {name: list(shape) for name, shape in static(model)})
    stored = compare_strategies(options)[0].estimates[0]
    assert stored.strategy.dtype == "bfloat16"
    assert any("as the checkpoint is stored" in limit for limit in stored.strategy.limits)
