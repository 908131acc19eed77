"""`gencfg check` over many directories: each entry is that of the directory alone, and no more than one answer is in memory at a time."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.gencfg import check
from llmdoctor.gencfg.options import GencfgCheckOptions
from llmdoctor.gencfg.types import Resolution
from tests.conftest import write_model


def test_many_directories_are_answered_as_each_alone(tmp_path: Path) -> None:
    names = [str(write_model(tmp_path / "plain")), str(write_model(tmp_path / "endless", generation_config={"eos_token_id": None}))]
    alone = [check.check_report(GencfgCheckOptions(paths=(name,))) for name in names]
    many = check.check_report(GencfgCheckOptions(paths=tuple(names)))
    entries = [{**entry, "findings": len(entry["findings"])} for report in alone for entry in report.result["subjects"]]
    assert [{**entry, "findings": len(entry["findings"])} for entry in many.result["subjects"]] == entries
    assert [finding.code for finding in many.findings] == [finding.code for report in alone for finding in report.findings]
    assert many.verdict.text.startswith("2 directories: ")
    assert "without a model to call" not in many.verdict.text


def test_one_answer_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(str(write_model(tmp_path / f"m{number}")) for number in range(4))
    held: list[int] = []
    checked: Any = check._check

    def counted(*arguments: Any) -> Any:
        gc.collect()
        held.append(sum(isinstance(one, Resolution) for one in gc.get_objects()))
        return checked(*arguments)

    monkeypatch.setattr(check, "_check", counted)
    check.check_report(GencfgCheckOptions(paths=names))
    assert len(held) == 4
    assert max(held) - held[0] <= 1
