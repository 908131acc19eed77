"""`prompt diff`: two sides from the same messages, held against the real apply_chat_template where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.options import PromptOptions, SideOptions
from llmdoctor.labels.prompt_diff import prompt_diff_report

MODELS = Path(__file__).parent / "models"
TALK = [{"role": "user", "content": "What is two plus two?"}]


def report(tmp_path: Path, model: str, left: str, right: str, talk: object = TALK, left_kwargs: str | None = None):
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(talk))
    return prompt_diff_report(
        PromptOptions(
            model=str(MODELS / model), messages=str(path), left=SideOptions(name=left, kwargs=left_kwargs), right=SideOptions(name=right)
        )
    )


def names(found) -> list[str]:
    return [cause["name"] for cause in found.result["causes"]]


def test_training_and_the_chat_endpoint_agree(tmp_path: Path) -> None:
    found = report(tmp_path, "llama3", "trl-sft", "vllm")
    assert found.result["same"]
    assert found.verdict.status == "ok"


@pytest.mark.parametrize(
    ("model", "left", "right", "cause"),
    [
        ("llama3", "trl-sft", "vllm-completions", "double bos"),
        ("llama3", "transformers", "transformers-plain", "missing generation prompt"),
        ("bos_eos_base", "transformers", "transformers-text", "double bos"),
    ],
)
def test_the_cause_is_named(tmp_path: Path, model: str, left: str, right: str, cause: str) -> None:
    found = report(tmp_path, model, left, right)
    assert not found.result["same"]
    assert found.differs
    assert names(found)[0] == cause


def test_recorded_ids_and_another_template(tmp_path: Path) -> None:
    ids = report(tmp_path, "chatml_gen", "vllm", "vllm").result["left"]["ids"]
    recorded = tmp_path / "ids.json"
    recorded.write_text(json.dumps({"prompt_token_ids": ids}))
    assert report(tmp_path, "chatml_gen", "vllm", f"ids:{recorded}").result["same"]
    recorded.write_text(json.dumps(ids[5:]))
    assert "truncated" in names(report(tmp_path, "chatml_gen", "vllm", f"ids:{recorded}"))
    template = tmp_path / "other.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    assert "another template" in names(report(tmp_path, "chatml_gen", "vllm", f"template:{template}"))


def test_a_system_prompt_by_default_is_named_only_if_the_messages_hold_none(tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n")
    assert names(report(tmp_path, "chatml_qwen25", "vllm", f"template:{template}"))[0] == "system prompt inserted by default"
    talk = [{"role": "system", "content": "Be brief."}, *TALK]
    assert "system prompt inserted by default" not in names(report(tmp_path, "chatml_qwen25", "vllm", f"template:{template}", talk))


def test_two_directories() -> None:
    def compare(left: str, right: str) -> list[str]:
        options = PromptOptions(model=str(MODELS / left), right=SideOptions(name=f"model:{MODELS / right}"))
        return names(prompt_diff_report(options))

    assert compare("chatml_gen", "chatml_gen") == []
    assert compare("chatml_gen", "chatml_pad_eos") == ["another template", "another pad_token"]
    assert "another vocabulary" in compare("chatml_gen", "gemma")


@pytest.mark.parametrize("talk", [[], {"messages": "x"}, [1], "text"])
def test_messages_that_are_none_are_refused(tmp_path: Path, talk: object) -> None:
    with pytest.raises(QuestionError, match="expected a list of messages"):
        report(tmp_path, "chatml_gen", "trl-sft", "vllm", talk)


def test_an_unknown_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="unknown side"):
        report(tmp_path, "chatml_gen", "trl-sft", "nosuch")


@pytest.mark.live
@pytest.mark.parametrize("model", ["llama3", "chatml_qwen25", "chatml_gen", "bos_eos_base", "gemma"])
def test_ids_are_those_of_the_real_library(tmp_path: Path, model: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(MODELS / model))
    built = report(tmp_path, model, "transformers", "transformers-text").result
    real = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    text = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False)
    assert built["left"]["ids"] == real
    assert built["right"]["ids"] == tokenizer(text)["input_ids"]
