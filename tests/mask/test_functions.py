"""`mask inspect module:function`: a mask_mod is evaluated, a model is run as its function builds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_command

pytestmark = pytest.mark.live
_MODULE = """
import torch

documents = torch.tensor([0] * 3 + [1] * 5)

def packed(b, h, q, k):
    return (q >= k) & (documents[q] == documents[k])

def blind(b, h, q, k):
    return q > k

def ahead(b, h, q, k):
    return k <= q + 1

def by_head(b, h, q, k):
    return (q >= k) & ((h == 0) | (q - k < 3))

def model():
    from transformers import LlamaConfig, LlamaForCausalLM
    return LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64))

def number():
    return 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("functions")
    (path / "mask_functions.py").write_text(_MODULE)
    return path


def ask(folder: Path, name: str, *arguments: str) -> tuple[int, Any, str]:
    outcome = run_command("mask", "inspect", f"mask_functions:{name}", *arguments, "--format", "json", cwd=folder)
    return outcome.code, json.loads(outcome.out) if outcome.out else None, outcome.err


def test_a_mask_mod_is_drawn_and_counted(folder: Path) -> None:
    code, report, _ = ask(folder, "packed", "--shape", "1,8")
    assert code == 0
    (layer,) = report["result"]["layers"]
    assert (layer["type"], layer["visible"], layer["total"]) == ("mask_mod", 6 + 15, 64)
    assert "no query sees a later token" in report["verdict"]["text"]


def test_a_mask_mod_that_looks_ahead_or_hides_everything(folder: Path) -> None:
    assert "7 of 8 queries see a later token" in ask(folder, "ahead", "--shape", "1,8")[1]["verdict"]["text"]
    code, report, _ = ask(folder, "blind", "--shape", "1,8")
    assert code == 1
    assert [one["code"] for one in report["findings"]] == ["MSK003"]


def test_a_mask_mod_that_looks_at_the_head_is_not_exact(folder: Path) -> None:
    report = ask(folder, "by_head", "--shape", "1,8")[1]
    assert report["verdict"]["status"] == "undecided"
    assert [layer["exact"] for layer in report["result"]["layers"]] == [False]


def test_a_model_is_run_as_built(folder: Path) -> None:
    code, report, _ = ask(folder, "model", "--lengths", "3,5")
    assert code == 0
    (layer,) = report["result"]["layers"]
    assert (layer["backend"], layer["layers"], layer["visible"]) == ("sdpa", [0, 1], 6 + 15)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("packed", ("--shape", "1,9"), "out of bounds"),
        ("packed", ("--lengths", "3,5"), "indices alone"),
        ("packed", ("--backend", "sdpa"), "the function decides it"),
        ("number", (), "expected a transformers model"),
        ("missing", (), "no such function"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(name: str, arguments: tuple[str, ...], words: str, folder: Path) -> None:
    outcome = run_command("mask", "inspect", f"mask_functions:{name}", *arguments, cwd=folder)
    assert outcome.code == 2
    assert words in outcome.err
