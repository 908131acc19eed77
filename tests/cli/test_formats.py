"""Every format from the command line: exit codes, several in one run, stdout and files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdoctor.report import FORMATS
from tests.conftest import Outcome

Run = Callable[..., Outcome]
Make = Callable[..., Path]


@pytest.mark.parametrize("format", FORMATS)
def test_the_exit_code_is_the_same_in_every_format(format: str, llmdoctor: Run, make_model: Make, tmp_path: Path) -> None:
    make_model("good")
    make_model("bad", generation_config={})
    assert llmdoctor("gencfg", "show", "good", "-f", format, cwd=tmp_path).code == 0
    bad = llmdoctor("gencfg", "check", "bad", "-f", format, cwd=tmp_path)
    assert (bad.code, bad.err) == (1, "")
    assert "GEN001" in bad.out
    assert llmdoctor("gencfg", "check", "bad", "-f", format, "--fail-on", "never", cwd=tmp_path).code == 0
    refused = llmdoctor("gencfg", "show", "nowhere", "-f", format, cwd=tmp_path)
    assert refused.code == 2
    assert "nowhere" in refused.out + refused.err
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    assert llmdoctor("gencfg", "check", "empty", "-f", format, cwd=tmp_path).code == 3


def test_one_run_writes_them_all(llmdoctor: Run, make_model: Make, tmp_path: Path) -> None:
    make_model("bad", generation_config={})
    files = [f"{format}:out.{format}" for format in FORMATS if format != "github"]
    done = llmdoctor("gencfg", "check", "bad", "-f", "github", *(part for file in files for part in ("-f", file)), cwd=tmp_path)
    assert done.code == 1
    assert done.out.startswith("::error title=llmdoctor GEN001,file=bad/generation_config.json::")
    assert json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"][0]["ruleId"] == "GEN001"
    assert json.loads((tmp_path / "out.gitlab").read_text())[0]["location"]["path"] == "bad/generation_config.json"
    assert ET.parse(tmp_path / "out.junit").getroot().attrib["failures"] == "1"
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "out.markdown").read_text().startswith("<!-- llmdoctor -->")
    assert not list(tmp_path.glob("*.partial"))


def test_sarif_from_the_command_line_explains_what_was_found(llmdoctor: Run, make_model: Make) -> None:
    log = json.loads(llmdoctor("gencfg", "check", str(make_model(generation_config={})), "-f", "sarif").out)
    run = log["runs"][0]
    described = run["tool"]["driver"]["rules"]
    assert {one["id"] for one in described} == {one["ruleId"] for one in run["results"]}
    assert all(one["help"]["text"] and one["help"]["markdown"] for one in described)


def test_an_ascii_stdout_gets_a_whole_page(llmdoctor: Run, make_model: Make) -> None:
    model = make_model("modèle", generation_config={})
    page = llmdoctor("gencfg", "check", str(model), "-f", "html", env={"PYTHONIOENCODING": "ascii"}).out
    assert "mod&#232;le" in page


def test_two_formats_cannot_share_stdout(llmdoctor: Run, make_model: Make) -> None:
    done = llmdoctor("gencfg", "show", str(make_model()), "-f", "html", "-f", "sarif")
    assert (done.code, done.out) == (2, "")


def test_a_refusal_that_goes_to_a_file_is_told_to_the_person_who_waits(llmdoctor: Run, tmp_path: Path) -> None:
    done = llmdoctor("gencfg", "show", "nowhere", "-f", "html:page.html", "-f", "json:answer.json", cwd=tmp_path)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("llmdoctor: nowhere: ")
    assert [line.partition(": ")[2].split(" ")[0] for line in done.err.splitlines()] == ["nowhere:", "wrote", "wrote"]
    assert "nowhere" in (tmp_path / "page.html").read_text()
    assert llmdoctor("gencfg", "show", "nowhere", "-f", "html", cwd=tmp_path).err == ""
