"""ARCHITECTURE.md names modules and functions that exist."""

from __future__ import annotations

import re
from pathlib import Path

from llmdoctor.gencfg.engines.table import engines

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def test_every_file_that_is_named_exists() -> None:
    named = {word for word in re.findall(r"`([\w./]+/[\w./]*)", TEXT) if "CODE" not in word}
    assert len(named) > 15
    for name in named:
        assert any((folder / name).exists() for folder in (ROOT, ROOT / "llmdoctor")), name


def test_every_function_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py): (\w+)", TEXT)
    assert named
    for path, function in named:
        assert f"def {function}(" in (ROOT / "llmdoctor" / path).read_text(), (path, function)


def test_an_engine_is_listed_under_its_own_name() -> None:
    assert all(name == engine.name for name, engine in engines().items())
    assert len(engines()) > 5


def test_it_is_one_page() -> None:
    assert len(TEXT.split()) < 1200
