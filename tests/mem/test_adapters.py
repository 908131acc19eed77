"""modules_to_save, DoRA and KTO: what is trained, with and without torch, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.options import MemCompareOptions

RANK, WIDTH, VOCABULARY = 4, 48, 1003  # of tests/mem/conftest.py, llama
MODES = [True, pytest.param(False, marks=pytest.mark.live)]


def report(model: Path, tmp_path: Path, content: dict[str, Any], *, static: bool = True, **options: Any) -> Any:
    path = tmp_path / "strategy.json"
    path.write_text(json.dumps(content))
    return compare_report(MemCompareOptions(model=str(model), strategy=(str(path),), seq_len=32, static=static, **options))


def adapted(adapter: dict[str, Any], **init: Any) -> dict[str, Any]:
    peft = {"peft_type": "LORA", "r": RANK, "target_modules": ["q_proj"], **adapter}
    return {
        "optim": "adamw_torch_fused",
        "bf16": True,
        "per_device_train_batch_size": 2,
        "model_init": {"dtype": "bfloat16", "peft_config": peft, **init},
    }


def trained(model: Path, tmp_path: Path, adapter: dict[str, Any], static: bool) -> int:
    found = report(model, tmp_path, adapted(adapter), static=static)
    return int(found.result["model"]["trainable"])


@pytest.mark.parametrize("static", MODES)
def test_modules_to_save_are_trained_in_full(models: dict[str, Path], tmp_path: Path, static: bool) -> None:
    plain = trained(models["llama"], tmp_path, {}, static)
    assert trained(models["llama"], tmp_path, {"modules_to_save": ["lm_head"]}, static) == plain + VOCABULARY * WIDTH
    both = trained(models["llama"], tmp_path, {"modules_to_save": ["lm_head", "embed_tokens"]}, static)
    assert both == plain + 2 * VOCABULARY * WIDTH


@pytest.mark.parametrize("static", MODES)
def test_a_copy_of_a_tied_output_layer_is_not_tied(models: dict[str, Path], tmp_path: Path, static: bool) -> None:
    config = json.loads((models["llama"] / "config.json").read_text())
    tied = tmp_path / "tied"
    tied.mkdir()
    (tied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    plain = trained(tied, tmp_path, {}, static)
    assert trained(tied, tmp_path, {"modules_to_save": ["lm_head", "embed_tokens"]}, static) == plain + 2 * VOCABULARY * WIDTH


@pytest.mark.parametrize("static", MODES)
def test_dora_trains_a_magnitude_for_each_output(models: dict[str, Path], tmp_path: Path, static: bool) -> None:
    plain = trained(models["llama"], tmp_path, {}, static)
    assert trained(models["llama"], tmp_path, {"use_dora": True}, static) == plain + 7 * WIDTH  # seven layers, q_proj alone


@pytest.mark.live
@pytest.mark.parametrize(
    ("adapter", "init", "words"),
    [
        ({"modules_to_save": ["score"]}, {}, "has no module score"),
        ({"modules_to_save": ["up_proj"]}, {"quantization_config": {"load_in_8bit": True}}, "quantized"),
        ({"use_dora": True}, {"quantization_config": {"load_in_4bit": True}}, "use_dora on quantized weights"),
    ],
)
def test_what_is_not_modelled_of_adapters(
    models: dict[str, Path], tmp_path: Path, adapter: dict[str, Any], init: dict[str, Any], words: str
) -> None:
    with pytest.raises(QuestionError, match=words):
        report(models["llama"], tmp_path, adapted(adapter, **init), static=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (adapted({"ensure_weight_tying": True}), "ensure_weight_tying"),
        ({"desirable_weight": 1.1, "output_dir": "o", "per_device_train_batch_size": 1, "learning_rate": 1e-6}, "batch of 1"),
        ({"desirable_weight": 1.1, "output_dir": "o", "per_device_train_batch_size": 2, "loss_type": "apo_zero_unpaired"}, "loss_type"),
        (
            {"desirable_weight": 1.1, "output_dir": "o", "per_device_train_batch_size": 2, "use_liger_kernel": True},
            "Liger's loss of preferences",
        ),
    ],
)
def test_what_is_refused_by_name(models: dict[str, Path], tmp_path: Path, content: dict[str, Any], words: str) -> None:
    found = report(models["llama"], tmp_path, content)
    assert found.error is not None
    assert words in found.error.message


def test_kto_keeps_a_reference_of_the_dtype_of_the_model(models: dict[str, Path], tmp_path: Path) -> None:
    content = {"desirable_weight": 1.1, "output_dir": "o", "per_device_train_batch_size": 2, "model_init": {"dtype": "bfloat16"}}
    settings = report(models["llama"], tmp_path, content).result["strategies"][0]["settings"]
    assert (settings["objective"], settings["reference_dtype"]) == ("kto", "bfloat16")
