"""Quantized weights with adapters, bitsandbytes' optimizers and fused losses: what is held, from the formats of the libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.optimizers import trainer_optimizer
from llmdoctor.mem.options import MemCompareOptions

LINEAR = 7 * (48 * 48 + 2 * 48 * 24 + 48 * 48 + 3 * 48 * 80)  # elements of the seven layers' projections (tests/mem/conftest.py, llama)
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}


def strategy(tmp_path: Path, **settings: Any) -> str:
    path = tmp_path / "strategy.json"
    base = {"optim": "adamw_torch_fused", "bf16": True, "per_device_train_batch_size": 1}
    init = {
        "dtype": "bfloat16",
        "peft_config": {"peft_type": "LORA", "r": 4, "target_modules": "all-linear"},
        **settings.pop("model_init", {}),
    }
    init = {key: value for key, value in init.items() if value is not None}
    path.write_text(json.dumps({**base, "model_init": init, **settings}))
    return str(path)


def result(model: Path, path: str, **options: Any) -> dict[str, Any]:
    report = compare_report(MemCompareOptions(model=str(model), strategy=(path,), seq_len=32, **options))
    assert report.result is not None
    return {**report.result["strategies"][0], "model": report.result["model"], "inputs": report.result["inputs"]}


@pytest.mark.parametrize("static", [True, pytest.param(False, marks=pytest.mark.live)])
def test_four_bits_take_half_a_byte_and_count_as_parameters(models: dict[str, Path], tmp_path: Path, static: bool) -> None:
    plain = result(models["llama"], strategy(tmp_path), static=static)
    packed = result(models["llama"], strategy(tmp_path, model_init={"quantization_config": FOUR_BIT}), static=static)
    assert plain["model"]["params"] == packed["model"]["params"]
    assert plain["model"]["trainable"] == packed["model"]["trainable"] > 0
    assert packed["settings"]["quantization_bits"] == 4
    tables = 2 * 1003 * 48  # embedding and output layer become float32
    saved = plain["phases"]["start"]["params"] - packed["phases"]["start"]["params"]
    assert abs(saved - (LINEAR * 3 // 2 - tables * 2)) < (0.2 if static else 0.9) * LINEAR  # scales and the allocator's blocks


def test_quantized_weights_without_adapters_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    path = strategy(tmp_path, model_init={"peft_config": None, "quantization_config": FOUR_BIT})
    report = compare_report(MemCompareOptions(model=str(models["llama"]), strategy=(path,), static=True))
    assert report.error is not None
    assert "no adapters" in report.error.message
    assert report.result is not None
    assert "model_init.quantization_config" in report.result["inputs"]["used"]


@pytest.mark.parametrize(
    ("name", "bits", "paged", "states"),
    [("adamw_bnb_8bit", 8, False, 2), ("paged_adamw_8bit", 8, True, 2), ("paged_adamw_32bit", 32, True, 2), ("lion_8bit", 8, False, 1),
     ("paged_lion_32bit", 32, True, 1), ("rmsprop_bnb", 32, False, 1), ("ademamix_8bit", 8, False, 2)],
)  # fmt: skip
def test_bitsandbytes_by_name(name: str, bits: int, paged: bool, states: int) -> None:
    found = trainer_optimizer(name, None, "x")
    assert (found.kind, found.bits, found.paged, len(found.states)) == ("bitsandbytes", bits, paged, states)


@pytest.mark.live
def test_a_fused_loss_holds_no_logits(models: dict[str, Path], tmp_path: Path) -> None:
    path = strategy(tmp_path, model_init={"peft_config": None})
    plain = result(models["llama"], path)
    fused = result(models["llama"], strategy(tmp_path, model_init={"peft_config": None}, use_liger_kernel=True))
    assert fused["settings"]["fused_loss"] == "liger"
    assert fused["phases"]["forward"]["logits"] < plain["phases"]["forward"]["logits"]


@pytest.mark.live
def test_lora_on_conv1d_and_peft_defaults(models: dict[str, Path], tmp_path: Path) -> None:
    adapters = {"peft_type": "LORA", "r": 8}
    found = result(models["gpt2"], strategy(tmp_path, model_init={"peft_config": adapters}))
    assert found["model"]["trainable"] == 7 * 8 * (48 + 3 * 48)  # c_attn maps 48 to 144
    default = result(models["llama"], strategy(tmp_path, model_init={"peft_config": adapters}))
    assert default["model"]["trainable"] == 7 * 8 * ((48 + 48) + (48 + 24))  # q_proj and v_proj


def test_what_bitsandbytes_raises_on_is_refused(models: dict[str, Path]) -> None:
    options = {"model": str(models["llama"]), "static": True}
    for text in ("trainer:rmsprop_bnb,bf16", "trainer:rmsprop_bnb_8bit,bf16", "trainer:paged_adamw,bf16", "trainer:galore_adamw,bf16"):
        report = compare_report(MemCompareOptions(strategy=(text,), **options)) if "rmsprop" in text else None
        if report is not None:
            assert report.error is not None
            assert "has no kernel" in report.error.message
        else:
            with pytest.raises(QuestionError, match="is not modelled"):
                compare_report(MemCompareOptions(strategy=(text,), **options))
    assert compare_report(MemCompareOptions(strategy=("trainer:rmsprop_bnb,amp_bf16",), **options)).error is None
