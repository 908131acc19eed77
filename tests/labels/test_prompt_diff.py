"""`prompt diff`: two sides from the same messages, held against the real apply_chat_template where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.options import PromptOptions, SideOptions
from llmdoctor.labels.prompt_diff import prompt_diff_report
from llmdoctor.labels.served import sglang_messages, vllm_messages

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


def test_a_blank_that_merges_with_the_answer_is_no_part_of_the_training_prompt(tmp_path: Path) -> None:
    """Mistral and Llama 2 write "[/INST] " before an answer; the blank belongs to its first word, so training and serving agree."""
    for model in ("mistral_inst", "llama2_sp"):
        assert report(tmp_path, model, "trl-sft", "vllm").result["same"], model


PARTS = [{"role": "user", "content": [{"type": "text", "text": "Name"}, {"type": "text", "text": "a river."}]}]
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
CALLING = [
    {"role": "user", "content": "The weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


def test_engines_flatten_a_content_of_parts_unless_the_template_loops_over_it() -> None:
    plain, loops = (
        "{{ m.content }}",
        "{% for m in messages %}{% set c = m.content %}{% for part in c %}{{ part.text }}{% endfor %}{% endfor %}",
    )
    assert vllm_messages(PARTS, plain)[0]["content"] == "Name\na river."
    assert sglang_messages(PARTS, plain)[0]["content"] == "Name a river."
    assert vllm_messages(TALK, loops)[0]["content"] == [{"type": "text", "text": TALK[0]["content"]}]
    assert sglang_messages(TALK, loops) == TALK
    with pytest.raises(QuestionError, match="image_url"):
        vllm_messages([{"role": "user", "content": [{"type": "image_url"}]}], plain)


def test_engines_decode_the_arguments_of_a_tool_call_and_vllm_drops_other_keys() -> None:
    messages = [*CALLING[:1], {**CALLING[1], "reasoning_content": "Hm.", "weight": 1}, CALLING[2]]
    made = vllm_messages(messages, "")
    assert made[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{**CALL, "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
    }
    assert sglang_messages(messages, "")[1]["reasoning_content"] == "Hm."
    bad = {**CALL, "function": {"name": "f", "arguments": "{"}}
    assert vllm_messages([{**CALLING[1], "tool_calls": [bad]}], "")[0]["tool_calls"][0]["function"]["arguments"] == {}
    assert sglang_messages([{**CALLING[1], "tool_calls": [bad]}], "")[0]["tool_calls"] == [bad]


def test_a_request_gives_its_tools_to_both_sides(tmp_path: Path) -> None:
    found = report(tmp_path, "qwen3_think", "transformers", "sglang", {"messages": TALK, "tools": TOOLS, "model": "m"})
    assert "get_weather" in found.result["left"]["text"]
    assert found.result["same"]
    assert found.result["inputs"]["used"] == {"tools": TOOLS}
    assert [one["key"] for one in found.result["inputs"]["ignored"]] == ["model"]
    vllm = report(tmp_path, "qwen3_think", "transformers", "vllm", {"messages": TALK, "tools": TOOLS})
    assert '"description": null' in vllm.result["right"]["text"]
    assert "null for what is missing" in vllm.verdict.text
    with pytest.raises(QuestionError, match="continue_final_message changes the prompt"):
        report(tmp_path, "qwen3_think", "transformers", "vllm", {"messages": TALK, "continue_final_message": True})


def test_what_llama_factory_does_not_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="documents is not modelled"):
        report(tmp_path, "chatml_gen", "llama-factory", "vllm", {"messages": TALK, "documents": []}, '{"documents": []}')
    with pytest.raises(QuestionError, match="user and assistant in turn"):
        report(tmp_path, "chatml_gen", "llama-factory", "vllm", CALLING)
