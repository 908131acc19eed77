"""Every MEM rule of a comparison on a configuration that it must find and on one that it must leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.core.finding import Finding
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.options import MemCompareOptions
from llmdoctor.mem.rules import RULES

FOLDER = Path(__file__).parents[1] / "rules"
pytestmark = pytest.mark.live


def findings(code: str, kind: str) -> tuple[Finding, ...]:
    case = FOLDER / code / kind
    options = json.loads((case / "options.json").read_text())
    measured = case / "measured.jsonl"
    beside = str(measured) if measured.exists() else None
    strategy = (str(case / "strategy.json"),)
    return compare_report(MemCompareOptions(model=str(case), strategy=strategy, batch=1, seq_len=32, measured=beside, **options)).findings


def test_every_rule_has_both_fixtures() -> None:
    assert {rule.code for rule in RULES} <= {path.name for path in FOLDER.glob("MEM0*")}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_bad_is_found_and_good_is_left_alone(rule) -> None:  # type: ignore[no-untyped-def]
    found = [finding for finding in findings(rule.code, "bad") if finding.code == rule.code]
    assert found
    assert all(finding.severity is rule.severity for finding in found)
    assert rule.code not in {finding.code for finding in findings(rule.code, "good")}
    assert all((rule.summary, rule.reason, rule.bad, rule.good, rule.fix))
