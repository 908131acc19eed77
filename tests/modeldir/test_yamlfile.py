"""The reader of YAML against PyYAML's safe_load, and what it refuses."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10)
SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | TEXT
DATA = st.dictionaries(
    TEXT, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=12)
)


def read(text: str) -> JsonFile:
    return parse_yaml(text.encode(), "a.yaml", "a.yaml")


@settings(max_examples=150, derandomize=True, deadline=None)
@given(value=DATA, flow=st.booleans())
def test_it_is_what_safe_load_makes(value: dict[str, Any], flow: bool) -> None:
    if "<<" in str(value):
        return
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert read(text).value == yaml.safe_load(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "a: 1e-5\nb: 5e8\nc: .5\nd: 1_000\ne: 0x1f\nf: 010\ng: 1:30\n",
        "a: yes\nb: off\nc: ~\nd: 'yes'\ne: null\nf: |\n  two\n  lines\n",
        "base: &base\n  a: 1\n  b: 2\nuse:\n  <<: *base\n  b: 3\n",
        "list:\n- a\n- {b: [1, 2]}\n",
    ],
)
def test_it_reads_yaml_1_1_as_pyyaml_does(text: str) -> None:
    value = read(text).value
    value.get("use", {}).pop("<<", None)
    assert value == yaml.safe_load(text)


def test_every_value_has_its_line() -> None:
    file = read("a: 1\nb:\n  c: [1,\n      2]\n  d/e: x\nbf16: true\n")
    assert [file.line(pointer) for pointer in ("/a", "/b/c", "/b/c/1", "/b/d~1e", "/bf16", "/none")] == [1, 3, 4, 5, 6, None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "expected|did not find"),
        ("a: &a [*a]", "is inside it"),
        ("a: *nothing", "names no anchor"),
        ("{{ helm }}: {% if x %}", "cannot start any token"),
        ("x: " + "[" * 200 + "]" * 200, "nested deeper"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{n}: &b{n} [{','.join(['*a' if not n else f'*b{n - 1}'] * 9)}]\n" for n in range(9)),
            "aliases counted",
        ),
        ("x: [" + "1," * 60_000 + "]", "more than 50000 values"),
        ("\x00", "."),
    ],
)
def test_what_is_refused_says_why(text: str, reason: str) -> None:
    file = read(text)
    assert file.value is None
    assert __import__("re").search(reason, file.problems[0].message)


def test_tags_make_no_objects() -> None:
    file = read("a: !!python/object/apply:os.system ['touch /tmp/llmdoctor-yaml']\nb: !!binary aGk=\nc: !custom {d: 1}\n")
    assert file.value == {"a": ["touch /tmp/llmdoctor-yaml"], "b": "aGk=", "c": {"d": 1}}


def test_the_largest_file_is_read_in_time() -> None:
    start = time.process_time()
    read("a:\n" + "- {b: 1}\n" * (YAML_LIMIT // 9 - 1))
    assert time.process_time() - start < 2


@pytest.mark.parametrize("number", ["9" * 301, "0x" + "f" * 299, ":".join(["59"] * 150), "1" * 5000 + ".0", "0o" + "7" * 5000])
def test_a_number_of_hundreds_of_digits_is_refused(number: str) -> None:
    file = read(f"a: 1\nb: {number}\n")
    assert file.value is None or isinstance(file.value["b"], str)
    assert all("number" in problem.message and problem.location is not None and problem.location.line == 2 for problem in file.problems)
