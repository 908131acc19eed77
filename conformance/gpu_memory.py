"""One command on a machine with a GPU: predictions first, written down, then the same steps for real.

    python conformance/gpu_memory.py --out FOLDER [--rows ROWS.jsonl --models DIR --strategies DIR [--sample N]] [--only REGEX]
                                     [--predict-only | --predictions FILE] [--jobs N]

Cases: a sample of a measured file's rows again on the versions that this machine has, and cases that are in no file (gpu_memory_cases.py), the three
stages of Qwen2-VL with a 448 x 448 image among them. predictions.jsonl is written and closed before anything is measured, or is made beforehand on a
machine without a GPU (--predict-only there, --predictions here); measured.jsonl grows as the cases end; table.md holds both. --jobs runs several
cases at a time as long as their predicted peaks fit into the device together. Needs llmdoctor on the path and torch with CUDA. Traps: DeepSpeed needs
TORCH_CUDA_ARCH_LIST=9.0 on Hopper (9.0a crashes its builder); without a compiler take DS_BUILD_OPS=0 and the cases with torch_adam.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_memory_cases import MODELS, NEW

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.components import by_component
from llmdoctor.mem.measure import run_case
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predictor import Predictor

NAMES = {"--batch": "batch", "--seq-len": "seq_len", "--image": "image", "--attn": "attn", "--stage": "stage", "--lora": "lora"}


def main() -> int:
    """Predict, write, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--strategies", type=Path)
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--predict-only", action="store_true")
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = [(name, asked) for name, asked in [*_new(options.out), *_again(options)] if re.search(options.only, name)]
    predictions = {}
    if options.predictions is not None:
        predictions = {row["id"]: row for row in map(json.loads, options.predictions.read_text().splitlines())}
        cases = [(name, asked) for name, asked in cases if "peak" in predictions.get(name, {})]
    else:
        with (options.out / "predictions.jsonl").open("w") as file:
            for name, asked in cases:
                predictions[name] = _predict(name, asked)
                file.write(json.dumps(predictions[name]) + "\n")
                print(name, predictions[name].get("peak", predictions[name].get("refused")), flush=True)
        print(f"{len(predictions)} predictions written to {options.out / 'predictions.jsonl'} at {time.strftime('%H:%M:%S')}", flush=True)
    if options.predict_only:
        return 0
    return _measure(cases, predictions, options.out, options.jobs)


def _new(out: Path) -> list[tuple[str, MemOptions]]:
    cases = []
    for number, (model, strategy, given) in enumerate(NEW):
        folder = out / "models" / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(MODELS[model]))
        text = strategy
        if not isinstance(strategy, str):
            path = out / f"strategy-{number:02d}.json"
            batch = "train_micro_batch_size_per_gpu" if "zero_optimization" in strategy else "per_device_train_batch_size"
            path.write_text(json.dumps({**strategy, batch: given.get("batch", 1)}))
            text = str(path)
        cases.append((f"new-{number:02d}.{model}", MemOptions(model=str(folder), strategy=(text,), **given)))
    return cases


def _again(options: argparse.Namespace) -> list[tuple[str, MemOptions]]:
    if options.rows is None:
        return []
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    chosen = random.Random(0).sample(rows, min(options.sample, len(rows)))
    cases = []
    for row in chosen:
        words = [word.replace("{models}", str(options.models)).replace("{strategies}", str(options.strategies)) for word in row["args"]]
        given = dict(zip(words[3::2], words[4::2], strict=True))
        asked = {NAMES[name]: int(value) if value.isdigit() else value for name, value in given.items() if name in NAMES}
        cases.append((f"again.{row['id']}", MemOptions(model=words[2], strategy=(given["--strategy"],), **asked)))
    return cases


def _predict(name: str, asked: MemOptions) -> dict[str, Any]:
    try:
        predictor = Predictor(asked)
        prediction = predictor.estimate(predictor.strategy(asked.strategy[0])).prediction
    except QuestionError as error:
        return {"id": name, "refused": str(error)}
    return {
        "id": name, "peak": prediction.peak.total, "steady": prediction.steady.total, "peak_phase": prediction.peak.phase,
        "reserved": prediction.reserved, "components": by_component(prediction.peak),
    }  # fmt: skip


class Budget:
    """The device's bytes, shared by the cases that run at a time."""

    def __init__(self, size: int) -> None:
        self.free = self.size = size
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, or nothing else runs, and hold them."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= size or self.free == self.size)
            self.free -= size
        try:
            yield
        finally:
            with self.changed:
                self.free += size
                self.changed.notify_all()


CONTEXT = 2 * 2**30  # bytes that a process takes beside its allocator


def _measure(cases: list[tuple[str, MemOptions]], predictions: dict[str, Any], out: Path, jobs: int) -> int:
    import torch

    budget, written = Budget(int(0.95 * torch.cuda.mem_get_info()[1])), threading.Lock()
    rows: dict[str, dict[str, Any]] = {}

    def run(case: tuple[str, MemOptions]) -> None:
        name, asked = case
        with budget.taken(int(1.15 * predictions[name].get("reserved", 0)) + CONTEXT):
            row = {"id": name, **_real(asked)}
        with written:
            rows[name] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(_line(name, predictions[name], row), flush=True)

    with (out / "measured.jsonl").open("w") as file, ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, cases))
    lines = ["| case | predicted peak | measured | error | steady error |", "|---|---|---|---|---|"]
    lines += [_line(name, predictions[name], rows[name]) for name, _ in cases]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    return 0


def _real(asked: MemOptions) -> dict[str, Any]:
    try:
        predictor = Predictor(asked)
        records = run_case(asked, replace(predictor.strategy(asked.strategy[0])), steps=3)
    except QuestionError as error:
        return {"failed": str(error)}
    failed = next((record for record in records if record["kind"] == "failed"), None)
    if failed is not None:
        return {"failed": f"{failed['outcome']}: {failed['message']}", "step": failed["step"], "phase": failed["phase"]}
    peak = next((record for record in records if record.get("phase") == "peak"), {})
    steady = next((record for record in records if record.get("phase") == "between steps" and record["step"] == 2), {})
    return {
        "peak": peak.get("peak_bytes"), "peak_phase": peak.get("peak_phase"), "steady": steady.get("allocated_bytes"),
        "components": steady.get("components"),
        "nvml": steady.get("nvml_process_bytes"), "reserved": steady.get("reserved_bytes"), "peak_sites": (steady.get("peak") or {}).get("by_site"),
        "phases": {f"{record['step']} {record['phase']}": record.get("peak_bytes") for record in records if record["kind"] == "phase"},
    }  # fmt: skip


def _line(name: str, predicted: dict[str, Any], row: dict[str, Any]) -> str:
    if not row.get("peak") or not predicted.get("peak"):
        return f"| {name} | {predicted.get('peak', predicted.get('refused'))} | {row.get('failed', 'no allocator here')} | | |"
    errors = [100 * (predicted[key] / row[key] - 1) for key in ("peak", "steady")]
    return f"| {name} | {predicted['peak'] / 1e9:.3f} GB | {row['peak'] / 1e9:.3f} GB | {errors[0]:+.2f}% | {errors[1]:+.2f}% |"


if __name__ == "__main__":
    sys.exit(main())
