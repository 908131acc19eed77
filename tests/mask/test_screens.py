"""What a person reads, at 80 columns; what a program reads; and every way of asking badly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import llmdoctor
from tests.conftest import Outcome, run_command
from tests.mask.models import CONFIGS, write_config
from tests.reading import read_in_order

SCHEMA = json.loads((Path(llmdoctor.__file__).parent / "schema" / "report.schema.json").read_text())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in CONFIGS:
        write_config(tmp_path, name)
    return tmp_path


def ask(models: Path, *arguments: str) -> Outcome:
    return run_command("mask", "inspect", *arguments, cwd=models)


SAME = "Checked every real query sees the same keys under each backend"
SCREENS: dict[str, tuple[str, ...]] = {
    "llama --shape 1,32768": (
        "Only eager builds a mask of queries x keys: eager 4.0 GiB, sdpa nothing, flash nothing, flex 1.0 MiB",
        "full 0-1 a layer gets fp32 nothing nothing block mask [1,1,32k,32k]",
        "sees 536,887,296 536,887,296 536,887,296 536,887,296 (50%)",
        "Left out sdpa: no padding, as many queries as keys: is_causal says it all",
        SAME,
        "full attention, layers 0-1: eager, sdpa, flash, flex: queries down, keys across 0 ▓▓░░ 2,730 ████▓▓░░",
        "Blocks 32,640 empty, 256 partial, 32,640 full of 128 x 128 pairs",
        "If padded eager fp32 [1,1,32k,32k] 4.0 GiB; sdpa bool [1,1,32k,32k] 1.0 GiB",
        "Input 1 x 32768 tokens, no mask passed Library transformers",
    ),
    "gemma2 --lengths 5,8": (
        "Only eager builds a mask of queries x keys: eager 1.0 KiB, flash 32 B, flex 128 B",
        "sliding 0 a layer gets fp32 [2,1,8,8] bool [2,8]: varlen block mask [2,1,8,8]",
        "Formula sliding_attention: AND[AND[window 4, causal], padding] full_attention: AND[causal, padding]",
        SAME,
        "7 · · · · ■ ■ ■ ■ full attention, layer 1",
        "7 · · · ■ ■ ■ ■ ■",
        "Skipped sdpa: ValueError: Gemma2ForCausalLM does not support an attention implementation",
    ),
    "mistral --shape 2,8 --phase decode --cache static:16": (
        "eager and sdpa build a mask of queries x keys: eager 32 B, sdpa 4 B, flash nothing, flex 64 B",
        "bytes 32 B 8 B, 4 B stored 0 64 B",
        SAME,
        "8 ■ ■ ■ ■",
        "Input 2 x 8 tokens, no mask passed, then one new token, static:16 cache",
    ),
    "qwen2_vl --packed 3,5 --cache dynamic --backend eager,sdpa": (
        "eager, full_attention 0-1; sdpa, full_attention 0-1: token 3, the first of its document, sees 0..2 of the one before",
        "error MSK007",
        "Fix position_ids = torch.cat([text_positions[None], mrope_positions])",
        "3 × × × ■ · · · · 4 × × × ■ ■ · · ·",
        "× seen, and must not be",
    ),
    "gemma3 --shape 1,8 --image 2:4": (
        "flash, sliding_attention 0; flash, full_attention 1: the first token of the image, 2, does not see its last, 5",
        "sees 42 (65.6%) 42 (65.6%) 36 (56.2%) 42 (65.6%)",
        "Formula sliding_attention: AND[window 4, OR[causal, blocks]] full_attention: OR[causal, blocks]",
        "error MSK011",
        'Fix attn_implementation="sdpa", and pass the token_type_ids of the processor',
        "Differ eager and flash, sliding_attention 0: 3 real queries differ; row 0 query 2 sees 0..5 or 0..2",
        "2 ■ ■ ■ ■ ■ ■ · ·",
        "Input 1 x 8 tokens, no mask passed, an image at 2..5",
    ),
    "jamba --lengths 3,5 --pad right": (
        "eager and sdpa build a mask of queries x keys: eager 200 B, sdpa 50 B, flash 10 B",
        "linear 0 a layer gets int64 [2,5] int64 [2,5] int64 [2,5]",
        SAME,
        "full attention, layer 1: flash; row 0 of 2: queries down, keys across 0 ■ · · · · 1 ■ ■ · · · 2 ■ ■ ■ · · 3 · · · · ·",
        "If packed documents leak whatever is passed: one document per row",
        "Skipped flex_attention: ValueError: JambaForCausalLM does not support",
    ),
    "t5 --lengths 3,5 --backend eager,sdpa": (
        "eager and sdpa build a mask of queries x keys: eager 600 B, sdpa 100 B",
        "the kernel the mask fp32 [2,4,5,5] bias",
        "Formula encoder: AND[bidirectional, padding] full_attention: causal cross: AND[bidirectional, padding]",
        "4 · · ■ ■ ■ full attention, layers 0-1",
    ),
    "llama --lengths 5,8 --query 6": (
        "eager and sdpa build a mask of queries x keys: eager 512 B, sdpa 128 B, flash 16 B, flex 64 B",
        "Query 6; keys are numbered as the layer has them",
        "full 0-1 eager 0 4 3..6 full 0-1 eager 1 7 0..6 full 0-1 sdpa 0 4 3..6",
        "Input 2 x 8 tokens, left-padded",
    ),
    "llama --shape 1,8 --phase decode --cache static:16 --backend gpt-fast,sdpa": (
        "gpt-fast and sdpa build a mask of queries x keys: gpt-fast 16 B, sdpa 16 B",
        "Formula full_attention: tril[input_pos] full_attention: causal",
        "8 ■ ■ ■ ■ ■ ■ ■ ■ ■ · · · · · · ·",
        "Note gpt-fast keeps a tril of 16 x 16 bool (256 bytes)",
    ),
    "bloom --shape 1,8 --backend sdpa": (
        "sdpa: ValueError: BloomForCausalLM does not support an attention implementation",
        "error MSK020",
        'Fix attn_implementation="eager"',
    ),
}


@pytest.mark.parametrize("command", SCREENS)
def test_screens(command: str, models: Path) -> None:
    outcome = ask(models, *command.split())
    assert outcome.err == ""
    assert all(len(line) <= 80 for line in outcome.out.split("\n"))
    read_in_order(outcome.out, *SCREENS[command])


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
