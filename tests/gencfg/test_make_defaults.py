"""conformance/make_defaults.py: adding a release keeps every other one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from conformance import make_defaults

SOURCE = """
class GenerationConfig:
    def __init__(self, **kwargs):
        self.max_length = kwargs.pop("max_length", None)
        self.brand_new = kwargs.pop("brand_new", 7)
"""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of library.json, and the wheel of a release that is newer than all."""
    path = tmp_path / "library.json"
    path.write_text(make_defaults.OUT.read_text())
    monkeypatch.setattr(make_defaults, "OUT", path)
    with zipfile.ZipFile(tmp_path / "transformers-99.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(make_defaults.FILE, SOURCE)
    return path


def test_writing_what_is_stored_changes_nothing(copy: Path) -> None:
    before = copy.read_text()
    make_defaults.write(make_defaults.stored())
    assert json.loads(copy.read_text()) == json.loads(before)


def test_a_release_is_added_beside_the_others(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = make_defaults.stored()
    assert make_defaults.add(["99.1.0"], copy.parent) == []
    after = make_defaults.stored()
    assert {version: after[version] for version in before} == before
    assert after["99.1.0"].fields == {"max_length": None, "brand_new": 7}
    assert "field brand_new is new (7)" in capsys.readouterr().out
    with zipfile.ZipFile(copy.parent / "transformers-99.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(make_defaults.FILE, SOURCE.replace("7", "8"))
    assert make_defaults.add(["99.1.0"], copy.parent) == ["99.1.0"]
