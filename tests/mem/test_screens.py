"""What a person reads, in 80 columns, by snapshot; and what a program reads, by the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.kvcache import kvcache_report
from llmdoctor.mem.options import KvcacheOptions, MemCompareOptions, MemOptions
from llmdoctor.report import Style, render
from tests.mem.conftest import write_config

SCHEMA = json.loads((Path(__file__).parents[2] / "llmdoctor/schema/report.schema.json").read_text())
TWO = ("trainer:adamw_torch,bf16", "deepspeed:zero2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screens")
    write_config(path / "llama", "llama", vocab_size=32000, hidden_size=512, intermediate_size=1536, num_attention_heads=8)
    write_config(path / "vl", "qwen2_vl")
    return path


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def text(report: Any) -> str:
    out = render(report, "text", Style(80, False))
    code = out.find("\nFix")
    assert all(len(line) <= 80 for line in out[:code].splitlines())
    return out


def valid(report: Any) -> dict[str, Any]:
    out = json.loads(render(report, "json", Style()))
    jsonschema.Draft202012Validator(SCHEMA).validate(out)
    return out


@pytest.mark.live
def test_two_strategies(snapshot: Any) -> None:
    assert text(compare_report(MemCompareOptions(model="llama", strategy=TWO, batch=2, seq_len=128))) == snapshot


@pytest.mark.live
def test_what_does_not_fit(snapshot: Any) -> None:
    report = compare_report(MemCompareOptions(model="llama", strategy=TWO[1:], batch=2, seq_len=128, gpu_memory="1GiB"))
    assert text(report) == snapshot
    assert valid(report)["result"]["strategies"][0]["fits"] is False
    assert report.findings[0].code == "MEM001"


@pytest.mark.live
def test_an_image_and_stages(snapshot: Any) -> None:
    assert (
        text(
            compare_report(
                MemCompareOptions(model="vl", strategy=("deepspeed:zero3",), batch=1, seq_len=64, image="112x112", stage="vision")
            )
        )
        == snapshot
    )


def test_static(snapshot: Any) -> None:
    assert text(compare_report(MemCompareOptions(model="llama", strategy=TWO[1:], static=True, world_size=4))) == snapshot


def test_kvcache(snapshot: Any) -> None:
    assert text(kvcache_report(KvcacheOptions(model="llama", batch=2, length=100, cache="static:4096"))) == snapshot
    assert text(kvcache_report(KvcacheOptions(model="vl", batch=1, length=100, cache="gpt-fast:1001", dtype="float16"))) == snapshot


@pytest.mark.live
def test_the_contract(folder: Path) -> None:
    report = valid(compare_report(MemCompareOptions(model="llama", strategy=TWO, batch=2, seq_len=128)))
    result = report["result"]
    assert result["model"]["params"] == result["model"]["trainable"]
    for strategy in result["strategies"]:
        parts = strategy["components"]
        assert {
            "params",
            "grads",
            "master_params",
            "optimizer_state",
            "grad_accum",
            "buckets",
            "activations",
            "logits",
            "temporaries",
            "context",
        } <= set(parts)
        assert sum(parts.values()) - parts["context"] == strategy["peak_bytes"] == strategy["phases"][strategy["peak_phase"]]["total"]
        assert (
            strategy["steady_bytes"] == strategy["phases"]["between_steps"]["total"] <= strategy["peak_bytes"] <= strategy["reserved_bytes"]
        )
        assert strategy["fits"] is None
    trainer, zero = result["strategies"]
    assert sum(reason["bytes"] for reason in result["explanation"]) == zero["peak_bytes"] - trainer["peak_bytes"]
    sizes = [abs(reason["bytes"]) for reason in result["explanation"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(reason["because"] and reason["setting"] for reason in result["explanation"])


@pytest.mark.live
def test_the_largest_batch_is_the_largest(folder: Path) -> None:
    from llmdoctor.mem.capacity import largest_batch, need_of
    from llmdoctor.mem.predictor import Predictor

    predictor = Predictor(MemOptions(model="llama", strategy=TWO[:1], seq_len=128))
    case = predictor.estimate(predictor.strategy(TWO[0]), 1)
    memory = 2 * 10**9
    largest = largest_batch(case, predictor, memory)
    needed = [need_of(predictor.estimate(case.strategy, batch)).safe for batch in (largest, largest + 1)]
    assert needed[0] <= memory < needed[1]


def test_kvcache_is_by_the_contract() -> None:
    result = valid(kvcache_report(KvcacheOptions(model="llama", batch=2, length=100, cache="dynamic")))["result"]["kvcache"]
    assert (
        result["allocated_bytes"]
        == result["used_bytes"]
        == 200 * result["per_token_bytes"]
        == sum(layer["allocated_bytes"] for layer in result["layers"])
    )


@pytest.mark.live
def test_flash_attention_needs_no_flash_attn_and_16_bit() -> None:
    peaks = [
        compare_report(MemCompareOptions(model="llama", strategy=TWO[:1], seq_len=64, attn=name)).result
        for name in ("sdpa", "flash_attention_2")
    ]
    assert peaks[0] is not None
    assert peaks[1] is not None
    assert peaks[0]["strategies"][0]["peak_bytes"] == peaks[1]["strategies"][0]["peak_bytes"]
    for name, strategy, sentence in (
        ("flash_attention_2", "trainer:sgd,fp32", "16-bit kernels only"),
        ("magic", TWO[0], "expected sdpa, eager"),
    ):
        with pytest.raises(QuestionError, match=sentence):
            compare_report(MemCompareOptions(model="llama", strategy=(strategy,), seq_len=64, attn=name))
