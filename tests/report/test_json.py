"""The JSON renderer: strict, ASCII, and by the schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.report import Report, ReportError, Verdict, refusal
from llmdoctor.report import Style, render
from llmdoctor.results import report_schema

VALIDATOR = jsonschema.Draft202012Validator(report_schema())
texts = st.text(st.characters(blacklist_categories=()), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
findings = st.builds(
    Finding,
    st.sampled_from(["GEN001", "DIR013"]),
    st.sampled_from(list(Severity)),
    texts,
    st.none() | st.builds(Location, texts, st.none() | texts, st.none() | st.integers(1, 10**6)),
    st.dictionaries(texts, values, max_size=3),
    st.none() | texts,
    st.none() | texts,
)


@given(st.dictionaries(texts, values, max_size=4), st.lists(findings, max_size=4))
def test_any_report_is_valid_strict_ascii_json(result: dict[str, Any], found: list[Finding]) -> None:
    text = render(Report("x", {}, result, tuple(found), verdict=Verdict("-")), "json", Style())
    assert text.isascii()
    VALIDATOR.validate(json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name))))


def test_an_error_report_has_no_result() -> None:
    report = json.loads(render(refusal("gencfg show", ReportError("question", "no such file")), "json", Style()))
    VALIDATOR.validate(report)
    assert report["result"] is None
    assert report["error"] == {"kind": "question", "message": "no such file"}


def test_the_schema_refuses_what_it_should() -> None:
    report = json.loads(render(Report("x", {}, {}, (Finding("nonsense", Severity.INFO, ""),), verdict=Verdict("-")), "json", Style()))
    assert list(VALIDATOR.iter_errors(report))
