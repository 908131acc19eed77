"""Strict JSON: agrees with the standard library on what is right, and says where what is wrong."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.files import jsonfile, positions
from llmdoctor.files.jsonfile import CONFIG_LIMIT, JsonFile, parse

QUICK = settings(max_examples=150, deadline=None)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | texts
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12)


def read(text: str | bytes) -> JsonFile:
    return parse(text.encode() if isinstance(text, str) else text, "dir/x.json", "x.json")


def pointers(value: Any, pointer: str = "") -> list[tuple[str, str | None]]:
    """Every pointer of a document with the key it ends in (None in an array)."""
    out: list[tuple[str, str | None]] = []
    if isinstance(value, dict):
        for key, item in value.items():
            below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            out += [(below, key), *pointers(item, below)]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            out += [(f"{pointer}/{index}", None), *pointers(item, f"{pointer}/{index}")]
    return out


@QUICK
@given(documents, st.sampled_from([None, 0, 2]), st.booleans())
def test_agrees_with_the_standard_library(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    file = read(text)
    assert file.problems == ()
    assert file.value == json.loads(text)
    assert json.dumps(file.value) == json.dumps(value)  # True is not 1, 1.0 is not 1


@QUICK
@given(st.dictionaries(texts, documents, min_size=1, max_size=5))
def test_a_line_holds_the_key(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    file, lines = read(text), text.split("\n")
    for pointer, key in pointers(value):
        line = file.line(pointer)
        assert line is not None
        if key is not None:
            assert lines[line - 1].lstrip().startswith(json.dumps(key) + ":")
    assert file.line("") == 1
    assert file.line("/nowhere/at/all") is None


def test_lines_are_those_of_the_value_that_counts() -> None:
    file = read('{\n"a": [1,\n2],\n"a": [3,\n\n4]\n}')
    assert file.value == {"a": [3, 4]}
    assert (file.line("/a"), file.line("/a/0"), file.line("/a/1")) == (4, 4, 6)


@QUICK
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    file = read(data)
    assert (file.value is None and data.strip() != b"null") == (len(file.problems) > 0 and file.value is None)
    file.line("/a")
    try:
        expected = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        assert file.problems
    else:
        assert file.value == expected or file.problems or expected != expected  # NaN


@QUICK
@given(documents, st.floats(0, 1), st.binary(min_size=1, max_size=3))
def test_mutated_documents_never_raise(value: Any, place: float, insert: bytes) -> None:
    data = json.dumps(value, indent=1).encode()
    at = int(place * len(data))
    file = read(data[:at] + insert + data[at:])
    try:
        json.loads((data[:at] + insert + data[at:]).decode("utf-8"))
    except ValueError:
        assert file.value is None
        assert file.problems[0].location is not None


WRONG = [
    ("empty", "", "DIR001", None, 1),
    ("blank", " \n ", "DIR001", None, 1),
    ("truncated object", '{\n"a": 1,', "DIR001", "", 2),
    ("truncated value", '{\n"a": {\n"b":', "DIR001", "/a/b", 3),
    ("truncated string", '{\n"a": "xy', "DIR001", "/a", 2),
    ("trailing comma", '{"a": [1,\n2,\n]}', "DIR001", "/a/2", 3),
    ("goes on", '{}\n{"a": 1}', "DIR001", "", 2),
    ("single quotes", "{\n'a': 1}", "DIR001", "", 2),
    ("python words", '{"a":\nTrue}', "DIR001", "/a", 2),
    ("control character", '{"a":\n"x\ty"}', "DIR001", "/a", 2),
    ("bad escape", '{"a":\n"\\x41"}', "DIR001", "/a", 2),
    ("leading zero", '{"a":\n01}', "DIR001", "/a", 2),
    ("no colon", '{\n"a" 1}', "DIR001", "/a", 2),
    ("bom", b"\xef\xbb\xbf{}", "DIR001", None, 1),
    ("utf-16", '{"a": 1}'.encode("utf-16"), "DIR001", None, 1),
    ("utf-16 without a mark", '{"a": 1}'.encode("utf-16-le"), "DIR001", None, 1),
    ("binary", b"{}\n\x80\x02}q\x00X", "DIR001", None, 2),
    ("latin-1", '{\n"a": "é"}'.encode("latin-1"), "DIR001", None, 2),
    ("too deep", '{"a":\n' + "[" * 101 + "]" * 101 + "}", "DIR005", "/a" + "/0" * 100, 2),
    ("a hundred thousand deep", '{"a":\n' + "[" * 100_000, "DIR005", "/a" + "/0" * 100, 2),
    ("100,000 digits", '{"a":\n' + "9" * 100_000 + "}", "DIR005", "/a", 2),
    ("100,000 decimals", '{"a":\n0.' + "9" * 100_000 + "}", "DIR005", "/a", 2),
    ("lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "DIR013", None, 1),
]


@pytest.mark.parametrize(("text", "code", "pointer", "line"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_unreadable_says_where(text: str | bytes, code: str, pointer: str | None, line: int) -> None:
    file = read(text)
    assert file.value is None
    (problem,) = file.problems
    assert problem.location is not None
    assert (problem.code, problem.location.pointer, problem.location.line) == (code, pointer, line)
    assert problem.message.startswith("x.json")
    assert len(problem.message) < 300


ODD = [
    ("duplicate", '{\n"a": 1,\n"a": 2}', "DIR002", "/a", 3),
    ("nested duplicate", '{"x": [{\n"a/b": 1,\n"a/b": 2}]}', "DIR002", "/x/0/a~1b", 3),
    ("duplicate by escape", '{\n"a": 1,\n"\\u0061": 2}', "DIR002", "/a", 3),
    ("NaN", '{\n"a": NaN}', "DIR003", "/a", 2),
    ("-Infinity", '{"a": [1,\n-Infinity]}', "DIR003", "/a/1", 2),
    ("overflow", '{\n"a": 1e999}', "DIR003", "/a", 2),
    ("overflow without an exponent", '{\n"a": ' + "1" * 350 + ".0}", "DIR003", "/a", 2),
    ("surrogate in a value", '{\n"a": "\\ud83d"}', "DIR012", "/a", 2),
    ("surrogate in a key", '{\n"\\ud83d": 1}', "DIR012", "", 2),
]


@pytest.mark.parametrize(("text", "code", "pointer", "line"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_what_is_odd_stays_readable_and_says_where(text: str, code: str, pointer: str, line: int) -> None:
    file = read(text)
    assert isinstance(file.value, dict)
    (problem,) = file.problems
    assert problem.location is not None
    assert (problem.code, problem.location.pointer, problem.location.line) == (code, pointer, line)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert read('{"a": "\\ud83d\\ude00"}').problems == ()


def test_brackets_in_strings_neither_add_nor_hide_depth() -> None:
    assert read(json.dumps({"a": "[" * 5000})).problems == ()
    brackets = '{"a": "' + "]" * 500 + '", "b": ' + "[" * 150 + "]" * 150 + "}"
    assert [problem.code for problem in read(brackets).problems] == ["DIR005"]


def test_bools_and_floats_keep_their_type() -> None:
    value = read('{"a": true, "b": 1, "c": 1.0}').value
    assert [type(item) for item in value.values()] == [bool, int, float]


def test_overflow_is_infinity_as_in_python() -> None:
    assert math.isinf(read('{"a": -1e999}').value["a"])


def test_a_file_full_of_oddities_is_told_by_the_first() -> None:
    text = "{" + ",".join('"a": NaN' for _ in range(5000)) + "}"
    assert len(read(text).problems) == positions.MAX_ODDITIES


@pytest.mark.parametrize(
    "make",
    [
        "b'{\"a\": NaN, \"b\": \"' + b'x' * 15_000_000 + b'\"}'",
        "b'{\"b\": \"' + b'[' * 200 + b'x' * 15_000_000 + b'\"}'",
        "b'{\"a\": NaN, \"b\": [' + b'1,' * 6_000_000 + b'1]}'",
        "b'[' * 16_000_000",
    ],
    ids=["long odd string", "string of brackets", "many odd numbers", "brackets"],
)
def test_large_files_end_soon_in_little_memory(make: str) -> None:
    code = f"from llmdoctor.files.jsonfile import parse\nfile = parse({make}, 'x', 'x')\nfile.line('/a')"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n{code}"
    subprocess.run([sys.executable, "-c", limited], check=True, timeout=120)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime < 10


def test_the_position_of_a_mistake_in_a_file_too_large_to_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonfile, "CONFIG_LIMIT", 10)
    (problem,) = read('{"a": 1,\n"b": 2,\n}').problems
    assert problem.location is not None
    assert problem.code == "DIR001"
    assert problem.location.line in (2, 3)  # Python 3.13 points to the comma, earlier ones to what follows it
    assert CONFIG_LIMIT == 16 * 2**20
