"""Every rule on a directory it must find and on one it must leave alone; DIR004's are built, git holds no links that lead out.

The directory is a model's, or holds an outputs.jsonl, as GEN014 to GEN016 judge them, a generation or draws, as the SMP rules do, Python files and
notebooks, as the PYC rules do, or is a small repository with training configurations and requests, as only `check` judges them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llmdoctor.callsites.check import check_file
from llmdoctor.rules import all_rules
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
from llmdoctor.sample.draw import draw_report
from llmdoctor.sample.options import DrawOptions, ReplayOptions
from llmdoctor.sample.replay import replay_report
from tests.conftest import run_command, write_model

FOLDER = Path(__file__).parent
REPOSITORIES = (*(rule.code for rule in (*TRAINING, *REQUESTS)), "SMP005", "SMP006")
JOBS = ("GEN", "DIR", "SMP", "PYC")
RULES = {rule.code: rule for rule in all_rules() if rule.code.startswith(JOBS) or rule.code in REPOSITORIES}
BUILT = ("DIR004",)
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


@pytest.fixture
def fixture(tmp_path: Path) -> Callable[[str, str], Path]:
    """The directory of a rule's bad or good example."""

    def find(code: str, kind: str) -> Path:
        if code not in BUILT:
            return FOLDER / code / kind
        secret = tmp_path / "secret.json"
        secret.write_text('{"eos_token_id": 11}')
        model = write_model(tmp_path / kind)
        (model / "generation_config.json").rename(model / "real.json")
        (model / "generation_config.json").symlink_to(secret if kind == "bad" else "real.json")
        return model

    return find


def test_every_rule_has_both_fixtures_and_nothing_lies_about() -> None:
    for code in RULES:
        assert code in BUILT or all((FOLDER / code / kind).is_dir() for kind in ("bad", "good")), code
    there = {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name.startswith(JOBS) or path.name in REPOSITORIES}
    assert there | set(BUILT) == set(RULES)


@pytest.mark.parametrize("code", RULES)
def test_bad_is_found(code: str, fixture: Callable[[str, str], Path]) -> None:
    found = [finding for finding in findings(fixture(code, "bad"), code) if finding.code == code]
    assert found
    assert all(finding.severity.rank <= RULES[code].severity.rank for finding in found)
    assert all(finding.location is not None for finding in found)


@pytest.mark.parametrize("code", RULES)
def test_good_is_left_alone(code: str, fixture: Callable[[str, str], Path]) -> None:
    found = findings(fixture(code, "good"), code)
    assert code not in {finding.code for finding in found}
    assert [finding for finding in found if finding.severity is not Severity.INFO] == []


@pytest.mark.parametrize("code", ["GEN001", "DIR003"])
def test_select_and_ignore(code: str) -> None:
    bad = GencfgCheckOptions(paths=(str(FOLDER / code / "bad"),), transformers="5.23.0")
    assert {finding.code for finding in check_report(replace(bad, select=(code,))).findings} == {code}
    assert code not in {finding.code for finding in check_report(replace(bad, ignore=(code[:3],))).findings}


@pytest.mark.parametrize("code", RULES)
def test_the_page_has_all_the_words(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    from llmdoctor.rules import rule_report
    from llmdoctor.report import Style, render

    page = render(rule_report(code), "text", Style(width=80, color=False))
    for word in WORDS[code]:
        assert word in page
    assert all((RULES[code].summary, RULES[code].reason, RULES[code].bad, RULES[code].good, RULES[code].fix))


def test_the_command_prints_the_page() -> None:
    outcome = run_command("rule", "gen002", env={"COLUMNS": "100"})
    assert outcome.code == 0
    assert all(word in outcome.out for word in WORDS["GEN002"])
