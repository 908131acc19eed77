"""Predictions beside measured rows, and what accelerate's and DeepSpeed's own estimators say of the same rows.

    python benchmarks/memory_rows.py ROWS.jsonl MODELS_DIR STRATEGIES_DIR [--only REGEX] [--table]

A row is a JSON object with args (the command line), measured.peak and measured.steady in bytes; {models} and {strategies} in args stand for the two
folders. Prints the errors by runner, the rows that are refused with the reason, and with --table every row.

Estimators: accelerate's training figure (commands/estimate.py:
4 x the largest of the weights in fp32 and what its precision makes of them) and deepspeed.runtime.zero's mem_estimators (bytes per parameter).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.types import Estimate

NAMES = {
    "--batch": "batch",
    "--seq-len": "seq_len",
    "--image": "image",
    "--attn": "attn",
    "--stage": "stage",
    "--lora": "lora",
    "--world-size": "world_size",
}


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("models")
    parser.add_argument("strategies")
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    rows = [row for row in map(json.loads, options.rows.read_text().splitlines()) if re.search(options.only, row["id"])]
    results = []
    for row in rows:
        try:
            estimate = predict_row(row, options.models, options.strategies)
        except QuestionError as error:
            print(f"refused: {row['id']}: {error}", flush=True)
            continue
        measured = row["measured"]
        errors = {
            "peak": estimate.prediction.peak.total / measured["peak"] - 1,
            "steady": estimate.prediction.steady.total / measured["steady"] - 1,
        }
        errors |= {name: size / measured["peak"] - 1 for name, size in others(estimate).items()}
        results.append((row, errors))
        if options.table:
            print(f"| {row['id']} | {measured['peak'] / 1e9:.2f} | {100 * errors['peak']:+.2f}% | {100 * errors['steady']:+.2f}% |")
    summary(results)
    print(f"{len(results)} of {len(rows)} rows have an answer")
    return 0


def predict_row(row: dict[str, Any], models: str, strategies: str) -> Estimate:
    """The prediction for a row's own command line."""
    words = [word.replace("{models}", models).replace("{strategies}", strategies) for word in row["args"]]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    given = {NAMES[name]: int(value) if value.isdigit() else value for name, value in options.items() if name in NAMES}
    predictor = Predictor(MemOptions(model=words[2], strategy=(options["--strategy"],), **given))
    return predictor.estimate(predictor.strategy(options["--strategy"]))


def others(estimate: Estimate) -> dict[str, float]:
    """What other estimators say of the peak."""
    strategy, weights = estimate.strategy, estimate.job.weights
    numel = sum(weight.numel for weight in weights)
    out: dict[str, float] = {}
    if (
        strategy.optimizer.kind != "adamw"
        or strategy.lora is not None
        or strategy.fsdp is not None
        or (strategy.engine is not None and strategy.engine.master != "float32")
    ):
        return out  # neither of them claims to know these
    if strategy.engine is None:
        # accelerate 1.15.0 commands/estimate.py, "Training using Adam": weights, gradients and two moments in fp32, in 16 bit half of each.
        out["accelerate"] = (16 if strategy.dtype == "float32" and strategy.autocast is None else 8) * numel
        return out
    zero = strategy.deepspeed.zero
    # deepspeed 0.19.8, one GPU: estimate_zero2_model_states_mem_needs (stage_1_and_2.py), estimate_zero3_model_states_mem_needs (stage3.py).
    largest = max(weight.numel for weight in weights)
    if zero.stage == 2:
        out["deepspeed"] = 2 * numel if zero.offload_optimizer else 4 * numel + 16 * numel
    elif zero.stage == 3:
        if zero.offload_optimizer and zero.offload_param:
            out["deepspeed"] = 4 * largest
        else:
            out["deepspeed"] = 4 * largest + (2 if zero.offload_optimizer else 18) * numel
    return out


def summary(results: list[tuple[dict[str, Any], dict[str, float]]]) -> None:
    """Errors by runner, then those of the other estimators on the rows that they have an answer for."""
    if not results:
        return
    print(f"\n{'':28s} {'rows':>4s} {'peak median':>12s} {'worst':>8s} {'<=2%':>5s} {'steady median':>14s} {'worst':>8s}")
    for runner in [*sorted({row.get("runner", "newer rows") for row, _ in results}), "all"]:
        mine = [errors for row, errors in results if runner in (row.get("runner", "newer rows"), "all")]
        peaks, steadies = [abs(errors["peak"]) for errors in mine], [abs(errors["steady"]) for errors in mine]
        within = sum(error <= 0.02 for error in peaks)
        print(f"{runner:28s} {len(mine):4d} {_percent(statistics.median(peaks)):>12s} {_percent(max(peaks)):>8s} {within:5d} "
              f"{_percent(statistics.median(steadies)):>14s} {_percent(max(steadies)):>8s}")  # fmt: skip
    for name in ("accelerate", "deepspeed"):
        found = [errors[name] for _, errors in results if name in errors]
        if found:
            middle = _percent(statistics.median(map(abs, found)))
            print(f"{name + ' estimator':28s} {len(found):4d} {middle:>12s} from {_percent(min(found))} to {_percent(max(found))}")


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


if __name__ == "__main__":
    sys.exit(main())
