"""Every MSK rule on inputs it must find and on the repaired ones it must leave alone: static rules from the plan, the others by running."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.mask import test as mask_test
from llmdoctor.mask.options import MaskTestOptions
from llmdoctor.mask.rules import RULES
from tests.conftest import run_command

FOLDER = Path(__file__).parent
CODES = [rule.code for rule in RULES]
LIVE = [code for code in CODES if json.loads((FOLDER / code / "good" / "options.json").read_text())["live"]]
ONLY_LIVE = ("MSK010", "MSK018", "MSK019")


def ask(code: str, kind: str, monkeypatch: pytest.MonkeyPatch, *, static: bool) -> tuple[Finding, ...]:
    folder = FOLDER / code / kind
    case_file = json.loads((folder / "options.json").read_text())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    model: Any = case_file["model"]
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in case_file["options"].items() if name != "mode"}
    return mask_test.test_report(MaskTestOptions(model=model, static=static, **options)).findings


@pytest.mark.parametrize("code", [code for code in CODES if code not in ONLY_LIVE])
def test_bad_is_found_from_the_plan(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [finding for finding in ask(code, "bad", monkeypatch, static=True) if finding.code == code]
    assert found
    assert all(finding.message and finding.cause and finding.fix for finding in found)


@pytest.mark.parametrize("code", [code for code in CODES if code not in ONLY_LIVE])
def test_good_is_left_alone_by_the_plan(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding for finding in ask(code, "good", monkeypatch, static=True) if finding.severity is not Severity.INFO] == []


@pytest.mark.live
@pytest.mark.parametrize("code", LIVE)
def test_the_repaired_input_is_silent_when_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(code, "good", monkeypatch, static=False) == ()


# What a run measures for each: a gradient that must be 0.0, or logits that must not move.
@pytest.mark.live
@pytest.mark.parametrize("code", ["MSK001", "MSK002", "MSK003", "MSK004", "MSK005", "MSK007", "MSK008", "MSK010", "MSK012", "MSK013", "MSK018", "MSK019"])
def test_bad_is_measured_when_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [finding for finding in ask(code, "bad", monkeypatch, static=False) if finding.code == code]
    assert found
    measured = [finding for finding in found if "measured" in finding.evidence]
    assert measured
    for finding in measured:
        assert not finding.evidence["measured"] <= finding.evidence["threshold"]  # NaN is no pass


def test_the_command_prints_the_page() -> None:
    outcome = run_command("rule", "msk002", env={"COLUMNS": "100"})
    assert outcome.code == 0
    assert "mask-hole" in outcome.out
