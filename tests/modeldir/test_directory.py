"""A directory as a whole: which of its files are read, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.modeldir import directory as module
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from tests.conftest import write_model


def value(directory: ModelDir, name: str) -> Any:
    file = getattr(directory, name)
    return None if file is None else file.value


def adapter(path: Path, base: Any) -> ModelDir:
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return read_model_dir(str(path))


def codes(directory: ModelDir) -> list[str]:
    return [problem.code for problem in directory.problems()]


def test_a_clean_directory(tmp_path: Path) -> None:
    directory = read_model_dir(str(write_model(tmp_path / "model")) + "/")
    assert codes(directory) == []
    assert value(directory, "config")["model_type"] == "qwen2"
    assert directory.adapter is None
    assert directory.shown_name == str(tmp_path / "model")


def test_an_adapter_with_a_local_base(tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    for name in ("../base", str(tmp_path / "base")):
        directory = adapter(tmp_path / "adapter", name)
        assert value(directory, "config")["eos_token_id"] == 11
        assert value(directory, "generation_config")["eos_token_id"] == [11, 10]
        assert directory.tokenizer.id_of("<|im_end|>") == 11
        assert directory.chat_template is not None
        assert codes(directory) == []


def test_an_adapters_own_tokenizer_and_template_come_first(tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    write_model(tmp_path / "adapter", config=None, generation_config=None, tokenizer={"added_tokens": [{"id": 3, "content": "<|im_end|>"}]})
    directory = adapter(tmp_path / "adapter", "../base")
    assert directory.tokenizer.id_of("<|im_end|>") == 3


def test_an_adapter_with_a_cached_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--org--base"
    write_model(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    directory = adapter(tmp_path / "adapter", "org/base")
    assert directory.adapter is not None
    assert directory.adapter.base is not None
    assert value(directory, "generation_config")["eos_token_id"] == [11, 10]


@pytest.mark.parametrize("base", ["org/base", "", None, 7, ["x"], "a\0b", "\ud800", "../" * 50 + "nowhere", "x" * 5000])
def test_an_adapter_whose_base_is_not_here(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    directory = adapter(tmp_path / "adapter", base)
    assert directory.config is None
    assert "DIR011" in codes(directory)


def test_an_adapter_on_itself_has_an_end(tmp_path: Path) -> None:
    directory = adapter(tmp_path / "adapter", str(tmp_path / "adapter"))
    assert directory.config is None
    assert directory.tokenizer.named == {}
    assert directory.templates == {}
    assert codes(directory) == []


def test_two_adapters_on_each_other_have_an_end(tmp_path: Path) -> None:
    adapter(tmp_path / "one", "../two")
    directory = adapter(tmp_path / "two", "../one")
    assert directory.generation_config is None
    assert directory.tokenizer.id_of("x") is None


@pytest.mark.parametrize(
    ("name", "wanted"), [("generation_config.json", (None, {"a": 1})), ("mine.json", (None, {"a": 1})), ("config.json", ({"a": 1}, None))]
)
def test_a_single_file(name: str, wanted: tuple[Any, Any], tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "model" / name).write_text('{"a": 1}')
    directory = read_model_dir(str(tmp_path / "model" / name))
    assert (value(directory, "config"), value(directory, "generation_config")) == wanted
    assert directory.tokenizer.named == {}
    assert directory.chat_template is None
    assert codes(directory) == []


def test_a_directory_of_a_tokenizer_alone(tmp_path: Path) -> None:
    directory = read_model_dir(str(write_model(tmp_path / "model", config=None, generation_config=None)))
    assert (directory.config, directory.generation_config) == (None, None)
    assert directory.tokenizer.special("eos_token") is not None


def test_files_are_read_once_and_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = module.read_optional

    def counting(path: str, *rest: Any) -> Any:
        read.append(Path(path).name)
        return real(path, *rest)

    monkeypatch.setattr(module, "read_optional", counting)
    directory = read_model_dir(str(write_model(tmp_path / "model")))
    assert read == []
    _ = directory.generation_config, directory.generation_config
    assert [name for name in read if name == "generation_config.json"] == ["generation_config.json"]
    assert not {"config.json", "tokenizer_config.json", "special_tokens_map.json"} & set(read)
    list(directory.problems())
    assert len(read) == len(set(read))


@pytest.mark.parametrize("content", ["[]", "7", "null", '"x"'])
def test_json_that_is_no_object(content: str, tmp_path: Path) -> None:
    directory = read_model_dir(str(write_model(tmp_path / "model", generation_config=content)))
    assert ("DIR001" in codes(directory)) or content == "null"


def test_code_of_the_directory_is_reported_wherever_it_is_named(tmp_path: Path) -> None:
    auto = {"auto_map": {"AutoX": "x.X"}}
    directory = read_model_dir(str(write_model(tmp_path / "model", config=auto, tokenizer_config=auto, processor_config=auto)))
    assert codes(directory) == ["DIR010"] * 3
    assert directory.remote_code == {"AutoX": "x.X"}


@pytest.mark.parametrize("make", ["missing", "empty", "text file", "fifo", "nul"])
def test_what_is_no_model(make: str, tmp_path: Path) -> None:
    import os

    path = tmp_path / "x"
    if make == "empty":
        path.mkdir()
    elif make == "text file":
        path.write_text("x")
    elif make == "fifo":
        os.mkfifo(path)
    with pytest.raises(QuestionError) as caught:
        read_model_dir("\0" if make == "nul" else str(path))
    assert "\n" not in str(caught.value)
