"""Verdicts, their limits and their exit codes: docs/verdicts.md names them, and the rows with a star are tried here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdoctor.commands import COMMANDS
from llmdoctor.core.finding import Severity
from llmdoctor.core.report import Report
from tests import schema
from tests.cli.screens import COMMANDS as QUESTIONS
from tests.cli.screens import make_inputs, report_of
from tests.conftest import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text()
Run = Callable[..., Outcome]

# command line, status, a part of the sentence, exit code
LIMITS = [
    ("gencfg show chat", "ok", "20 new tokens (the default)", 0),
    ("gencfg show chat --transformers 4.49.0", "ok", "which is not installed here", 0),
    ("gencfg show chat --transformers 99.0.0", "ok", "newer than every version known here", 0),
    ("gencfg show chat --without eos_token_id", "problem", "without eos_token_id", 1),
    ("gencfg show chat --preset trl-ppo@1.0.0", "problem", "with the default arguments", 1),
    ("gencfg check chat", "ok", "under transformers", 0),
    ("gencfg check empty", "undecided", "Nothing to check", 3),
    ("gencfg runaway damaged.jsonl", "undecided", "could not be read", 2),
    ("mask inspect mistral", "ok", "1 x 16 tokens assumed", 0),
    ("mask test mistral --static --shape 1,8", "ok", "the model was not run", 0),
    ("mem compare llama-sized --strategy trainer:adamw_torch --static", "bound", "activations are not counted", 0),
    ("mem compare llama-sized --strategy trainer:adamw_torch --static --gpu-memory 64GiB", "bound", "does not decide", 0),
    ("sample compare trainer.json engine.json", "problem", "disagree", 1),
    ("sample engines --logits 3,2,1 --top-p 0.5 --min-p 0.1", "ok", "refuse the settings", 0),
    ("check empty", "undecided", "Nothing to check", 3),
    ("gencfg show nowhere", "refused", "nowhere", 2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verdicts")
    make_inputs(path)
    (path / "empty" / "folder").mkdir(parents=True)
    (path / "damaged.jsonl").write_text('{"token_ids": [5, 11], "finish_reason": "stop"}\n{"token_ids": [5, \n')
    return path


@pytest.mark.parametrize(("words", "status", "limit", "code"), LIMITS, ids=[words for words, *_ in LIMITS])
def test_a_limit_is_in_the_verdict_and_the_exit_code_agrees(
    words: str, status: str, limit: str, code: int, folder: Path, llmdoctor: Run
) -> None:
    done = llmdoctor(*words.split(), "--format", "json", cwd=folder)
    verdict = schema.valid(json.loads(done.out))["verdict"]
    assert (verdict["status"], done.code) == (status, code), verdict
    assert limit in verdict["text"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_verdict_and_its_findings_do_not_contradict_each_other(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    report: Report = report_of(QUESTIONS[name])
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    assert not (report.verdict.status == "ok" and errors), report.verdict
    assert report.verdict.text.strip()
    assert "\n" not in report.verdict.text


def test_the_page_has_every_command() -> None:
    headings = " ".join(line for line in PAGE.splitlines() if line.startswith("### "))
    assert [command.name for command in COMMANDS if command.name not in headings and command.name not in ("mem fit", "mem oom")] == []
