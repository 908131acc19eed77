"""No setting is dropped: each key of a trainer's configuration is used, ignored with a reason, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.inspect import inspect_report
from llmdoctor.labels.options import LabelsOptions

MODEL = str(Path(__file__).parent / "models" / "chatml_qwen25")
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


def report(tmp_path: Path, trainer: str, config: dict, without: tuple[str, ...] = ()):
    data, file = tmp_path / "data.jsonl", tmp_path / "config.json"
    data.write_text(json.dumps(ROW) + "\n")
    file.write_text(json.dumps(config))
    return inspect_report(LabelsOptions(model=MODEL, data=str(data), trainer=trainer, config=str(file), without=without))


def test_a_setting_of_the_training_loop_is_ignored_with_a_reason(tmp_path: Path) -> None:
    inputs = report(tmp_path, "trl-sft@1.0.0", {"learning_rate": 1e-5, "max_length": 99, "bf16": True}).result["inputs"]
    assert inputs["used"] == {"max_length": 99}
    assert {entry["key"] for entry in inputs["ignored"]} == {"learning_rate", "bf16"}


@pytest.mark.parametrize(
    ("trainer", "config", "key"),
    [
        ("trl-sft@1.0.0", {"chat_template_path": "x.jinja"}, "chat_template_path"),
        ("axolotl@0.19.0", {"datasets": [{"type": "chat_template"}], "sample_packing": True}, "sample_packing"),
        ("llama-factory@0.9.5", {"template": "qwen", "stage": "pt"}, "stage"),
        ("ms-swift@4.6.0", {"template": "qwen2_5", "packing": True}, "packing"),
        ("trl-sft@1.0.0", {"max_lenght": 99}, "max_lenght"),
    ],
)
def test_what_could_change_the_labels_is_refused_by_name(tmp_path: Path, trainer: str, config: dict, key: str) -> None:
    with pytest.raises(QuestionError, match=key):
        report(tmp_path, trainer, config)
    answer = report(tmp_path, trainer, config, (key,))
    assert answer.verdict is not None
    assert key in answer.verdict.text


def test_the_verdict_says_how_many_rows_a_trainer_leaves_out(tmp_path: Path) -> None:
    data, file = tmp_path / "data.jsonl", tmp_path / "config.json"
    odd = {"messages": [{"role": "developer", "content": "Be brief."}, *ROW["messages"]]}
    data.write_text(json.dumps(ROW) + "\n" + json.dumps(odd) + "\n")
    file.write_text(json.dumps({"template": "qwen2_5", "max_length": 99}))
    answer = inspect_report(LabelsOptions(model=MODEL, data=str(data), trainer="ms-swift@4.6.0", config=str(file)))
    assert answer.verdict is not None
    assert "ms-swift leaves out 1 of 2 rows" in answer.verdict.text


def test_a_misspelt_key_names_the_one_that_is_meant(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match='is "max_length" meant'):
        report(tmp_path, "trl-sft@1.0.0", {"max_lenght": 99})


def test_another_release_is_a_limit_of_the_verdict(tmp_path: Path) -> None:
    verdict = report(tmp_path, "trl-sft@1.3.0", {}).verdict
    assert verdict is not None
    assert verdict.status == "undecided"
    assert "trl 1.3.0 was not compared: the rules are those of 1.2.0" in verdict.text
    with pytest.raises(QuestionError, match=r"the oldest release compared is 0\.12\.2"):
        report(tmp_path, "trl-sft@0.9.0", {})
