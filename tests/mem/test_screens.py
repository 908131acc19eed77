"""What a person reads, in 80 columns, by what must stand on the screen; and what a program reads, by the contract."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem import predictor
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.kvcache import kvcache_report
from llmdoctor.mem.options import KvcacheOptions, MemCompareOptions, MemOptions
from llmdoctor.report import Style, render
from tests.mem.conftest import write_config
from tests.reading import read_in_order

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
def test_two_strategies() -> None:
    read_in_order(
        text(compare_report(MemCompareOptions(model="llama", strategy=TWO, batch=2, seq_len=128))),
        "Peaks: deepspeed:zero2 1.9 GB, trainer:adamw_torch,bf16 0.6 GB (+1.3 GB) at batch 2 x 128 tokens; the largest is in the backward.",
        "Model 54 M parameters, 54 M trained; 2 x 128 tokens; one device Columns A = trainer:adamw_torch,bf16 B = deepspeed:zero2",
        "w weights 0.1 0.1 m master weights - 0.2 o optimizer state 0.2 0.4",
        "PEAK 0.6 1.9 in the step backward between steps 0.4 0.8 bytes per parameter 11.5 / 7.4 35.8 / 15.3",
        "Step of B, GB start 0.3 ####### forward 0.9",
        "Why: B against A +1.0 buckets: the reduce bucket of 500,000,000 elements",
        "+0.2 master weights: DeepSpeed also keeps every trained weight in float32, 4 bytes per parameter",
        "-0.1 temporaries: the step of adamw_torch",
        "info MEM003",
        "info MEM004",
        "Assumed padding none",
        "Fix bf16.bf16_master_weights_and_grads and bf16.bf16_optimizer_states true (less exact): peak 1.6 GB",
        "2 devices: peak 1.6 GB 4 devices: peak 1.4 GB",
    )


@pytest.mark.live
def test_what_does_not_fit() -> None:
    report = compare_report(MemCompareOptions(model="llama", strategy=TWO[1:], batch=2, seq_len=128, gpu_memory="1GiB"))
    read_in_order(
        text(report),
        "Does not fit into 1GiB (1.1 GB): 3.8 GB is needed at batch 2 x 128 tokens.",
        "PEAK 1.9 in the backward",
        "Of 1.1 GB peak reserve context needed largest batch deepspeed:zero2 too large 1.9 0.1 1.8 3.8 none",
        "error MEM001 deepspeed:zero2 needs 3.8 GB with a margin for the allocator's reserve, the device has 1.1 GB",
        "Fix zero_optimization.offload_optimizer on cpu (slower): needs 3.2 GB",
        "None of them is enough by itself: llmdoctor mem fit combines them.",
    )
    assert valid(report)["result"]["strategies"][0]["fits"] is False
    assert report.findings[0].code == "MEM001"


@pytest.mark.live
def test_an_image_and_stages() -> None:
    options = MemCompareOptions(model="vl", strategy=("deepspeed:zero3",), batch=1, seq_len=64, image="112x112", stage="vision")
    read_in_order(
        text(compare_report(options)),
        "deepspeed:zero3 peaks at 1.1 GB at batch 1 x 64 tokens, in the backward.",
        "Model 0 M parameters, 0.112 M trained; 1 x 64 tokens, image 112x112; one device",
        "b buckets 1.0 a activations 0.001",
        "bytes per parameter 3693.2 / 3685.5",
        "+1.0 buckets: the reduce bucket of 500,000,000 elements, always held by stage 3",
        "info MEM003",
        "info MEM004 deepspeed:zero3: a bucket of 500,000,000 elements for 111,664 gradients",
    )


def test_static() -> None:
    read_in_order(
        text(compare_report(MemCompareOptions(model="llama", strategy=TWO[1:], static=True, world_size=4))),
        "At least 1.4 GB: activations are not counted, because --static was given. This is a lower bound.",
        "1 x 512 tokens; one of 4 devices",
        "PEAK >= 1.4 in the backward",
        "optimizer state: FusedAdam holds exp_avg, exp_avg_sq in float32, 1/4 of it on each device",
        "Assumed --seq-len 512, --batch 1",
        "Skipped NCCL's own buffers",
        "Skipped activations, logits, loss and temporary tensors of the backward",
    )


def test_kvcache() -> None:
    read_in_order(
        text(kvcache_report(KvcacheOptions(model="llama", batch=2, length=100, cache="static:4096"))),
        "The key-value cache takes 28.0 MiB for 2 x 100 tokens in bfloat16 (assumed: config.json names no dtype: --dtype), "
        "of which 2% are used (0.7 MiB).",
        "7 full 2 x (64 + 64) 4096 100 28.0",
        "7 layers, full 28.0 #======================= 100 of 4,096 tokens",
        "Per token 3,584 bytes in bfloat16, all layers",
        "Limits static:4096 is allocated whole at the first token, for any length",
    )
    read_in_order(
        text(kvcache_report(KvcacheOptions(model="vl", batch=1, length=100, cache="gpt-fast:1001", dtype="float16"))),
        "The key-value cache takes 0.6 MiB for 1 x 100 tokens, of which 10% are used (0.1 MiB).",
        "7 full 2 x (12 + 12) 1008 100 0.6",
        "Also a boolean causal mask of 1.0 MiB (setup_caches)",
    )


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


@pytest.mark.live
def test_the_bound_without_a_trace_is_not_above_what_a_batch_of_text_takes() -> None:
    options = MemCompareOptions(model="vl", strategy=("trainer:adamw_torch,bf16", "deepspeed:zero2"), batch=1, seq_len=32)
    bounds, traced = (compare_report(replace(options, static=static)).result for static in (True, False))
    assert bounds is not None
    assert traced is not None
    for bound, real in zip(bounds["strategies"], traced["strategies"], strict=True):
        assert bound["components"]["optimizer_state"] == real["components"]["optimizer_state"]
        assert bound["peak_bytes"] <= real["peak_bytes"]


@pytest.mark.parametrize("static", [False, True])
def test_a_bound_where_a_number_was_asked_is_no_answer(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "installed_version", lambda _name: None)
    report = compare_report(MemCompareOptions(model="llama", strategy=TWO[:1], batch=1, seq_len=32, static=static))
    assert report.verdict is not None
    assert report.verdict.status == "bound"
    assert report.unanswered is not static  # exit 2
