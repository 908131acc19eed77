"""The tokenizer that transformers makes of a directory is not always tokenizer.json: compared with the ids of the real libraries.

Expected ids: transformers 4.57.6 and 5.23.0, AutoTokenizer over tests/labels/models with the changes named here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.live.encoder import FastEncoder
from llmdoctor.labels.live.loading import loaded_class
from llmdoctor.modeldir.directory import read_model_dir

MODELS = Path(__file__).parent / "models"


def loaded(tmp_path: Path, name: str, release: int | tuple[int, ...], **changes: Any) -> FastEncoder:
    folder = tmp_path / name
    shutil.copytree(MODELS / name, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    return FastEncoder(read_model_dir(str(folder)), (release,) if isinstance(release, int) else release)


@pytest.mark.parametrize(
    ("release", "changes", "bos", "eos"),
    [
        (4, {"tokenizer_class": "LlamaTokenizerFast"}, True, False),
        (4, {"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": True}, True, True),
        (4, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}, False, False),
        (4, {"add_bos_token": False}, True, False),  # PreTrainedTokenizerFast does not look at it
        (5, {"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": True}, True, False),
    ],
)
def test_what_the_class_adds(tmp_path: Path, release: int, changes: dict[str, Any], bos: bool, eos: bool) -> None:
    encoder = loaded(tmp_path, "llama3", release, **changes)
    ids, plain = encoder.encode("Rome").ids, encoder.encode("Rome", special=False).ids
    assert ids == [encoder.bos_id] * bos + plain + [encoder.eos_id] * eos


def test_llama_in_transformers_5_writes_no_blank_behind_a_special_token(tmp_path: Path) -> None:
    class_name = {"tokenizer_class": "LlamaTokenizer"}
    four = loaded(tmp_path / "4", "llama2_sp", 4, **class_name)
    five = loaded(tmp_path / "5", "llama2_sp", 5, **class_name)
    assert four.differing == ("5.21", "5")
    assert five.differing == ("4",)
    assert [four.token_of(token) for token in four.encode("<s>Rome", special=False).ids][1].startswith("\u2581")
    assert not [five.token_of(token) for token in five.encode("<s>Rome", special=False).ids][1].startswith("\u2581")


def test_a_byte_level_file_of_class_llama_is_rebuilt_before_5_22(tmp_path: Path) -> None:
    """Ids of AutoTokenizer of transformers 5.16.1 and 5.23.0 for a file like that of DeepSeek-R1-Distill."""
    old, new = (loaded(tmp_path / str(release[-1]), "deepseek_r1", release) for release in ((5, 16, 1), (5, 23, 0)))
    assert old.encode("What is two plus two?", special=False).ids == [372, 271, 260, 83, 278, 79, 400, 83, 278, 30]
    assert new.encode("What is two plus two?", special=False).ids == [372, 271, 266, 299, 329, 400, 299, 30]
    assert old.differing == ("4", "5")
    assert new.differing == ("5.21",)


def test_transformers_5_replaces_the_pre_tokenizer_of_a_file_by_that_of_the_class(tmp_path: Path) -> None:
    """GPT2Tokenizer, and a pre_tokenizer with a further step; 5.23.0 loads it without that step (tokenization_gpt2.py:128)."""
    four, five = (loaded(tmp_path / str(release), "chatml_gen", release, tokenizer_class="GPT2Tokenizer") for release in (4, 5))
    assert not five.differing
    for release in (4, 5):
        file = tmp_path / str(release) / "chatml_gen" / "tokenizer.json"
        value = json.loads(file.read_text())
        steps = [{"type": "Split", "pattern": {"String": "w"}, "behavior": "Isolated", "invert": False}, value["pre_tokenizer"]]
        file.write_text(json.dumps({**value, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}))
    four, five = (FastEncoder(read_model_dir(str(tmp_path / str(release) / "chatml_gen")), (release,)) for release in (4, 5))
    assert four.differing
    assert len(four.encode(" two").ids) == 3
    assert five.encode(" two").ids == loaded(tmp_path / "plain", "chatml_gen", 4).encode(" two").ids


@pytest.mark.parametrize(
    ("named", "model_type", "expected"),
    [
        ("LlamaTokenizerFast", "llama", "LlamaTokenizer"),
        ("LlamaTokenizerFast", "mistral", "TokenizersBackend"),
        ("LlamaTokenizerFast", "phi3", "TokenizersBackend"),
        ("LlamaTokenizerFast", "qwen2", "Qwen2Tokenizer"),
        ("GPT2Tokenizer", "llama", "GPT2Tokenizer"),
        ("PreTrainedTokenizerFast", "llama", "TokenizersBackend"),
        (None, "gemma2", "GemmaTokenizer"),
        ("Qwen2Tokenizer", None, "Qwen2Tokenizer"),
    ],
)
def test_which_class_transformers_5_loads(tmp_path: Path, named: str | None, model_type: str | None, expected: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    assert loaded_class(read_model_dir(str(tmp_path)), b"") == expected


def test_a_named_token_outside_the_vocabulary_gets_the_next_id(tmp_path: Path) -> None:
    encoder = loaded(tmp_path, "llama3", 5, pad_token="[PAD]")
    assert encoder.pad_id == 406


@pytest.mark.live
@pytest.mark.parametrize("name", ["llama3", "mistral_inst", "llama2_sp", "gemma", "chatml_gen", "bos_eos_base"])
@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer"])
def test_ids_are_those_of_the_installed_library(tmp_path: Path, name: str, tokenizer_class: str) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = loaded(tmp_path, name, int(transformers.__version__.partition(".")[0]), tokenizer_class=tokenizer_class, add_eos_token=True)
    real = transformers.AutoTokenizer.from_pretrained(str(tmp_path / name))
    for text in ("What is two plus two?", "  naïve 東京 ", "<s>[INST] a [/INST] b", "a</s>b", "in 1234: I don't\r\n"):
        assert encoder.encode(text).ids == real(text).input_ids


@pytest.mark.live
def test_a_directory_without_tokenizer_json_is_read_through_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = json.loads((MODELS / "chatml_train" / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]))
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copy(MODELS / "chatml_train" / name, tmp_path)
    encoder, real = FastEncoder(read_model_dir(str(tmp_path))), transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("What is two plus two? 12", "<|im_start|>user\nnaïve 東京<|im_end|>"):
        assert encoder.encode(text).ids == real(text).input_ids
    assert (encoder.eos_id, encoder.pad_id) == (real.eos_token_id, real.pad_token_id)


def test_what_is_no_tokenizer_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(QuestionError, match="no tokenizer here"):
        FastEncoder(read_model_dir(str(tmp_path)))
    pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes(b"\0junk")
    with pytest.raises(QuestionError, match="cannot convert the other files"):
        FastEncoder(read_model_dir(str(tmp_path)))
