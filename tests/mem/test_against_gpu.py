"""Predictions beside real steps on an H200 (measured.jsonl, made by conformance/make_mem_rows.py)."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predictor import Predictor

pytestmark = pytest.mark.live
ROWS = [json.loads(line) for line in (Path(__file__).parent / "measured.jsonl").read_text().splitlines()]
NAMES = {"--batch": "batch", "--seq-len": "seq_len", "--image": "image", "--attn": "attn", "--stage": "stage", "--lora": "lora"}


def predicted(row: dict[str, Any], folder: Path) -> tuple[int, int]:
    (folder / "config.json").write_text(json.dumps(row["config"]))
    (folder / "strategy.json").write_text(json.dumps(row["strategy"]))
    words = row["options"]
    options = {NAMES[name]: int(value) if value.isdigit() else value for name, value in zip(words[::2], words[1::2], strict=True)}
    predictor = Predictor(MemOptions(model=str(folder), strategy=(str(folder / "strategy.json"),), **options))
    prediction = predictor.estimate(predictor.strategy(str(folder / "strategy.json"))).prediction
    return prediction.peak.total, prediction.steady.total


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    out = {}
    for row in ROWS:
        peak, steady = predicted(row, tmp_path_factory.mktemp("row"))
        out[row["id"]] = (abs(peak / row["peak"] - 1), abs(steady / row["steady"] - 1))
    return out


def test_every_peak_is_within_two_percent_and_half_of_them_within_a_thousandth(errors: dict[str, tuple[float, float]]) -> None:
    peaks = {name: error[0] for name, error in errors.items()}
    assert max(peaks.values()) < 0.02, peaks
    assert statistics.median(peaks.values()) < 0.001, peaks


def test_every_steady_is_within_half_a_percent(errors: dict[str, tuple[float, float]]) -> None:
    assert max(error[1] for error in errors.values()) < 0.005, errors
