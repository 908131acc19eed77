"""Fixes of a static finding are applied to the plan before they are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.document import Note
from llmdoctor.core.report import Report
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions
from tests.mask.models import CONFIGS, write_config

IDS = [5, 6, 7, 8, 9, 10, 11, 12]
PACKED = [0, 1, 2, 0, 1, 2, 3, 4]


def inspected(folder: Path, model: Path, fields: dict[str, Any] | None = None, **options: Any) -> Report:
    if fields is not None:
        (folder / "in.json").write_text(json.dumps(fields))
        options["input_ids"] = str(folder / "in.json")
    return inspect_report(MaskInspectOptions(model=str(model), **options))


def test_four_rows_of_positions_do_not_help_flash_attention_in_a_batch_of_two(tmp_path: Path) -> None:
    """Only a batch of one finds documents there; sdpa does in any batch, and the plan shows that it does."""
    text = {**CONFIGS["qwen2_vl"]["text_config"], "model_type": "qwen3_vl_text", "head_dim": 8}
    config = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"], "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fields = {"input_ids": [IDS, IDS], "position_ids": [PACKED, list(range(8))]}
    (finding,) = inspected(tmp_path, tmp_path, fields, backend=("flash_attention_2",)).findings
    assert finding.code == "MSK007"
    assert finding.evidence["fix_planned"] is True
    assert 'attn_implementation="sdpa"' in str(finding.fix)
    assert not inspected(tmp_path, tmp_path, fields, backend=("sdpa",)).findings


def test_the_fix_of_a_leak_says_use_cache(tmp_path: Path) -> None:
    """A forward() without use_cache=False makes a cache, and with it the documents leak again."""
    model = write_config(tmp_path, "llama")
    (finding,) = inspected(
        tmp_path, model, {"input_ids": [IDS], "position_ids": [PACKED], "attention_mask": [[1] * 8]}, backend=("sdpa",)
    ).findings
    assert "no attention_mask and use_cache=False" in str(finding.fix)
    assert inspected(tmp_path, model, {"input_ids": [IDS], "position_ids": [PACKED]}, backend=("sdpa",), cache="dynamic").findings


@pytest.mark.parametrize("backend", ["eager", "sdpa", "flex_attention"])
def test_packed_documents_of_an_encoder_decoder_leak(tmp_path: Path, backend: str) -> None:
    """forward() of T5 takes no position_ids, so that its encoder reads all documents of a row as one."""
    (finding,) = inspected(tmp_path, write_config(tmp_path, "t5"), packed="3,5", backend=(backend,)).findings
    assert (finding.code, finding.fix) == ("MSK007", "one document per row, padded")
    assert "takes no position_ids" in str(finding.cause)


def test_a_fix_that_was_not_tried_is_named(tmp_path: Path) -> None:
    report = inspected(tmp_path, write_config(tmp_path, "llama"), {"input_ids": [IDS], "attention_mask": [[1, 1, 0, 1, 1, 1, 1, 1]]})
    assert [one.code for one in report.findings] == ["MSK002"]
    notes = [block.text for block in report.document if isinstance(block, Note) and block.label == "Fixes"]
    assert [note.partition(".")[0] for note in notes] == ["not tried here: MSK002"]
