"""The case's own masks: rebuilt from the ids with pad the eos, then masked_fill with 0, and queries padded on the right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.demo.run import rebuilt_masks
from llmdoctor.mask import test as mask_test
from llmdoctor.mask.options import MaskTestOptions
from tests.mask.models import write_config

REPAIRED = {
    "input_ids": [[90, 90, 20, 21, 90, 22, 23, 24], [30, 31, 32, 90, 33, 34, 35, 36]],
    "attention_mask": [[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]],
}


def codes(folder: Path, batch: dict[str, list[list[int]]], static: bool) -> dict[str, bool]:
    """Rule -> whether it was measured."""
    write_config(folder, "qwen2_vl")
    (folder / "batch.json").write_text(json.dumps(batch))
    batch_file, model = str(folder / "batch.json"), str(folder / "qwen2_vl")
    options = MaskTestOptions(model=model, input_ids=batch_file, phase="decode", backend=("eager", "sdpa"), static=static)
    report = mask_test.test_report(options)
    return {finding.code: "measured" in finding.evidence for finding in report.findings}


def test_both_mistakes_are_named_from_the_plan(tmp_path: Path) -> None:
    assert codes(tmp_path, rebuilt_masks(), static=True) == {"MSK001": False, "MSK002": False}


@pytest.mark.live
def test_both_are_measured_and_the_repaired_batch_is_silent(tmp_path: Path) -> None:
    assert codes(tmp_path, rebuilt_masks(), static=False) == {"MSK001": True, "MSK002": True}
    assert codes(tmp_path, REPAIRED, static=False) == {}


def test_the_hole_says_what_erased_the_token(tmp_path: Path) -> None:
    write_config(tmp_path, "qwen2_vl")
    (tmp_path / "batch.json").write_text(json.dumps(rebuilt_masks()))
    report = mask_test.test_report(
        MaskTestOptions(model=str(tmp_path / "qwen2_vl"), input_ids=str(tmp_path / "batch.json"), phase="decode", static=True)
    )
    hole = next(finding for finding in report.findings if finding.code == "MSK002")
    assert "masked_fill" in hole.message
    assert hole.evidence["spans"] == [[2, 3]]
