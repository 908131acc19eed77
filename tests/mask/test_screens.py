"""What a person reads, at 80 columns; what a program reads; and every way of asking badly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

import llmdoctor
from tests.conftest import Outcome, run_command
from tests.mask.models import CONFIGS, write_config

SCHEMA = json.loads((Path(llmdoctor.__file__).parent / "schema" / "report.schema.json").read_text())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in CONFIGS:
        write_config(tmp_path, name)
    return tmp_path


def ask(models: Path, *arguments: str) -> Outcome:
    return run_command("mask", "inspect", *arguments, cwd=models)


@pytest.mark.parametrize(
    "arguments",
    [
        ("llama", "--shape", "1,32768"),
        ("gemma2", "--lengths", "5,8"),
        ("mistral", "--shape", "2,8", "--phase", "decode", "--cache", "static:16"),
        ("qwen2_vl", "--packed", "3,5", "--cache", "dynamic", "--backend", "eager,sdpa"),
        ("gemma3", "--shape", "1,8", "--image", "2:4"),
        ("jamba", "--lengths", "3,5", "--pad", "right"),
        ("t5", "--lengths", "3,5", "--backend", "eager,sdpa"),
        ("llama", "--lengths", "5,8", "--query", "6"),
        ("llama", "--shape", "1,8", "--phase", "decode", "--cache", "static:16", "--backend", "gpt-fast,sdpa"),
        ("bloom", "--shape", "1,8", "--backend", "sdpa"),
    ],
    ids=" ".join,
)
def test_screens(arguments: tuple[str, ...], models: Path, snapshot: SnapshotAssertion) -> None:
    outcome = ask(models, *arguments)
    assert outcome.err == ""
    assert all(len(line) <= 80 for line in outcome.out.split("\n"))
    assert outcome.out == snapshot


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract(name: str, models: Path) -> None:
    report = ask(models, name, "--lengths", "5,8", "--format", "json").report
    jsonschema.validate(report, SCHEMA)
    result = report["result"]
    assert result["unobserved"] == []
    keys = {
        "layers", "type", "backend", "q_len", "kv_len", "q_offset", "formula", "object", "skip_reason", "kernel", "visible", "total", "exact",
    }  # fmt: skip
    for group in result["layers"]:
        assert set(group) == keys
        assert {"kind", "shape", "dtype", "logical_bytes", "storage_bytes"} == set(group["object"])
        assert {"is_causal", "window", "cu_seqlens"} <= set(group["kernel"])
        if group["type"] != "linear":
            assert group["exact"]
            assert 0 <= group["visible"] <= group["total"]


def test_the_sentence_is_the_numbers(models: Path) -> None:
    report = ask(models, "llama", "--shape", "1,32768", "--format", "json").report
    spent = {group["backend"]: group["object"]["storage_bytes"] for group in report["result"]["layers"]}
    assert spent == {"eager": 4 * 32768**2, "sdpa": 0, "flash_attention_2": 0, "flex_attention": 4 * (2 * (256 + 256 * 256) * 2)}
    assert {group["visible"] for group in report["result"]["layers"]} == {32768 * 32769 // 2}


def test_an_error_of_the_library_is_an_answer(models: Path) -> None:
    outcome = ask(models, "bloom", "--shape", "1,8", "--backend", "flex_attention", "--format", "json")
    assert outcome.code == 1
    assert outcome.report["result"]["layers"] == []
    assert outcome.report["result"]["error"].startswith("ValueError: BloomForCausalLM does not support")
    assert [finding["code"] for finding in outcome.report["findings"]] == ["MSK020"]


def test_a_model_type_that_nobody_has_measured_is_not_exact(models: Path) -> None:
    write_config(models, "llama", model_type="mpt", architectures=["MptForCausalLM"], d_model=32, n_heads=4, n_layers=2)
    report = ask(models, "llama", "--shape", "1,8", "--backend", "eager", "--format", "json").report
    assert [group["exact"] for group in report["result"]["layers"]] == [False]


BAD = (
    ("--lengths", "5,x"), ("--lengths", "-1,3"), ("--lengths", "0,3"), ("--lengths", "3.5"), ("--shape", "8"), ("--shape", "0,8"), ("--shape", "a,b"),
    ("--shape", "1,1000000000"), ("--packed", "3,0"), ("--packed", ""), ("--shape", "1,8", "--image", "6:4"), ("--shape", "1,8", "--image", "x"),
    ("--shape", "1,8", "--backend", "cudnn"), ("--shape", "1,8", "--phase", "later"), ("--shape", "1,8", "--cache", "static:0"),
    ("--shape", "1,8", "--cache", "static:4"), ("--shape", "1,8", "--phase", "decode", "--past", "9"), ("--shape", "1,8", "--past", "9"),
    ("--shape", "1,8", "--phase", "decode", "--cache", "none"), ("--shape", "1,8", "--dtype", "int8"), ("--shape", "1,8", "--lengths", "5,8"),
    ("--shape", "1,8", "--pad", "left"), ("--lengths", "5,8", "--pad", "up"), ("--shape", "1,8", "--mode", "guess"), ("--shape", "1,8", "--query", "8"),
    ("--mask", "nan.npy"), ("--mask", "objects.npy"), ("--mask", "model.pt"), ("--mask", "cube.npy"), ("--mask", "text.json"), ("--mask", "none.json"),
    ("--mask", "ragged.json"), ("--mask", "cut.safetensors"), ("--mask", "words.npy"), ("--shape", "2,8", "--mask", "row.npy"),
    ("--input-ids", "floats.npy"), ("--input-ids", "none.json"), ("--messages", "row.npy"), ("--messages", "text.json"), ("--mask", "huge.npy"),
)  # fmt: skip


@pytest.fixture
def bad_files(models: Path) -> Path:
    np.save(models / "nan.npy", np.full((1, 4), np.nan))
    np.save(models / "objects.npy", np.asarray([[{}]], dtype=object), allow_pickle=True)
    (models / "model.pt").write_bytes(b"\x80\x02}q\x00.")
    np.save(models / "cube.npy", np.ones((1, 2, 3)))
    (models / "text.json").write_text('"a mask"')
    (models / "ragged.json").write_text("[[1, 1], [1]]")
    (models / "cut.safetensors").write_bytes((100).to_bytes(8, "little") + b"{}")
    np.save(models / "words.npy", np.asarray([["a", "b"]]))
    np.save(models / "row.npy", np.ones((1, 8), np.int64))
    np.save(models / "floats.npy", np.ones((1, 8)))
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1, 99999999999), }".ljust(127) + b"\n"
    (models / "huge.npy").write_bytes(header)
    return models


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_a_bad_question_is_one_sentence(arguments: tuple[str, ...], bad_files: Path, monkeypatch: Any, capsys: Any) -> None:
    from tests.cli.test_fuzz import run

    monkeypatch.chdir(bad_files)
    code, text = run(["mask", "inspect", "llama", *arguments], capsys)
    assert code == 2, text
    assert text.startswith("llmdoctor: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("config", ["{}", '{"model_type": "resnet"}', '{"model_type": "what"}', "[]", "{"], ids=str)
def test_a_model_that_has_no_masks_is_refused(config: str, models: Path) -> None:
    (models / "llama" / "config.json").write_text(config)
    outcome = ask(models, "llama", "--shape", "1,8")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
