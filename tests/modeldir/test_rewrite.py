"""Edits to JSON texts: what they change, and that they change nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.core.edit import Edit
from llmdoctor.files.rewrite import rewrite

SPREAD = '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {"c": 1,  "d": 2},\n  "e": 3\n}\n'


def edited(text: str, *edits: Edit) -> str:
    return rewrite(text, edits)[0]


@pytest.mark.parametrize(
    ("text", "edit", "expected"),
    [
        (SPREAD, Edit("f", "/a", "set", [7]), SPREAD.replace("1,\n    2", "7")),
        (SPREAD, Edit("f", "/e", "set", [7]), SPREAD.replace('"e": 3', '"e": [\n    7\n  ]')),
        (SPREAD, Edit("f", "/b/c", "set", True), SPREAD.replace('"c": 1', '"c": true')),
        (SPREAD, Edit("f", "/new", "set", 0), SPREAD.replace('"e": 3', '"e": 3,\n  "new": 0')),
        (SPREAD, Edit("f", "/b/new", "set", 0), SPREAD.replace('"d": 2', '"d": 2, "new": 0')),
        (SPREAD, Edit("f", "/a", "remove"), '{\n  "b": {"c": 1,  "d": 2},\n  "e": 3\n}\n'),
        (SPREAD, Edit("f", "/e", "remove"), SPREAD.replace(',\n  "e": 3', "")),
        (SPREAD, Edit("f", "/b/c", "remove"), SPREAD.replace('"c": 1,  ', "")),
        (SPREAD, Edit("f", "/a/0", "remove"), SPREAD.replace("1,\n    ", "")),
        ("{ }", Edit("f", "/a", "set", "é"), '{"a": "\\u00e9"}'),
        ('{"é": 1}', Edit("f", "/é", "set", "ü"), '{"é": "ü"}'),
        ('{"a": 1}', Edit("f", "/a", "remove"), "{}"),
        ('{"a":1,"b":2}', Edit("f", "/c", "set", [1, 2]), '{"a":1,"b":2, "c":[1, 2]}'),
        ('{"a": 1, "b": 0, "a": 2}', Edit("f", "/a", "last"), '{"b": 0, "a": 2}'),
        ('{"a": 1, "b": 0, "a": 2}', Edit("f", "/a", "set", 9), '{"a": 1, "b": 0, "a": 9}'),
        ('{\r\n\t"x/y": 1\r\n}', Edit("f", "/x~1y", "set", [1]), '{\r\n\t"x/y": [1]\r\n}'),
    ],
)
def test_only_what_was_meant_changes(text: str, edit: Edit, expected: str) -> None:
    assert edited(text, edit) == expected


@pytest.mark.parametrize("pointer", ["", "/no", "/a/9/x", "/e/x", "/a/x"])
@pytest.mark.parametrize("action", ["set", "remove", "last"])
def test_an_edit_without_a_place_is_left_out(pointer: str, action: Any) -> None:
    if (pointer, action) == ("/no", "set"):
        return  # that one adds a member
    assert rewrite(SPREAD, (Edit("f", pointer, action, 1),)) == (SPREAD, ())


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(
    value=st.dictionaries(st.text(max_size=4), VALUES, max_size=5),
    new=VALUES,
    style=st.sampled_from([{}, {"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}, {"indent": 4, "ensure_ascii": False}]),
    data=st.data(),
)
def test_the_value_is_what_the_edit_says(value: dict[str, Any], new: Any, style: dict[str, Any], data: st.DataObject) -> None:
    """Against the same change to the value itself, at any object in it."""
    wanted = copy.deepcopy(value)
    place, pointer = wanted, ""
    while inner := [name for name, item in place.items() if isinstance(item, dict)]:
        if not data.draw(st.booleans()):
            break
        name = data.draw(st.sampled_from(inner))
        place, pointer = place[name], f"{pointer}/{escaped(name)}"
    name = data.draw(st.sampled_from([*place, "new"]))
    action = data.draw(st.sampled_from(["set", "remove", "last"])) if name in place else "set"
    if action == "set":
        place[name] = new
    elif action == "remove":
        del place[name]
    text = json.dumps(value, **style)
    rewritten, made = rewrite(text, (Edit("f", f"{pointer}/{escaped(name)}", action, new),))
    assert made
    assert json.loads(rewritten) == wanted
    if action != "set":
        assert len(rewritten) <= len(text)
