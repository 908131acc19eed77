"""The sanitiser: nothing from data steers a terminal or a CI runner."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.core.text import clean, clean_lines, defuse, plain, shown

any_text = st.text(st.characters(blacklist_categories=()), max_size=200)


@given(any_text)
def test_clean_leaves_no_control_format_or_surrogate(text: str) -> None:
    for character in clean(text):
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@given(any_text)
def test_clean_is_idempotent_and_encodable(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    clean(text).encode("utf-8")


@given(st.text(st.characters(blacklist_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"))))
def test_clean_keeps_ordinary_text(text: str) -> None:
    assert clean(text) == text


def test_clean_shows_what_it_removed() -> None:
    assert clean("a\x1b[31mb\u202ec\x07\x85") == "a\\x1b[31mb\\u202ec\\x07\\x85"
    assert clean_lines("a\nb\rc") == "a\nb\\x0dc"


@given(st.text(":#[ \t\nx\x1b", max_size=40))
def test_defuse_leaves_no_runner_command(text: str) -> None:
    for line in defuse(clean_lines(text)).split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_defuse_sees_through_colour_codes() -> None:
    assert "::" not in defuse("\x1b[31m::error::gotcha\x1b[0m").split("error")[0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | any_text, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner)
    )
)
def test_plain_is_strict_json(value: object) -> None:
    json.dumps(plain(value), allow_nan=False)


def test_shown_is_what_a_person_reads() -> None:
    assert [shown(value) for value in (None, 1.0, 0.01, 50, True, [1, 2], "a\x1b", 1e300)] == [
        "None",
        "1.0",
        "0.01",
        "50",
        "True",
        "[1, 2]",
        "'a\\x1b'",
        "1e+300",
    ]
    assert len(shown("x" * 500, 40)) == 40
