"""The tiny Qwen2-VL is a real directory: its files say what the published ones say, and the real code loads every weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

from llmdoctor.demo.live.tiny_qwen2_vl import CHAT_TEMPLATE, SENTENCE, SPECIAL_TOKENS, build

PUBLISHED = Path(__file__).parents[4] / "shared" / "corpus" / "dirs" / "BrianYAU-NTEC__olmOCR__root"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "deep" / "qwen2-vl")


def test_eos_starts_on_the_line_where_the_published_file_has_it(directory: Path) -> None:
    lines = (directory / "generation_config.json").read_text().splitlines()
    assert lines[4] == '  "eos_token_id": ['


def test_the_ids_agree_between_the_files(directory: Path) -> None:
    generation = json.loads((directory / "generation_config.json").read_text())
    config = json.loads((directory / "config.json").read_text())
    added = {item["content"]: item["id"] for item in json.loads((directory / "tokenizer.json").read_text())["added_tokens"]}
    assert tuple(added) == SPECIAL_TOKENS
    assert generation["eos_token_id"] == [added["<|im_end|>"], added["<|endoftext|>"]]
    assert generation["bos_token_id"] == generation["pad_token_id"] == added["<|endoftext|>"]
    assert config["eos_token_id"] == added["<|im_end|>"]
    assert config["image_token_id"] == added["<|image_pad|>"]
    assert max(added.values()) < config["vocab_size"]


def test_the_same_seed_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    again, other = build(tmp_path / "again"), build(tmp_path / "other", seed=1)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in directory.iterdir()}
    assert (other / "model.safetensors").read_bytes() != (directory / "model.safetensors").read_bytes()


def test_the_documented_example_has_its_files(directory: Path) -> None:
    example = Path(__file__).parents[3] / "docs" / "examples" / "qwen2-vl-tiny"
    assert {path.name: path.read_bytes() for path in example.iterdir()} == {
        path.name: (directory / path.name).read_bytes() for path in example.iterdir()
    }


def test_it_is_small(directory: Path) -> None:
    assert sum(path.stat().st_size for path in directory.iterdir()) < 3_000_000


def test_no_word_of_the_sentence_stands_in_two_places() -> None:
    words = [word for place in SENTENCE for word in place]
    assert len(words) == len(set(words))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the corpus is not here")
def test_the_files_have_the_keys_and_the_template_of_a_published_directory(directory: Path) -> None:
    for name in ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "chat_template.json"):
        ours, theirs = (json.loads((root / name).read_text()) for root in (directory, PUBLISHED))
        assert set(ours) == set(theirs), name
    assert json.loads((PUBLISHED / "chat_template.json").read_text())["chat_template"] == CHAT_TEMPLATE
    published = json.loads((PUBLISHED / "generation_config.json").read_text())
    ours = json.loads((directory / "generation_config.json").read_text())
    same = {key: value for key, value in published.items() if not key.endswith("_token_id")}
    assert {key: ours[key] for key in same} == same
    assert list(ours) == list(published)


@pytest.mark.live
def test_the_real_classes_load_every_weight_and_know_every_name(directory: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    model, info = transformers.Qwen2VLForConditionalGeneration.from_pretrained(str(directory), output_loading_info=True)
    assert not any(info.values()), info
    processor = transformers.AutoProcessor.from_pretrained(str(directory))
    assert type(processor).__name__ == "Qwen2VLProcessor"
    assert processor.tokenizer.eos_token_id == model.generation_config.eos_token_id[0]
    text = "The picture shows one big red shape on white.<|im_end|>"
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids) == text
    assert len(ids) == len(SENTENCE) + 1
