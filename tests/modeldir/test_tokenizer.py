"""Token ids from the files, with the real tokenizers library as a second opinion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.core.text import is_id
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.tokenizer import Tokenizer


def tokens(path: Path, **files: Any) -> Tokenizer:
    for name, value in files.items():
        (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return ModelDir(str(path), "model").tokenizer


def added(**ids: int) -> list[dict[str, Any]]:
    return [{"id": number, "content": f"<{name}>", "special": True} for name, number in ids.items()]


def test_each_source_alone(tmp_path: Path) -> None:
    sources: dict[str, dict[str, Any]] = {
        "tokenizer.json": {"tokenizer": {"added_tokens": added(x=5)}},
        "vocabulary": {"tokenizer": {"model": {"vocab": {"<x>": 5}}}},
        "decoder": {"tokenizer_config": {"added_tokens_decoder": {"5": {"content": "<x>", "special": True}}}},
        "added_tokens.json": {"added_tokens": {"<x>": 5}},
    }
    for name, files in sources.items():
        (tmp_path / name).mkdir()
        found = tokens(tmp_path / name, **files)
        assert found.id_of("<x>") == 5, name
        assert found.id_of("<y>") is None
        assert found.problems == ()


def test_tokenizer_json_wins_over_the_decoder_and_that_over_added_tokens(tmp_path: Path) -> None:
    found = tokens(
        tmp_path,
        tokenizer={"added_tokens": added(a=1), "model": {"vocab": {"<a>": 9, "<b>": 9, "<c>": 9, "<d>": 4}}},
        tokenizer_config={"added_tokens_decoder": {"11": {"content": "<a>"}, "2": {"content": "<b>"}}},
        added_tokens={"<a>": 12, "<b>": 12, "<c>": 3},
    )
    assert [found.id_of(f"<{name}>") for name in "abcd"] == [1, 2, 3, 4]
    assert found.token_of(2) == "<b>"


def test_special_tokens_map_counts_only_without_a_decoder(tmp_path: Path) -> None:
    """transformers 5.23.0, tokenization_utils_base.py:1879-1914."""
    files: dict[str, Any] = {
        "tokenizer_config": {"eos_token": "<a>"},
        "special_tokens_map": {"eos_token": "<b>", "pad_token": {"content": "<p>"}},
    }
    found = tokens(tmp_path, **files)
    assert {name: token.token for name, token in found.named.items()} == {"eos_token": "<b>", "pad_token": "<p>"}
    files["tokenizer_config"]["added_tokens_decoder"] = {}
    eos = tokens(tmp_path, **files).special("eos_token")
    assert eos is not None
    assert (eos.token, eos.file.shown_name.rsplit("/", 1)[-1]) == ("<a>", "tokenizer_config.json")


def test_an_empty_name_is_no_token(tmp_path: Path) -> None:
    found = tokens(tmp_path, tokenizer_config={"eos_token": "", "pad_token": None, "bos_token": 7, "unk_token": ["x"]})
    assert found.special("eos_token") is None
    assert set(found.named) == {"eos_token"}
    assert found.special_ids() == {}


HOSTILE = [
    '"added_tokens"',
    '"}, "<x>": 7, {"',
    '\\"<x>',
    '"<x>": 3',
    "\\",
    "\\\\",
    '"',
    "\n",
    "é",
    "\U0001f600",
    "\u202e",
    "/",
    "a:1,",
    "{",
    "",
    " ",
    "\u0000",
    "[/INST]",
]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_hostile_texts_keep_their_ids(ascii_only: bool, tmp_path: Path) -> None:
    vocabulary = {text: number for number, text in enumerate([*HOSTILE, "<x>"])}
    content = {"added_tokens": [{"id": 99, "content": '"added_tokens": []', "special": True}], "model": {"vocab": vocabulary}}
    found = tokens(tmp_path, tokenizer=json.dumps(content, ensure_ascii=ascii_only))
    assert {text: found.id_of(text) for text in vocabulary} == vocabulary
    assert found.id_of('"added_tokens": []') == 99
    assert found.id_of("x>") is None
    assert found.id_of("<x") is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vocabulary=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(0, 10**6), max_size=8),
    ascii_only=st.booleans(),
)
def test_a_vocabulary_is_looked_up_as_json_reads_it(vocabulary: dict[str, int], ascii_only: bool, tmp_path: Path) -> None:
    text = json.dumps({"model": {"vocab": vocabulary}}, ensure_ascii=ascii_only, indent=len(vocabulary) % 3 or None)
    found = tokens(tmp_path, tokenizer=text)
    assert {token: found.id_of(token) for token in vocabulary} == vocabulary


def test_a_unigram_vocabulary_counts_positions(tmp_path: Path) -> None:
    found = tokens(tmp_path, tokenizer={"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["</s>", -1], ["a", -2.5]]}})
    assert [found.id_of(token) for token in ("<unk>", "</s>", "a", "b")] == [0, 1, 2, None]


def test_what_is_no_id(tmp_path: Path) -> None:
    assert [is_id(value) for value in (0, 7, True, False, 1.0, "1", None)] == [True, True] + [False] * 5
    found = tokens(
        tmp_path,
        tokenizer={
            "added_tokens": [{"id": True, "content": "<a>"}, {"id": 1.0, "content": "<b>"}, 7, {"id": 3}],
            "model": {"vocab": {"<c>": True, "<d>": 1.5, "<e>": -1}},
        },
        tokenizer_config={
            "added_tokens_decoder": {
                "x": {"content": "<f>"},
                "²": {"content": "<g>"},
                "9" * 30: {"content": "<h>"},
                "-1": {"content": "<i>"},
            }
        },
        added_tokens={"<j>": False, "<k>": "1"},
    )
    assert [found.id_of(f"<{name}>") for name in "abcdefghijk"] == [None] * 11


@pytest.mark.parametrize(
    "content",
    [
        [],
        7,
        None,
        {"added_tokens": 3},
        {"model": 3},
        {"model": {"vocab": 3}},
        {"model": {"vocab": [1]}},
        {"model": None},
        {"model": {"vocab": None}},
    ],
)
def test_shapes_that_no_tokenizer_has(content: Any, tmp_path: Path) -> None:
    found = tokens(tmp_path, tokenizer=content)
    assert found.id_of("<x>") is None
    assert bool(found.problems) == (not isinstance(content, dict))


def test_a_broken_file_says_where(tmp_path: Path) -> None:
    (problem,) = tokens(tmp_path, tokenizer='{\n"model": {"vocab": {"a": 0,\n}}}').problems
    assert problem.location is not None
    assert (problem.code, problem.location.pointer, problem.location.line) == ("DIR001", "/model/vocab", 3)


def test_what_only_python_calls_json_is_told_and_still_read(tmp_path: Path) -> None:
    found = tokens(tmp_path, tokenizer='{"added_tokens": [{"id": 5, "content": "<x>"}], "model": {"vocab": {"<y>": 6}}, "score": NaN}')
    assert [problem.code for problem in found.problems] == ["DIR003"]
    assert (found.id_of("<x>"), found.id_of("<y>")) == (5, 6)


@pytest.mark.parametrize("kind", ["BPE", "WordPiece", "Unigram", "WordLevel"])
def test_agrees_with_the_real_library(kind: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, trainers

    empty = {"WordPiece": {"unk_token": "[UNK]"}, "WordLevel": {"unk_token": "[UNK]"}}.get(kind, {})
    real = tokenizers.Tokenizer(getattr(models, kind)(**empty))
    real.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", "<|endoftext|>", '<|"q"|>']
    trainer = getattr(trainers, kind.replace("BPE", "Bpe") + "Trainer")(vocab_size=120, special_tokens=special)
    real.train_from_iterator(["the quick brown fox", 'a "quoted" back\\slash', "größer 😀 naïve", "[/INST] {}: , 1"] * 20, trainer)
    real.add_tokens(["<tool>", "brown fox"])
    real.save(str(tmp_path / "tokenizer.json"))
    found = ModelDir(str(tmp_path), "model").tokenizer
    vocabulary = real.get_vocab(with_added_tokens=True)
    assert len(vocabulary) > 20
    assert {token: found.id_of(token) for token in vocabulary} == {token: real.token_to_id(token) for token in vocabulary}
    assert found.special_ids() == {token: real.token_to_id(token) for token in special}
    assert found.id_of("nowhere") is real.token_to_id("nowhere") is None
