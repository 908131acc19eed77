"""FSDP: what a process holds, beside real steps (measured_fsdp.jsonl, made by conformance/gpu_fsdp.py) and by arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.advice import variants
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predict import predict
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.runners.base import Job
from llmdoctor.mem.settings import FullySharded, Optimizer, Strategy
from llmdoctor.mem.weights import Weight

ROWS = [json.loads(line) for line in (Path(__file__).parent / "measured_fsdp.jsonl").read_text().splitlines()]
MIB = 2**20
FUSED = Optimizer("adamw", "fused", "adamw_torch_fused", "optim", groups=2)


def options(row: dict[str, Any], folder: Path) -> tuple[MemOptions, str]:
    (folder / "config.json").write_text(json.dumps(row["config"]))
    path = folder / "strategy.json"
    path.write_text(json.dumps(row["strategy"]))
    return MemOptions(model=str(folder), strategy=(str(path),), seq_len=row["tokens"], world_size=row["processes"]), str(path)


@pytest.mark.live
@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_a_measured_process(row: dict[str, Any], tmp_path: Path) -> None:
    asked, path = options(row, tmp_path)
    predictor = Predictor(asked)
    prediction = predictor.estimate(predictor.strategy(path)).prediction
    assert abs(prediction.peak.total / row["peak"] - 1) < 0.003
    assert abs(prediction.steady.total / row["steady"] - 1) < 0.006


def sharded(version: int, *, reshard: bool = True) -> Strategy:
    return Strategy(
        "s",
        "trainer",
        "float32",
        FUSED,
        "bfloat16",
        world_size=4,
        fsdp=FullySharded(version=version, reshard=reshard, prefetch=version == 2),
    )


def job(strategy: Strategy) -> Job:
    """Three layers of one matrix and an output layer; each layer keeps one activation."""
    size = 1024 * 1024
    weights = tuple(Weight(name, (1024, 1024), "bfloat16") for name in ("layers.0.w", "layers.1.w", "layers.2.w", "head.w"))
    units = {f"layers.{number}": (f"layers.{number}",) for number in range(3)} | {"(tail)": ("head",)}
    events: list[tuple[Any, ...]] = [("p", "forward")]
    for name in units:
        events += [("u", name, "forward"), ("+", name, 8 * MIB, "mlp"), ("u", name, "forwarded")]
    events.append(("p", "backward"))
    for weight, name in reversed(list(zip(weights, units, strict=True))):
        events += [("u", name, "backward"), ("+", ("g", name), size * 2, "temporaries"), ("g", weight.name, ("g", name)), ("-", name)]
        events += [("-", ("g", name)), ("u", name, "done")]
    return Job(strategy, weights, events=tuple(events), units=units, exact=True)


@pytest.mark.parametrize("version", [1, 2])
def test_parts_of_everything_are_held_between_steps(version: int) -> None:
    steady = predict(job(sharded(version))).steady.components
    part = 4 * MIB * 4 // 4  # four weights of 1 Mi elements in float32, divided among four processes
    assert steady["params"] == part
    assert (steady["optimizer_state.exp_avg"], steady["optimizer_state.exp_avg_sq"]) == (part, part)
    assert steady.get("grads", 0) == (part if version == 1 else 0)  # version 1 frees them at the next forward
    assert "buckets" not in steady


def test_weights_that_are_not_freed_after_the_forward_are_held_until_the_backward() -> None:
    freed, kept = (predict(job(sharded(2, reshard=reshard))).phases["forward"].components["params"] for reshard in (True, False))
    assert kept - freed == 3 * 2 * MIB  # three layers in bfloat16; the output layer is gathered in either case


def test_without_a_trace_it_is_a_lower_bound() -> None:
    whole, bare = job(sharded(2)), Job(sharded(2), job(sharded(2)).weights, exact=True)
    assert predict(bare).peak.total < predict(whole).peak.total


def test_a_change_that_is_not_modelled_is_refused(tmp_path: Path) -> None:
    asked, path = options(ROWS[0], tmp_path)
    predictor = Predictor(replace(asked, static=True))
    changes = {text: strategy for text, strategy, _, _ in variants(predictor.estimate(predictor.strategy(path)))}
    unmodelled = [text for text in changes if any(word in text for word in ("liger", "Liger", "adafactor", "8bit"))]
    assert len(unmodelled) == 4
    for text in unmodelled:
        with pytest.raises(QuestionError, match="under FSDP"):
            predictor.estimate(changes[text])


@pytest.mark.live
def test_a_class_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    row = {**ROWS[0], "strategy": {**ROWS[0]["strategy"], "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": "Missing"}}}
    asked, path = options(row, tmp_path)
    predictor = Predictor(asked)
    with pytest.raises(QuestionError, match="no layer of the class Missing"):
        predictor.estimate(predictor.strategy(path))


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({}, "FSDP version 2, the default"),
        ({"fsdp": "shard_grad_op auto_wrap", "fsdp_config": {"version": 1}}, "FULL_SHARD for version 1 whatever the file says"),
    ],
)
def test_what_was_assumed_stands_in_the_limits(change: dict[str, Any], clause: str, tmp_path: Path) -> None:
    given = {**ROWS[0]["strategy"], "fsdp": True, "fsdp_config": {}, **change}
    asked, path = options({**ROWS[0], "strategy": given}, tmp_path)
    assert any(clause in limit for limit in Predictor(asked).strategy(path).limits)


def test_a_file_beside_the_arguments_is_read(tmp_path: Path) -> None:
    (tmp_path / "fsdp.json").write_text('{"fsdp_version": 2, "fsdp_reshard_after_forward": false}')
    asked, path = options({**ROWS[0], "strategy": {**ROWS[0]["strategy"], "fsdp_config": "fsdp.json"}}, tmp_path)
    found = Predictor(asked).strategy(path).fsdp
    assert found == FullySharded(version=2, reshard=False)
