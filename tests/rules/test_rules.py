"""Every rule on a folder in which it must find something and on one that it must leave alone: tests/rules/CODE/bad and /good.

A folder is a model directory, or holds an outputs.jsonl (as GEN014 to GEN016 judge it), a generation or draws (SMP), Python files and notebooks
(PYC), or is a small repository with training configurations and requests, which only `check` judges. The MSK and MEM00x rules have their own
tests over the same layout.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmdoctor.callsites.check import check_file
from llmdoctor.check.check import check_report as check_repository
from llmdoctor.check.options import CheckOptions
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.files.project import load_settings
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.options import GencfgCheckOptions
from llmdoctor.gencfg.request_rules import RULES as REQUESTS
from llmdoctor.gencfg.runaway.options import RunawayOptions
from llmdoctor.gencfg.runaway.runaway import runaway_report
from llmdoctor.mem.config_rules.rules import RULES as TRAINING
from llmdoctor.rules import all_rules
from llmdoctor.sample.draw import draw_report
from llmdoctor.sample.options import DrawOptions, ReplayOptions
from llmdoctor.sample.replay import replay_report
from tests.conftest import run_command

FOLDER = Path(__file__).parent
REPOSITORIES = (*(rule.code for rule in (*TRAINING, *REQUESTS)), "SMP005", "SMP006")
JOBS = ("GEN", "DIR", "SMP", "PYC")
RULES = {rule.code: rule for rule in all_rules() if rule.code.startswith(JOBS) or rule.code in REPOSITORIES}
VERSIONS = {"GEN006": "4.57.6"}  # a rule about transformers 4; the others hold for the newest
WORDS = {code: f"{rule.summary} {rule.reason} {rule.bad} {rule.good} {rule.fix}".split() for code, rule in RULES.items()}


def findings(directory: Path, code: str) -> tuple[Finding, ...]:
    if (directory / "replay.json").exists():
        files = json.loads((directory / "replay.json").read_text())
        return replay_report(ReplayOptions(**{name: str(directory / file) for name, file in files.items()})).findings
    if (directory / "draws.json").exists():
        return draw_report(DrawOptions(probs=str(directory / "probs.json"), draws=str(directory / "draws.json"))).findings
    if code in REPOSITORIES:
        return check_repository(CheckOptions(paths=(str(directory),)), load_settings(str(directory))).findings
    if code.startswith("PYC"):
        return tuple(finding for path in sorted(directory.iterdir()) for finding in check_file(str(path)))
    if (directory / "outputs.jsonl").exists():
        return runaway_report(RunawayOptions(path=str(directory / "outputs.jsonl"))).findings
    return check_report(GencfgCheckOptions(paths=(str(directory),), transformers=VERSIONS.get(code, "5.23.0"))).findings


def test_every_rule_has_a_bad_and_a_good_folder_and_there_are_no_others() -> None:
    codes = {rule.code for rule in all_rules()}
    assert {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"} == codes
    for code in codes:
        assert {path.name for path in (FOLDER / code).iterdir()} == {"bad", "good"}, code
        assert all(any((FOLDER / code / kind).iterdir()) for kind in ("bad", "good")), code


@pytest.mark.parametrize("code", RULES)
def test_bad_is_found(code: str) -> None:
    found = [finding for finding in findings(FOLDER / code / "bad", code) if finding.code == code]
    assert found
    assert all(finding.severity.rank <= RULES[code].severity.rank for finding in found)
    assert all(finding.location is not None for finding in found)


def test_the_rules_that_check_can_fix_are_those_that_state_it() -> None:
    """MEM006, MEM007 and MEM011 are fixable too; their bad folders hold the cases that are not."""
    edited = {finding.code for code in RULES for finding in findings(FOLDER / code / "bad", code) if finding.edits}
    assert edited <= {rule.code for rule in all_rules() if rule.fixable} <= edited | {"MEM006", "MEM007", "MEM011"}


@pytest.mark.parametrize("code", RULES)
def test_good_is_left_alone(code: str) -> None:
    found = findings(FOLDER / code / "good", code)
    assert code not in {finding.code for finding in found}
    assert [finding for finding in found if finding.severity is not Severity.INFO] == []


@pytest.mark.parametrize("code", ["GEN001", "DIR003"])
def test_select_and_ignore(code: str) -> None:
    bad = GencfgCheckOptions(paths=(str(FOLDER / code / "bad"),), transformers="5.23.0")
    assert {finding.code for finding in check_report(replace(bad, select=(code,))).findings} == {code}
    assert code not in {finding.code for finding in check_report(replace(bad, ignore=(code[:3],))).findings}


@pytest.mark.parametrize("code", RULES)
def test_the_page_has_all_the_words(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    from llmdoctor.report import Style, render
    from llmdoctor.rules import rule_report

    page = render(rule_report(code), "text", Style(width=80, color=False))
    for word in WORDS[code]:
        assert word in page
    assert all((RULES[code].summary, RULES[code].reason, RULES[code].bad, RULES[code].good, RULES[code].fix))


def test_the_command_prints_the_page() -> None:
    outcome = run_command("rule", "gen002", env={"COLUMNS": "100"})
    assert outcome.code == 0
    assert all(word in outcome.out for word in WORDS["GEN002"])
