"""The tokenizer that transformers makes of a directory is not always tokenizer.json: compared with the ids of the real libraries.

Expected ids: transformers 4.57.6 and 5.23.0, AutoTokenizer over tests/labels/models with the changes named here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.labels.live.encoder import FastEncoder
from llmdoctor.modeldir.directory import read_model_dir

MODELS = Path(__file__).parent / "models"


def loaded(tmp_path: Path, name: str, release: int, **changes: Any) -> FastEncoder:
    folder = tmp_path / name
    shutil.copytree(MODELS / name, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    return FastEncoder(read_model_dir(str(folder)), release)


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
    assert four.depends_on_release
    assert five.depends_on_release
    assert [four.token_of(token) for token in four.encode("<s>Rome", special=False).ids][1].startswith("\u2581")
    assert not [five.token_of(token) for token in five.encode("<s>Rome", special=False).ids][1].startswith("\u2581")


def test_a_named_token_outside_the_vocabulary_gets_the_next_id(tmp_path: Path) -> None:
    encoder = loaded(tmp_path, "llama3", 5, pad_token="[PAD]")
    assert encoder.pad_id == 406


@pytest.mark.live
@pytest.mark.parametrize("name", ["llama3", "mistral_inst", "llama2_sp", "gemma", "chatml_gen", "bos_eos_base"])
@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "LlamaTokenizerFast"])
def test_ids_are_those_of_the_installed_library(tmp_path: Path, name: str, tokenizer_class: str) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = loaded(tmp_path, name, int(transformers.__version__.partition(".")[0]), tokenizer_class=tokenizer_class, add_eos_token=True)
    real = transformers.AutoTokenizer.from_pretrained(str(tmp_path / name))
    for text in ("What is two plus two?", "  naïve 東京 ", "<s>[INST] a [/INST] b", "a</s>b"):
        assert encoder.encode(text).ids == real(text).input_ids
