"""Every LAB rule on a dataset it must find and on one it must leave alone: tests/rules/LAB00n/{bad,good}/case.json with data.jsonl beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.core.finding import Finding
from llmdoctor.labels.audit import audit_report
from llmdoctor.labels.inspect import inspect_report
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.rules import RULES

FOLDER = Path(__file__).parents[1] / "rules"
MODELS = Path(__file__).parent / "models"


def options_of(folder: Path, tmp_path: Path) -> LabelsOptions:
    case = json.loads((folder / "case.json").read_text())
    config = tmp_path / "config.json"
    config.write_text(json.dumps(case.get("config", {})))
    return LabelsOptions(model=str(MODELS / case["model"]), data=str(folder / "data.jsonl"), trainer=case["trainer"], config=str(config))


def found(folder: Path, tmp_path: Path) -> tuple[Finding, ...]:
    options = options_of(folder, tmp_path)
    findings = inspect_report(options).findings
    assert [one.code for one in audit_report(options).findings] == [one.code for one in findings]
    return findings


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_bad_is_found(rule, tmp_path: Path) -> None:
    findings = [one for one in found(FOLDER / rule.code / "bad", tmp_path) if one.code == rule.code]
    assert len(findings) == 1
    assert findings[0].severity is rule.severity
    assert findings[0].fix


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_good_is_left_alone(rule, tmp_path: Path) -> None:
    assert rule.code not in {one.code for one in found(FOLDER / rule.code / "good", tmp_path)}


def test_the_fix_of_a_pad_that_is_the_end_names_another_token(tmp_path: Path) -> None:
    finding = next(one for one in found(FOLDER / "LAB001" / "bad", tmp_path) if one.code == "LAB001")
    assert finding.fix == 'tokenizer.pad_token = "<|endoftext|>"'
    assert "pad_token_id is 402" in (finding.cause or "")
    assert "tokenizer_config.json" in (finding.cause or "")
