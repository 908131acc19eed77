"""A name has one meaning: no class or type alias of the package is defined twice, and no option of the command line has the name of a type."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent / "llmdoctor"


def types_of(tree: ast.Module) -> Iterator[str]:
    """The classes of a module, wherever they stand, and its type aliases: capitalised names at the top level, whose letters are not all capitals."""
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            name = target.id if isinstance(target, ast.Name) else ""
            if name[:1].isupper() and not name.isupper():
                yield name


def definitions() -> dict[str, list[str]]:
    """The files that define each name; those of cli/ are one, because each group of commands declares its own --without."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT)
        for name in types_of(ast.parse(path.read_text())):
            found[name].append("cli" if inside.parts[0] == "cli" else str(inside))
    return found


def test_a_name_has_one_meaning() -> None:
    twice = {name: places for name, places in definitions().items() if len(set(places)) > 1 or (len(places) > 1 and places[0] != "cli")}
    assert not twice


def test_the_search_can_fail() -> None:
    tree = ast.parse("class A: ...\nKind = Literal['a']\nALL = 1\n_PRIVATE = 2\ndef f():\n    class B: ...")
    assert sorted(types_of(tree)) == ["A", "B", "Kind"]
