"""Every label on a screen is in docs/glossary.md, where it has one meaning."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LABELS = re.findall(r"^\| ([A-Z][^|]*?) \|", (ROOT / "docs" / "glossary.md").read_text().partition("## Words")[0], re.MULTILINE)
BLOCKS = {"Note", "Code", "facts"}


def labels_in(path: Path) -> Iterator[tuple[str, int]]:
    """The labels that a module gives to its notes and code, with their lines; a label that is computed is not seen."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name not in BLOCKS:
            continue
        first = node.args[0]
        for label in first.keys if isinstance(first, ast.Dict) else _choices(first):
            if isinstance(label, ast.Constant) and isinstance(label.value, str) and label.value:
                yield label.value, node.lineno


def _choices(node: ast.expr) -> list[ast.expr]:
    return [*_choices(node.body), *_choices(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def test_the_table_is_sorted_and_has_each_label_once() -> None:
    assert sorted(set(LABELS)) == LABELS
    assert len(LABELS) > 20


@pytest.mark.parametrize("path", sorted((ROOT / "llmdoctor").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "llmdoctor")))
def test_every_label_is_in_the_glossary(path: Path) -> None:
    unknown = [f"line {line}: {label}" for label, line in labels_in(path) if label not in LABELS]
    assert unknown == []


def test_a_label_that_is_missing_is_found(tmp_path: Path) -> None:
    (tmp_path / "screen.py").write_text('Note("Fix", "x"); Note("VOID" if a else "Cause", "y"); facts({"Beside": 1})')
    assert [label for label, _ in labels_in(tmp_path / "screen.py")] == ["Fix", "VOID", "Cause", "Beside"]
