"""Models without generate(): classifiers, encoders, image models and files of other programs are no call that never stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llmdoctor
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.generating import names_a_model, no_generation

WITHOUT = {
    "a classifier": {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "pad_token_id": 0, "vocab_size": 30522},
    "a reward model": {"architectures": ["Qwen2ForSequenceClassification"], "model_type": "qwen2", "vocab_size": 151936, "num_labels": 1},
    "an embedding model": {"architectures": ["Qwen3Model"], "model_type": "qwen3", "vocab_size": 151936},
    "an image model": {"architectures": ["ViTForImageClassification"], "model_type": "vit"},
    "a speech encoder": {"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", "vocab_size": 32},
    "a type without a class that generates": {"model_type": "vit"},
    "a part of a diffusers pipeline": {"_class_name": "AutoencoderKL", "_diffusers_version": "0.30.0"},
    "the settings of another program": {"model_type": "lora", "model_family": "flux", "learning_rate": 5e-5},
}
WITH = {
    "a causal model": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
    "a type that generates": {"model_type": "gpt-sw3"},
    "a class that is not known": {"architectures": ["NewFlowForCausalLM"], "model_type": "newflow"},
    "own code for a causal model": {"architectures": ["ChatModel"], "auto_map": {"AutoModelForCausalLM": "modeling.ChatModel"}},
    "settings of generation alone": {"vocab_size": 100, "eos_token_id": 7},
}


def _directory(folder: Path, config: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("config", WITHOUT.values(), ids=WITHOUT.keys())
def test_without_generate_there_is_no_verdict_about_stopping(tmp_path: Path, config: dict[str, Any]) -> None:
    report = llmdoctor.gencfg_check(paths=[_directory(tmp_path, config)])
    assert report.findings == ()
    assert report.verdict is not None
    assert "no rule about generate() applies" in report.verdict.text
    assert "no_call" in report.result["subjects"][0]
    assert "verdicts" not in report.result["subjects"][0]
    checked = llmdoctor.check_tree(paths=[str(tmp_path)])
    assert checked.findings == ()
    with pytest.raises(llmdoctor.QuestionError, match="so there is no call to resolve"):
        llmdoctor.gencfg_show(model=str(tmp_path))


@pytest.mark.parametrize("config", WITH.values(), ids=WITH.keys())
def test_what_may_generate_is_judged(tmp_path: Path, config: dict[str, Any]) -> None:
    assert no_generation(read_model_dir(_directory(tmp_path, config))) is None
    assert "verdicts" in llmdoctor.gencfg_check(paths=[str(tmp_path)]).result["subjects"][0]


def test_own_code_without_a_generating_class_is_uncertain(tmp_path: Path) -> None:
    config = {
        "architectures": ["NewModel"],
        "auto_map": {"AutoModel": "modeling.NewModel", "AutoModelForMaskedLM": "modeling.NewForMaskedLM"},
    }
    found = no_generation(read_model_dir(_directory(tmp_path, config)))
    assert found is not None
    assert not found.certain
    assert "own code may not generate" in llmdoctor.gencfg_show(model=str(tmp_path)).verdict.text


def test_a_generation_config_proves_a_call(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert no_generation(read_model_dir(_directory(tmp_path, WITHOUT["an embedding model"]))) is None


def test_an_adapter_for_classification(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"task_type": "SEQ_CLS", "base_model_name_or_path": "nowhere/at-all"}')
    assert no_generation(read_model_dir(str(tmp_path))) is not None


@pytest.mark.parametrize("value", [None, [], {}, {"model_type": "lora"}, {"model_type": 5}, {"architecture": "resnet50"}])
def test_a_config_of_another_program(value: Any) -> None:
    assert not names_a_model(value)


def test_the_table_is_that_of_the_installed_library() -> None:
    transformers = pytest.importorskip("transformers")
    table = json.loads((Path(llmdoctor.__file__).parent / "modeldir" / "generating.json").read_bytes())
    for name in ("BertForSequenceClassification", "ViTModel", "Qwen3Model"):
        assert name in table["other_classes"]
        assert not getattr(transformers, name).can_generate()
    for name in ("Qwen2ForCausalLM", "BertLMHeadModel", "WhisperForConditionalGeneration"):
        assert name not in table["other_classes"]
        assert getattr(transformers, name).can_generate()
