"""Patterns as in a .gitignore, held against git itself, and their time on hostile input."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.files.gitignore import Patterns

LINES = [
    "*.py", "/a.py", "sub/", "sub/*.py", "**/b", "a/**/b", "a/**", "!keep.py", "[abc].py", "[!a].py", "a?c", "\\#x",
    "\\!x", "#x", "x ", "x\\ ", "**", "*", "/", "a//b", "a**b", "**a/b", "[a-c]x", "[]a]x", "[^]]x", "[[:alpha:]]1",
    "[[:nope:]]1", "[z-a]x", "a[", "a\\", "sub/**/", "/**/b", "a/b/", "***", "a/***/b", "[a\\]]x", "[a/b]x", "[--0]x",
    "!sub/", "",
]  # fmt: skip
PATHS = [
    "a.py", "sub/a.py", "sub/deep/a.py", "b", "a/b", "a/x/b", "a/x/y/b", "keep.py", "abc", "axc", "#x", "!x", "x", "x ",
    "bx", "]x", "a1", "11", "zx", "a[", "aXb", "a/bx", "sub/b/c", "-x", "x",
]  # fmt: skip


def ignored_by_git(folder: Path, lines: list[str], paths: list[str]) -> list[bool]:
    """What `git check-ignore` says of files that need not exist."""
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("\n".join(lines) + "\n")
    given = "\0".join(paths)
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    command = ["git", "check-ignore", "--no-index", "--verbose", "--non-matching", "-z", "--stdin"]
    out = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, env=env, check=False).stdout
    fields = out.split("\0")
    return [bool(pattern) and not pattern.startswith("!") for pattern in fields[2::4]]


@pytest.mark.parametrize("line", LINES)
def test_one_line_matches_what_git_matches(line: str, tmp_path: Path) -> None:
    expected = ignored_by_git(tmp_path, [line], PATHS)
    assert dict(zip(PATHS, [Patterns([line]).match(path) for path in PATHS], strict=True)) == dict(zip(PATHS, expected, strict=True))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.text("ab*?/![]-\\.", min_size=1, max_size=8), min_size=1, max_size=4),
    paths=st.lists(st.lists(st.text("ab.-!]", min_size=1, max_size=4), min_size=1, max_size=4), min_size=8, max_size=16),
)
def test_any_lines_match_what_git_matches(lines: list[str], paths: list[list[str]], tmp_path: Path) -> None:
    names = ["/".join(name for name in parts if name not in (".", "..")) for parts in paths]
    names = [name for name in names if name] or ["a"]
    assert [Patterns(lines).match(name) for name in names] == ignored_by_git(tmp_path, lines, names)


@pytest.mark.parametrize("pattern", ["*a" * 14 + "b", "**/a/" * 20 + "b", "*" * 500 + "b", "?*" * 100 + "b"])
def test_a_hostile_pattern_takes_linear_time(pattern: str) -> None:
    start = time.perf_counter()
    patterns = Patterns([pattern])
    assert not patterns.match("a" * 240)
    assert not patterns.match("/".join(["a"] * 200))
    assert time.perf_counter() - start < 1
