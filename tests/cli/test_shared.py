"""--show, --statistics and --overwrite: the options that every command has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdoctor.core.document import Note
from llmdoctor.core.finding import Severity
from llmdoctor.core.report import Verdict
from llmdoctor.report import FOR_PEOPLE, FORMATS, Style, render
from tests.conftest import Outcome
from tests.report.examples import EXAMPLE, RULES

Run = Callable[..., Outcome]
Make = Callable[..., Path]


@pytest.mark.parametrize("format", FORMATS)
def test_show_leaves_out_findings_for_people_and_none_for_programs(format: str) -> None:
    everything = render(EXAMPLE, format, Style(), RULES)
    errors = render(EXAMPLE, format, Style(show=Severity.ERROR), RULES)
    if format not in FOR_PEOPLE:
        assert errors == everything
        return
    assert "runs to 512 new tokens" in errors
    assert "of no catalogue" in everything
    assert "of no catalogue" not in errors
    assert "DIR012" not in errors
    if format in ("text", "html", "markdown"):
        assert "2 findings of severity info and warning" in errors


def test_statistics_count_the_findings_per_rule() -> None:
    twice = EXAMPLE.findings[0]
    report = render(
        type(EXAMPLE)(
            "check", {}, {}, (twice, *EXAMPLE.findings), document=(Note("Checked", "x"), twice, Note("Next", "y")), verdict=Verdict("-")
        ),
        "text",
        Style(statistics=True),
    )
    lines = report.splitlines()
    assert "2         error     GEN001" in lines
    assert lines.index("2         error     GEN001") < lines.index("Next     y")
    assert "runs to 512" not in report


def test_subjects_keep_their_findings_when_some_are_left_out() -> None:
    page = render(EXAMPLE, "markdown", Style(show=Severity.WARNING))
    assert "| <code>models/a</code> | 1 | 1 | 0 |" in page


def test_an_output_file_is_kept_unless_overwrite_is_given(llmdoctor: Run, make_model: Make, tmp_path: Path) -> None:
    make_model("model")
    words = ("gencfg", "check", "model", "-f", "json:report.json")
    first = llmdoctor(*words, cwd=tmp_path)
    assert (first.code, first.err) == (0, "llmdoctor: wrote report.json\n")
    (tmp_path / "report.json").write_text("another run's")
    again = llmdoctor(*words, cwd=tmp_path)
    assert (again.code, again.out) == (2, "")
    assert again.err == "llmdoctor: --format report.json: the file exists and is kept: give --overwrite to replace it, or another name\n"
    assert (tmp_path / "report.json").read_text() == "another run's"
    assert llmdoctor(*words, "--overwrite", cwd=tmp_path).code == 0
    assert json.loads((tmp_path / "report.json").read_text())["command"] == "gencfg check"
    assert llmdoctor("gencfg", "check", "model", "-f", "json:/dev/null", cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("gencfg", "trace", "-o", "kept.jsonl", "--", "true"),
        ("mem", "measure", "-o", "kept.jsonl", "--", "true"),
        ("mem", "measure", "nowhere", "-o", "kept.jsonl"),
        ("sample", "draw", "--probs", ".5,.5", "--output", "kept.jsonl"),
        ("check", ".", "--write-baseline", "kept.jsonl"),
    ],
    ids=" ".join,
)
def test_every_command_that_writes_keeps_an_existing_file(words: tuple[str, ...], llmdoctor: Run, tmp_path: Path) -> None:
    (tmp_path / "kept.jsonl").write_text("another run's")
    done = llmdoctor(*words, cwd=tmp_path)
    assert done.code == 2
    assert "kept.jsonl: the file exists and is kept: give --overwrite to replace it, or another name" in done.err
    assert (tmp_path / "kept.jsonl").read_text() == "another run's"
