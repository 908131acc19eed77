"""Each cause of a difference is made on purpose, with several tokenizers and templates: the first cause named must be the one that was made."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.options import PromptOptions, SideOptions
from llmdoctor.labels.prompt_diff import prompt_diff_report

MODELS = Path(__file__).parent / "models"
TALK = [{"role": "user", "content": "Name a river in France."}]
CHAT = ["llama3", "gemma", "mistral_inst", "llama2_sp", "deepseek_r1", "chatml_gen", "chatml_qwen25", "qwen3_think", "bos_eos_base"]
WITH_BOS = ["llama3", "gemma", "mistral_inst", "llama2_sp", "deepseek_r1"]
WITH_PROMPT = ["llama3", "gemma", "chatml_gen", "chatml_qwen25", "qwen3_think", "deepseek_r1", "bos_eos_base"]


def causes(
    tmp_path: Path, model: str, left: str, right: str, left_kwargs: dict[str, Any] | None = None, talk: list[Any] = TALK
) -> tuple[list[str], Any]:
    messages = tmp_path / "chat.json"
    messages.write_text(json.dumps(talk))
    report = prompt_diff_report(
        PromptOptions(
            model=str(MODELS / model),
            messages=str(messages),
            left=SideOptions(name=left, kwargs=None if left_kwargs is None else json.dumps(left_kwargs)),
            right=SideOptions(name=right),
        )
    )
    return [cause["name"] for cause in report.result["causes"]], report.result


def template_of(model: str) -> str:
    return json.loads((MODELS / model / "tokenizer_config.json").read_text())["chat_template"]


def changed(tmp_path: Path, source: str) -> str:
    path = tmp_path / "other.jinja"
    path.write_text(source)
    return f"template:{path}"


@pytest.mark.parametrize("model", WITH_BOS)
def test_double_bos(tmp_path: Path, model: str) -> None:
    assert causes(tmp_path, model, "vllm", "vllm-completions")[0][0] == "double bos"


@pytest.mark.parametrize("model", WITH_PROMPT)
def test_missing_generation_prompt(tmp_path: Path, model: str) -> None:
    assert causes(tmp_path, model, "transformers", "transformers-plain")[0][0] == "missing generation prompt"


@pytest.mark.parametrize("model", CHAT)
def test_whitespace(tmp_path: Path, model: str) -> None:
    other = changed(tmp_path, template_of(model) + "{{ '\\n\\n' }}")
    assert causes(tmp_path, model, "vllm", other)[0][0] == "whitespace"


@pytest.mark.parametrize("model", [name for name in CHAT if name != "chatml_qwen25"])  # it has one
def test_a_default_system_prompt(tmp_path: Path, model: str) -> None:
    other = changed(
        tmp_path, "{{ 'system: You are helpful. ' }}" + template_of(model).replace("{{- bos_token }}", "").replace("{{ bos_token }}", "")
    )
    found = causes(tmp_path, model, "vllm", other)[0]
    assert "system prompt inserted by default" in found[:2]


@pytest.mark.parametrize("model", CHAT)
def test_a_date(tmp_path: Path, model: str) -> None:
    dated = template_of(model) + "{{ 'Today Date: ' + (date or '26 Jul 2024') }}"
    other = tmp_path / "dated.jinja"
    other.write_text(dated)
    left = f"template:{other}"
    found, _ = causes(tmp_path, model, left, left, {"date": "30 Nov 2026"})
    assert found[0] == "date inserted"


@pytest.mark.parametrize("model", CHAT)
def test_truncated(tmp_path: Path, model: str) -> None:
    _, result = causes(tmp_path, model, "vllm", "vllm")
    recorded = tmp_path / "ids.json"
    recorded.write_text(json.dumps(result["left"]["ids"][4:]))
    assert "truncated" in causes(tmp_path, model, "vllm", f"ids:{recorded}")[0][:2]
    recorded.write_text(json.dumps(result["left"]["ids"][:-4]))
    assert "truncated" in causes(tmp_path, model, "vllm", f"ids:{recorded}")[0][:2]


@pytest.mark.parametrize("model", WITH_PROMPT)
def test_recorded_ids_without_the_generation_prompt(tmp_path: Path, model: str) -> None:
    _, result = causes(tmp_path, model, "vllm", "transformers-plain")
    recorded = tmp_path / "ids.json"
    recorded.write_text(json.dumps(result["right"]["ids"]))
    assert causes(tmp_path, model, "vllm", f"ids:{recorded}")[0][0] == "missing generation prompt"


def test_a_thinking_prefix(tmp_path: Path) -> None:
    assert causes(tmp_path, "qwen3_think", "vllm", "vllm", {"enable_thinking": False})[0][0] == "thinking prefix"


@pytest.mark.parametrize("model", CHAT)
def test_another_template(tmp_path: Path, model: str) -> None:
    other = changed(tmp_path, "{% for m in messages %}### {{ m.role }}: {{ m.content }} {% endfor %}### Response:")
    assert "another template" in causes(tmp_path, model, "vllm", other)[0]


@pytest.mark.parametrize("model", ["llama3", "chatml_gen", "qwen3_think", "gemma"])
def test_other_tokens_for_the_same_text(tmp_path: Path, model: str) -> None:
    folder = tmp_path / "more"
    shutil.copytree(MODELS / model, folder)
    config = folder / "tokenizer_config.json"
    value = json.loads(config.read_text())
    value["added_tokens_decoder"]["9000"] = {"content": "river", "special": True}
    config.write_text(json.dumps(value))
    found, _ = causes(tmp_path, model, "vllm", f"model:{folder}")
    assert found == ["other tokens for the same text"]


def gguf(path: Path, values: dict[str, Any]) -> str:
    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def item(value: Any) -> bytes:
        if isinstance(value, bool):
            return struct.pack("<I?", 7, value)
        if isinstance(value, int):
            return struct.pack("<II", 4, value)
        if isinstance(value, list):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        return struct.pack("<I", 8) + text(value)

    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(text(key) + item(value) for key, value in values.items()))
    return str(path)


def values_of(model: str, **more: Any) -> dict[str, Any]:
    tokenizer = json.loads((MODELS / model / "tokenizer.json").read_text())
    vocabulary = {**tokenizer["model"]["vocab"], **{one["content"]: one["id"] for one in tokenizer["added_tokens"]}}
    config = json.loads((MODELS / model / "tokenizer_config.json").read_text())
    tokens = [text for text, _ in sorted(vocabulary.items(), key=lambda pair: pair[1])]
    ids = {f"tokenizer.ggml.{name}_token_id": vocabulary[config[f"{name}_token"]] for name in ("bos", "eos") if f"{name}_token" in config}
    return {
        "tokenizer.chat_template": config["chat_template"],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.model": "gpt2",
        **ids,
        **more,
    }


@pytest.mark.parametrize("model", ["llama3", "deepseek_r1"])
def test_llama_cpp_sends_one_bos(tmp_path: Path, model: str) -> None:
    file = gguf(tmp_path / "m.gguf", values_of(model, **{"tokenizer.ggml.add_bos_token": True}))
    found, result = causes(tmp_path, model, "transformers", f"gguf:{file}")
    assert (found, result["same"]) == ([], True)


def test_a_modelfile_is_rendered_or_refused_by_name(tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf", values_of("chatml_gen", **{"tokenizer.ggml.add_bos_token": False}))
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text("FROM ./m.gguf\n")
    assert causes(tmp_path, "chatml_gen", "vllm", f"modelfile:{modelfile}")[1]["same"]
    modelfile.write_text('FROM ./m.gguf\nTEMPLATE """{{ .Prompt }}"""\n')
    with pytest.raises(QuestionError, match="Go template"):
        causes(tmp_path, "chatml_gen", "vllm", f"modelfile:{modelfile}")
    modelfile.write_text("FROM ./m.gguf\nSYSTEM Be brief.\n")
    with pytest.raises(QuestionError, match="SYSTEM"):
        causes(tmp_path, "chatml_gen", "vllm", f"modelfile:{modelfile}")


def test_a_gguf_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    file = gguf(tmp_path / "m.gguf", values_of("gemma", **{"tokenizer.ggml.add_bos_token": True}))
    with pytest.raises(QuestionError, match="another vocabulary"):
        causes(tmp_path, "llama3", "vllm", f"gguf:{file}")
