"""DeepSpeed's real partitions under torchrun with 3 processes, to the byte, padding included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predict import predict
from llmdoctor.mem.predictor import Predictor
from tests.mem.conftest import write_config

ROOT = Path(__file__).parents[2]
ADAM = {"type": "AdamW", "params": {"lr": 1e-5, "torch_adam": True}}
BASE: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "gradient_clipping": 1.0, "optimizer": ADAM}
CASES = {
    "zero1": {**BASE, "zero_optimization": {"stage": 1, "reduce_bucket_size": 50000}},
    "zero1-fp32-accumulation": {**BASE, "data_types": {"grad_accum_dtype": "fp32"}, "zero_optimization": {"stage": 1}},
    "zero2": {**BASE, "zero_optimization": {"stage": 2, "reduce_bucket_size": 50000}},
    "zero2-16-bit-masters": {
        **BASE, "bf16": {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}, "zero_optimization": {"stage": 2},
    },
    "zero3": {**BASE, "zero_optimization": {"stage": 3, "reduce_bucket_size": 50000, "sub_group_size": 30000, "stage3_param_persistence_threshold": 0}},
}  # fmt: skip
HELD = ("params", "master_params", "optimizer_state.exp_avg", "optimizer_state.exp_avg_sq", "grad_accum", "buckets")


def predicted(model: Path, config: Path, world: int, rank: int, deepspeed: str | None = None) -> dict[str, int]:
    predictor = Predictor(
        MemOptions(
            model=str(model), strategy=(str(config),), batch=1, seq_len=16, world_size=world, rank=rank, static=True, deepspeed=deepspeed
        )
    )
    case = predictor.estimate(predictor.strategy(str(config)))
    from dataclasses import replace

    held = predict(replace(case.job, exact=True)).steady.components
    return {name: held.get(name, 0) for name in HELD}


@pytest.mark.live
@pytest.mark.timeout(400)
def test_partitions_are_the_real_ones(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    world = 3  # no size of the model is a multiple of it; conformance/deepspeed_partitions.py does the same with 2
    # Odd sizes, so that every kind of padding is there.
    model = write_config(
        tmp_path / "model",
        "qwen2",
        vocab_size=1003,
        hidden_size=36,
        num_attention_heads=3,
        num_key_value_heads=1,
        num_hidden_layers=2,
        intermediate_size=51,
    )
    cases = {name: tmp_path / f"{name}.json" for name in CASES}
    for name, path in cases.items():
        path.write_text(json.dumps(CASES[name]))
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    out = tmp_path / "out"
    out.mkdir()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={world}",
        str(Path(__file__).parent / "partitions_worker.py"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, str(model), str(tmp_path / "cases.json"), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(line) for part in sorted(out.glob("*.jsonl")) for line in part.read_text().splitlines()]
    assert len(records) == world * len(CASES)
    assert not [record["error"] for record in records if "error" in record]
    for record in records:
        held = {name: record["held"].get(name, 0) for name in HELD}
        assert held == predicted(model, cases[record["case"]], world, record["rank"]), (record["case"], record["rank"])
