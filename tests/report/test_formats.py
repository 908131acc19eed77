"""The formats for machines: well-formed and harmless for any report, by the published schemas, and by snapshot."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.fingerprint import fingerprints
from llmdoctor.core.report import Report, ReportError, Status, Verdict, refusal
from llmdoctor.core.text import clean
from llmdoctor.report import FORMATS, Style, render
from llmdoctor.report.markdown import LIMIT
from tests.report.examples import EXAMPLE, HOSTILE, RULES, reports

SCHEMAS = Path(__file__).parent / "schemas"
SARIF = jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text()))
MACHINE = tuple(name for name in FORMATS if name not in ("text", "json"))
ANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
COMMAND = re.compile(r"^::(error|warning|notice) ((?:[a-z]+=[^:,\r\n]*)(?:,[a-z]+=[^:,\r\n]*)*)::([^\r\n]*)$")


def of(report: Report, format: str) -> str:
    return render(report, format, Style(), RULES)


@pytest.mark.parametrize("format", MACHINE)
def test_snapshot(format: str, snapshot: Any) -> None:
    text = re.sub(
        r"<style>.*?</style>|sha256-[\w+/=]+", "", of(EXAMPLE, format), flags=re.DOTALL
    )  # the style sheet is not what is held here
    assert text == snapshot


@pytest.mark.parametrize("format", MACHINE)
@given(report=reports)
@ANY
def test_nothing_from_data_steers_a_terminal_or_a_runner(format: str, report: Report) -> None:
    text = of(report, format)
    text.encode("utf-8")
    assert clean(text.replace("\n", "")) == text.replace("\n", "")
    assert "##[" not in text
    ours = 0
    for line in text.splitlines():
        if line.lstrip().startswith("::"):
            assert format == "github"
            assert COMMAND.match(line), line
            ours += 1
    if format == "github":
        assert ours == len(report.findings) + (report.error is not None) + _twice(report)


def _twice(report: Report) -> int:
    """How many findings more than one subject claims, or the same one more than once."""
    listed = [index for entry in report.result["subjects"] for index in entry["findings"] if 0 <= index < len(report.findings)]  # type: ignore[index]
    return len(listed) - len(set(listed))


@given(report=reports)
@ANY
def test_sarif_is_valid(report: Report) -> None:
    log = json.loads(of(report, "sarif"), parse_constant=pytest.fail)
    SARIF.validate(log)
    run = log["runs"][0]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        address = urlsplit(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
        assert (address.scheme, address.netloc) in (("", ""), ("file", ""))


def test_the_sarif_schema_refuses_what_it_should() -> None:
    log = json.loads(of(EXAMPLE, "sarif"))
    log["runs"][0]["results"][0]["level"] = "critical"
    assert list(SARIF.iter_errors(log))


def test_sarif_links_to_the_rules_page_where_the_documentation_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "helpUri" not in of(EXAMPLE, "sarif")
    monkeypatch.setenv("LLMDOCTOR_DOCS", "https://docs.example.org/llmdoctor/")
    log = json.loads(of(EXAMPLE, "sarif"))
    SARIF.validate(log)
    assert log["runs"][0]["tool"]["driver"]["rules"][0]["helpUri"] == "https://docs.example.org/llmdoctor/rules/GEN001/"
    assert '<a href="https://docs.example.org/llmdoctor/rules/GEN001/">GEN001</a>' in of(EXAMPLE, "html")
    monkeypatch.setenv("LLMDOCTOR_DOCS", "javascript:alert(1)")
    assert "javascript:alert(1)/rules" not in of(EXAMPLE, "html")


def test_sarif_has_the_help_of_the_rules_that_were_found() -> None:
    rules = json.loads(of(EXAMPLE, "sarif"))["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["GEN001", "DIR012", "XYZ999"]
    assert rules[0]["help"]["text"] == "It runs to the limit.\n\nBad:\nbad <b>\n\nGood:\ngood\n\nFix: a fix"
    assert rules[0]["defaultConfiguration"] == {"level": "error"}


@given(report=reports)
@ANY
def test_junit_is_well_formed_and_counts_what_it_holds(report: Report) -> None:
    text = of(report, "junit")
    assert text.isascii()
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) > 0
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    for name in ("tests", "failures", "errors"):
        assert int(root.attrib[name]) == sum(int(suite.attrib[name]) for suite in root)


@given(report=reports)
@ANY
def test_junit_is_valid_for_jenkins(report: Report) -> None:
    schema = pytest.importorskip("xmlschema").XMLSchema(str(SCHEMAS / "junit-10.xsd")) if not _XSD else _XSD[0]
    _XSD[:] = [schema]
    schema.validate(of(report, "junit"))


_XSD: list[Any] = []


def test_junit_says_what_the_data_said() -> None:
    root = ET.fromstring(of(EXAMPLE, "junit"))
    failures = root.findall("testsuite/testcase/failure")
    assert failures[1].attrib["message"] == clean(f"a string says {HOSTILE}")
    assert [suite.attrib["name"] for suite in root] == ["models/a", "models/b", "models", "skipped"]


@given(report=reports)
@ANY
def test_gitlab_has_what_gitlab_reads(report: Report) -> None:
    entries = json.loads(of(report, "gitlab"))
    for entry in entries:
        assert entry["severity"] in ("info", "major", "critical", "blocker")
        assert entry["location"]["lines"]["begin"] >= 1
        assert entry["check_name"]
    marks = [entry["fingerprint"] for entry in entries]
    assert len(set(marks)) == len(marks)


def test_a_fingerprint_outlives_lines_and_tells_findings_apart() -> None:
    one = Finding("GEN001", Severity.ERROR, "a.json:5 has no eos, see line 7", Location("a.json", "/x", 5))
    moved = replace(one, message="a.json:9 has no eos, see line 11", location=Location("a.json", "/x", 9))
    others = [replace(one, code="GEN002"), replace(one, message="else"), replace(one, location=Location("b.json", "/x", 5))]
    assert fingerprints([one]) == fingerprints([moved])
    assert len(set(fingerprints([one, moved, *others]))) == 5
    assert fingerprints([one, moved])[0] == fingerprints([one])[0]


def test_github_escapes_as_the_runner_undoes() -> None:
    line = of(EXAMPLE, "github").splitlines()[1]
    found = COMMAND.match(line)
    assert found is not None
    properties = dict(item.split("=", 1) for item in found[2].split(","))
    assert properties == {"title": "llmdoctor DIR012", "file": "models/a/x y%25%2C%3A.json", "line": "3"}
    assert "%0A::error::gotcha # #[warning]x" in found[3]


def test_github_says_why_nothing_could_be_asked() -> None:
    assert of(refusal("x", ReportError("question", "no 100%")), "github") == "::error title=llmdoctor refused::no 100%25\n"


@given(report=reports)
@ANY
def test_markdown_is_text_and_nothing_else(report: Report) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    for token in markdown.parse(of(report, "markdown")):
        for part in (token, *(token.children or ())):
            assert part.type not in ("link_open", "image", "code_block", "hr", "ordered_list_open", "blockquote_open", "s_open", "em_open")
            if part.type in ("html_inline", "html_block"):
                for tag in re.findall(r"<[^>]*>?", part.content):
                    assert tag in ("<code>", "</code>", "<br>", "<details>", "<summary>", "</summary>", "</details>", "<!-- llmdoctor -->")


def test_markdown_wakes_nobody() -> None:
    text = of(EXAMPLE, "markdown")
    assert "@octocat" not in text
    assert "<code>&#64;octocat</code>" in text
    assert "<code>&#35;12</code>" in text


def test_markdown_fits_a_comment() -> None:
    many = tuple(replace(EXAMPLE.findings[1], message=f"{n} " + HOSTILE * 30, fix="x\n" * 900) for n in range(300))
    text = of(replace(EXAMPLE, findings=many), "markdown")
    assert len(text.encode()) <= LIMIT + 200 < 65_536
    left = re.search(r"(\d+) findings more", text)
    assert left is not None
    assert int(left[1]) + text.count("**warning DIR012**") == 300


def test_a_refusal_is_said_in_every_format() -> None:
    for format in FORMATS:
        assert "no such thing" in of(refusal("x", ReportError("question", "no such thing")), format)


_MATCHER = json.loads((Path(__file__).parents[2] / "action" / "problem-matcher.json").read_text())["problemMatcher"][0]["pattern"][0]
CONCISE = re.compile(_MATCHER["regexp"])


def test_concise_is_one_finding_per_line_and_the_verdict_last() -> None:
    *lines, last = of(EXAMPLE, "concise").splitlines()
    assert lines[0] == "models/a/generation_config.json:5:1: GEN001 error runs to 512 new tokens: config.json:5 has no eos"
    assert lines[2] == "models:1:1: XYZ999 info of no catalogue and no subject"
    assert last == "llmdoctor: problem: models: 1 error, 1 warning, 1 note"
    assert len(lines) == len(EXAMPLE.findings)


@given(report=reports)
@ANY
def test_a_problem_matcher_finds_every_concise_finding(report: Report) -> None:
    *lines, _ = of(report, "concise").split("\n")[:-1]
    assert len(lines) == len(report.findings) + _twice(report)
    assert all(CONCISE.match(line) for line in lines), lines


@pytest.mark.parametrize("status", ["ok", "problem", "bound", "undecided", "refused"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_carries_the_verdict_and_its_status(format: str, status: Status) -> None:
    report = replace(EXAMPLE, findings=(), result={}, skipped=(), document=(), verdict=Verdict("five gigabytes", status))
    text = of(report, format)
    if format == "gitlab" and status in ("ok", "problem"):  # a list of issues, without a place for an answer that is none
        assert json.loads(text) == []
        return
    assert "five gigabytes" in text
    assert status in text.lower() or (format == "text" and status in ("ok", "problem"))


@pytest.mark.parametrize(
    ("status", "text", "printed"),
    [
        ("bound", "At least 5.0 GB", "At least 5.0 GB"),
        ("bound", "5.0 GB without activations", "Bound: 5.0 GB without activations"),
        ("undecided", "Undecided: 3 tokens", "Undecided: 3 tokens"),
        ("undecided", "temperature 1 or 0.9", "Undecided: temperature 1 or 0.9"),
        ("problem", "never stops", "never stops"),
    ],
)
def test_a_verdict_that_is_no_plain_answer_begins_with_the_word_for_it(status: Status, text: str, printed: str) -> None:
    assert of(Report("x", {}, {}, verdict=Verdict(text, status)), "text") == f"{printed}\n"


def test_an_unanswered_question_is_an_error_for_a_ci_system() -> None:
    report = Report("x", {"path": "m"}, {}, verdict=Verdict("at least 5 GB", "bound"), unanswered=True)
    assert ET.fromstring(of(report, "junit")).attrib["errors"] == "1"
    assert json.loads(of(report, "gitlab"))[0]["severity"] == "blocker"
    assert json.loads(of(replace(report, unanswered=False), "gitlab"))[0]["severity"] == "info"
