"""What a person reads of every command, by snapshot at 80 columns, three of them in colour; and that it fits other widths."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from llmdoctor import commands
from llmdoctor.core.document import Code
from llmdoctor.core.report import Report
from llmdoctor.report import Style, render
from llmdoctor.report.flat import flat
from tests import schema
from tests.cli.screens import COMMANDS, MORE, make_inputs, report_of
from tests.conftest import run_command

WIDTHS = (60, 80, 140)
COLOURED = ("gencfg-diff", "mem-compare", "check")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screens")
    make_inputs(path)
    return path


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, Report]:
    return {}


@pytest.fixture
def report(request: pytest.FixtureRequest, folder: Path, reports: dict[str, Report], monkeypatch: pytest.MonkeyPatch) -> Report:
    """The answer of the command that the test is about, asked once."""
    monkeypatch.chdir(folder)
    name = request.param
    if name not in reports:
        reports[name] = report_of({**COMMANDS, **MORE}[name])
    return reports[name]


@pytest.mark.parametrize("report", COMMANDS, indirect=True)
def test_screen(report: Report, snapshot: Any) -> None:
    assert render(report, "text", Style(80)) == snapshot


@pytest.mark.parametrize("report", [*COMMANDS, *MORE], indirect=True)
def test_the_json_is_by_the_types_of_the_results(report: Report) -> None:
    schema.valid(json.loads(render(report, "json", Style())))


@pytest.mark.parametrize("report", COLOURED, indirect=True)
def test_screen_in_colour(report: Report, snapshot: Any) -> None:
    assert render(report, "text", Style(80, color=True)) == snapshot


@pytest.mark.parametrize("width", [*WIDTHS, 40, 72])
@pytest.mark.parametrize("report", COMMANDS, indirect=True)
def test_nothing_is_wider_than_the_screen_or_cut(report: Report, width: int) -> None:
    text = render(report, "text", Style(width, False))
    pasted = tuple(line for block in flat(report.document) if isinstance(block, Code) for line in block.text.split("\n"))
    for line in text.splitlines():
        assert cell_len(line) <= width or line.endswith(pasted) or line.startswith("  At  "), line
    assert "…" not in text
    assert _COLOUR.sub("", render(report, "text", Style(width, True))) == text


@pytest.mark.parametrize("report", COMMANDS, indirect=True)
def test_the_verdict_comes_first(report: Report) -> None:
    verdict = report.verdict.text
    first = render(report, "text", Style(140, False)).splitlines()[0]
    assert first == verdict[: len(first)].rstrip()
    assert len(first) > 10


def test_every_command_is_asked() -> None:
    covered = {" ".join(words[:2]) for words in (*COMMANDS.values(), *MORE.values())} | {
        words[0] for words in (*COMMANDS.values(), *MORE.values())
    }
    assert {command.name for command in commands.COMMANDS} <= covered


@pytest.mark.parametrize("columns", ["60", "140"])
def test_columns_and_color_are_heeded_by_the_command_itself(columns: str, folder: Path) -> None:
    coloured = run_command(*COMMANDS["gencfg-diff"], "--color", "always", cwd=folder, env={"COLUMNS": columns, "NO_COLOR": ""})
    assert "\x1b[" in coloured.out
    plain = run_command(*COMMANDS["gencfg-diff"], cwd=folder, env={"COLUMNS": columns})
    assert plain.out == _COLOUR.sub("", coloured.out)
    wide = max(len(line) for line in plain.out.splitlines() if not line.startswith("  At  "))
    assert (int(columns) - 40) < wide <= int(columns)
