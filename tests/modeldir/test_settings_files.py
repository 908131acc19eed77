"""One reader for files of settings: the format by the ending, the bounds of the format, one sentence for what is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.mapping import read_settings_file
from llmdoctor.files.project import load_settings


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_ending_gives_the_format(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"b": [1]}'), ("a.yaml", "b: [1]"), ("a.YML", "b:\n- 1"), ("a.toml", "b = [1]")):
        file = read_settings_file(written(tmp_path, name, text))
        assert file is not None
        assert file.value == {"b": [1]}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.toml", "a = 1\nb = = 2", "not TOML: .*line 2"),
        ("a.toml", "a = " + "9" * 5000, "not TOML"),
        ("a.toml", "a = 0x" + "f" * 400, "a number of more than 300 digits"),
        ("a.toml", "a = " + "[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ("a.toml", "a = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, name: str, text: str, reason: str) -> None:
    file = read_settings_file(written(tmp_path, name, text))
    assert file is not None
    assert file.value is None
    assert re.search(reason, file.problems[0].message)


@pytest.mark.timeout(5)
def test_settings_that_are_a_fifo_or_too_large_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    with pytest.raises(QuestionError, match="is a FIFO, not a file"):
        load_settings(str(tmp_path))
    (tmp_path / "pyproject.toml").unlink()
    with (tmp_path / "pyproject.toml").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(QuestionError, match="at most 16777216 are read"):
        load_settings(str(tmp_path))


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_settings_file(str(tmp_path / "a.yaml")) is None
