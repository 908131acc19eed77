"""The text renderer: what a person reads, by snapshot, and what must hold for any document."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llmdoctor.core.document import Cell, Code, Headline, Note, Table
from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.report import Report, Skipped, Verdict
from llmdoctor.core.text import clean
from llmdoctor.report import Style, render
from llmdoctor.report.columns import fit
from tests.report.examples import MASK, MEMORY, SAMPLING
from tests.report.examples import blocks as picture_blocks

EXAMPLE = Report(
    "gencfg show",
    subject={},
    result={},
    findings=(
        Finding(
            code="GEN001",
            severity=Severity.ERROR,
            message="runs to 512 new tokens",
            location=Location("model/generation_config.json", "/eos_token_id", 5),
            evidence={},
            cause="a cause",
            fix="a fix",
        ),
        Finding("GEN010", Severity.INFO, "pad_token_id 3 is also an eos id"),
    ),
    skipped=(Skipped("model/x", "no model files in it"),),
    document=(
        Table(
            ("field", "value", "from"),
            (
                ("eos_token_id", Cell("None", "bad"), "trl 1.0.0 ppo_trainer.py:410"),
                ("a_field_with_a_long_name", "[1, 2, 3]", "generation_config.json:5"),
            ),
        ),
        Note("CAUSE", "one line that is long enough to need a second line on a screen of eighty columns, as causes often are\nand another"),
        Code("FIX", "GenerationConfig(..., eos_token_id=[151645, 151643], a_very_long_argument=1, another_very_long_argument=2)"),
    ),
    verdict=Verdict("NEVER STOPS: [/INST] is no markup, [bold]neither is this[/bold]", "problem"),
)
words = st.text(st.characters(blacklist_categories=()), max_size=60)
blocks = st.one_of(
    st.builds(Headline, words),
    st.builds(lambda rows: Table(("a", "b"), tuple(rows)), st.lists(st.tuples(words, words), max_size=4)),
    st.builds(Note, words, words),
    st.builds(Code, words, words),
)


@pytest.mark.parametrize("color", [False, True], ids=["plain", "color"])
def test_snapshot(color: bool, snapshot: Any) -> None:
    assert render(EXAMPLE, "text", Style(80, color)) == snapshot


def test_pictures_as_characters(snapshot: Any) -> None:
    report = Report("x", {}, {}, document=(MASK, MEMORY, SAMPLING), verdict=Verdict("-"))
    assert render(report, "text", Style(80)) == snapshot
    for width in (60, 140):
        assert max(map(len, render(report, "text", Style(width)).splitlines())) <= max(width, 80)


def test_a_job_says_what_stands_in_a_pictures_place() -> None:
    picture = replace(MASK, instead=(Note("", "a drawing of its own"),))
    assert render(Report("x", {}, {}, document=(picture,), verdict=Verdict("-")), "text", Style()).splitlines()[1:] == [
        "a drawing of its own"
    ]


@given(st.lists(blocks | picture_blocks, max_size=5), st.integers(40, 140))
def test_any_document_is_safe_and_fits(document: list[Any], width: int) -> None:
    text = render(Report("x", {}, {}, document=tuple(document), verdict=Verdict("-")), "text", Style(width, False))
    text.encode("utf-8")
    assert text.endswith("\n") or not text
    for line in text.splitlines():
        assert not line.lstrip().startswith("::")
        assert "\x1b" not in line
        assert "\u202e" not in line


@given(words)
def test_nothing_of_a_cell_is_lost(text: str) -> None:
    shown = render(Report("x", {}, {}, document=(Table(("",), ((text,),)),), verdict=Verdict("-")), "text", Style(80, False))
    kept = "".join(clean(text).split()).replace("::", ":").replace("##[", "#[").replace(":", "")
    assert kept.replace("#", "") in "".join(shown.split()).replace(":", "").replace("#", "")


def test_an_unknown_format_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="unknown format"):
        render(EXAMPLE, "yaml", Style())


@given(st.lists(st.lists(words, min_size=3, max_size=3), min_size=1, max_size=4), st.integers(40, 140))
def test_columns_fit_and_break_no_word_that_has_room(rows: list[list[str]], width: int) -> None:
    table = Table(("a", "b", "c"), tuple(tuple(row) for row in rows))
    columns = fit(table, width)
    assert sum(columns.widths) + columns.gap * 2 <= width
    longest = [max(max(map(cell_len, clean(row[at]).split()), default=0) for row in [*rows, "abc"]) for at in range(3)]
    indent = [max(len(clean(row[at])) - len(clean(row[at]).lstrip(" ")) for row in rows) for at in range(3)]
    if sum(longest) + sum(indent) + 2 * columns.gap <= width:
        assert all(one <= given for one, given in zip(longest, columns.widths, strict=True))


def test_a_terminal_shows_the_beginning_of_a_very_long_cell_and_a_file_all_of_it() -> None:
    report = Report("x", {}, {}, verdict=Verdict("-"), document=(Table(("",), (("x" * 5000,),)),))
    assert render(report, "text", Style(80)).count("x") == 5000
    cut = render(report, "text", Style(80, terminal=True))
    assert cut.count("x") == 156
    assert cut.rstrip().endswith("...")


def test_blanks_at_the_end_of_a_coloured_line_are_left_out_in_no_time() -> None:
    report = Report(
        "x",
        {},
        {},
        document=(Headline("v", "bad"), Table(("", ""), ((Cell("a", "bad"), Cell("b", "dim")),)), Code("", " " * 200_000 + "x")),
        verdict=Verdict("-"),
    )
    text = render(report, "text", Style(80, color=True))
    assert not any(re.search(r" (\x1b\[[0-9;]*m)*$", line) for line in text.splitlines())


def test_a_finding_has_one_layout_and_does_not_repeat_the_verdict() -> None:
    first, second = EXAMPLE.findings
    report = replace(
        EXAMPLE, verdict=Verdict("runs to 512 new tokens", "problem"), document=(Note("Used", "a.json"), first, Note("Next", "b"))
    )
    assert render(report, "text", Style()).splitlines() == [
        "runs to 512 new tokens",
        "Used     a.json",
        "",
        "error GEN001",
        "  At     model/generation_config.json:5 (/eos_token_id)",
        "  Cause  a cause",
        "  Fix    a fix",
        "",
        "Next     b",
        "",
        "info GEN010 pad_token_id 3 is also an eos id",
        "",
        "Skipped  model/x: no model files in it",
    ]
    assert second is report.findings[1]
