"""Predictions beside real steps on an H200 (measured.jsonl, made by conformance/make_mem_rows.py)."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.shapes import FAMILIES

ROWS = [json.loads(line) for line in (Path(__file__).parent / "measured.jsonl").read_text().splitlines()]
STATIC = [row for row in ROWS if row["config"]["model_type"] in FAMILIES]  # without torch others need the checkpoint's headers
NAMES = {"--batch": "batch", "--seq-len": "seq_len", "--image": "image", "--attn": "attn", "--stage": "stage", "--lora": "lora"}


def predict(rows: list[dict[str, Any]], folder: Path, static: bool = False) -> dict[str, tuple[int, int]]:
    """Return the peak and the steady bytes of rows of one model and one batch, whose strategies share what was traced."""
    (folder / "config.json").write_text(json.dumps(rows[0]["config"]))
    names = tuple(str(folder / f"{number}.json") for number in range(len(rows)))
    for name, row in zip(names, rows, strict=True):
        Path(name).write_text(json.dumps(row["strategy"]))
    words = rows[0]["options"]
    options = {NAMES[name]: int(value) if value.isdigit() else value for name, value in zip(words[::2], words[1::2], strict=True)}
    predictor = Predictor(MemOptions(model=str(folder), strategy=names, static=static, **options))
    made = [predictor.estimate(predictor.strategy(name)).prediction for name in names]
    return {row["id"]: (each.peak.total, each.steady.total) for row, each in zip(rows, made, strict=True)}


def predict_all(folders: pytest.TempPathFactory, static: bool = False) -> dict[str, tuple[int, int]]:
    alike: dict[str, list[dict[str, Any]]] = {}
    for row in STATIC if static else ROWS:
        alike.setdefault(json.dumps([row["config"], row["options"]]), []).append(row)
    found: dict[str, tuple[int, int]] = {}
    for rows in alike.values():
        found |= predict(rows, folders.mktemp("rows"), static)
    return found


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    found = predict_all(tmp_path_factory)
    return {row["id"]: (abs(found[row["id"]][0] / row["peak"] - 1), abs(found[row["id"]][1] / row["steady"] - 1)) for row in ROWS}


@pytest.mark.live
def test_every_peak_is_within_two_percent_and_half_of_them_within_a_thousandth(errors: dict[str, tuple[float, float]]) -> None:
    peaks = {name: error[0] for name, error in errors.items()}
    assert max(peaks.values()) < 0.02, peaks
    assert statistics.median(peaks.values()) < 0.001, peaks


@pytest.mark.live
def test_every_steady_is_within_half_a_percent(errors: dict[str, tuple[float, float]]) -> None:
    assert max(error[1] for error in errors.values()) < 0.005, errors


def test_the_bound_without_torch_is_never_above_the_measured_peak(tmp_path_factory: pytest.TempPathFactory) -> None:
    bounds = predict_all(tmp_path_factory, static=True)
    assert {row["id"]: row["peak"] for row in STATIC if bounds[row["id"]][0] > 1.0001 * row["peak"]} == {}
