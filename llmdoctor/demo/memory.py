"""The demo's part about memory: two ways of training a 2B model compared without weights or a GPU, then the tiny model's real steps."""

from __future__ import annotations

import json
from pathlib import Path

from llmdoctor.core.report import Report

SHAPE, STRATEGIES = "qwen2-vl-2b", ("trainer:adamw_torch_fused,bf16", "deepspeed:zero2")
REAL = "trainer:adamw_torch_fused,bf16"
COMPARE = f"llmdoctor mem compare {SHAPE} --strategy {STRATEGIES[0]} --strategy {STRATEGIES[1]} --batch 2"


def compare() -> Report:
    """A config alone, and why ZeRO-2 takes more."""
    from llmdoctor.demo.shapes import QWEN2_VL_2B
    from llmdoctor.mem.compare import compare_report
    from llmdoctor.mem.options import MemCompareOptions

    Path(SHAPE).mkdir(exist_ok=True)
    Path(SHAPE, "config.json").write_text(json.dumps(QWEN2_VL_2B, indent=2) + "\n")
    return compare_report(MemCompareOptions(model=SHAPE, strategy=STRATEGIES, batch=2))


def measure(model: str) -> tuple[Report, bool]:
    """Real steps of the tiny model, and whether what is held is what was predicted: weights and moments to the byte."""
    from llmdoctor.mem.measure import measure_report
    from llmdoctor.mem.options import MeasureOptions

    report = measure_report(MeasureOptions(model=model, strategy=(REAL,), batch=1, seq_len=16, steps=2))
    rows = [] if report.result is None else report.result["beside"]
    held = {row["what"]: row for row in rows}
    true = all(abs(held.get(f"steady {name}", {"error": 1.0})["error"]) < 0.001 for name in ("params", "optimizer_state"))
    return report, true
