"""The walk against git itself: what it finds is what git would not ignore."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llmdoctor.files.tree import Walk

NAMES = ("a.py", "b.txt", "keep.py", "out")
PATTERNS = ("*.py", "!keep.py", "out/", "/a.py", "sub/*.txt", "**/keep.py", "sub/", "b.*", "# a", "", "out")


@pytest.mark.parametrize("start", [".", "sub"])
@settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(top=st.lists(st.sampled_from(PATTERNS), max_size=4), below=st.lists(st.sampled_from(PATTERNS), max_size=2))
def test_it_is_what_git_would_not_ignore(start: str, top: list[str], below: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    assume(start == "." or "sub/" not in top)  # a folder that is named is looked at, whatever its parent's .gitignore says of it
    root = tmp_path_factory.mktemp("tree")
    for folder in ("", "sub", "sub/out", "out"):
        (root / folder).mkdir(exist_ok=True)
        for name in NAMES:
            if not (root / folder / name).is_dir() and name != "out":
                (root / folder / name).write_text("")
    (root / ".gitignore").write_text("\n".join(top) + "\n")
    (root / "sub" / ".gitignore").write_text("\n".join(below) + "\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-oc", "--exclude-standard", start], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    found = {str(Path(folder.path, name).relative_to(root)) for folder in Walk(str(root / start)).folders() for name in folder.files}
    assert found == set(listed.splitlines())
