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


def calls_by_position(tree: ast.Module) -> Iterator[str]:
    """The calls with six positional arguments or more, except those of torch, which has no names for some of its arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len([one for one in node.args if not isinstance(one, ast.Starred)]) > 5:
            name = ast.unparse(node.func)
            if not name.startswith(("torch.", "ctx.")):
                yield f"{name}, line {node.lineno}"


def test_no_call_passes_six_positional_arguments() -> None:
    found = {str(path.relative_to(ROOT)): list(calls_by_position(ast.parse(path.read_text()))) for path in ROOT.rglob("*.py")}
    assert not {path: calls for path, calls in found.items() if calls}


def test_the_search_for_calls_can_fail() -> None:
    assert list(calls_by_position(ast.parse("f(1, 2, 3, 4, 5)\nf(1, 2, 3, 4, 5, 6)"))) == ["f, line 2"]


def test_findings_are_made_by_their_rules() -> None:
    """RULE.at() takes severity and fix from the declaration; GitLab's report alone has an entry that is of no rule."""
    makers = {"core/rule.py", "report/gitlab.py"}
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"
    }
    assert found == makers


def test_options_are_frozen_and_named() -> None:
    """Options are passed by name only, so that two of one type cannot be swapped; every command's are in the table of commands."""
    wrong = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Options"):
                made = " ".join(map(ast.unparse, node.decorator_list))
                if "frozen=True" not in made or "kw_only=True" not in made:
                    wrong.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not wrong


OLD_WORDS = {"question", "questions", "hidden", "asked", "told", "neighbours"}  # each said something else in every file


def variables_of(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives to its own functions, arguments, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_old_words_are_gone() -> None:
    found = {
        str(path.relative_to(ROOT)): OLD_WORDS & {name.strip("_").lower() for name in variables_of(ast.parse(path.read_text()))}
        for path in ROOT.rglob("*.py")
    }
    assert not {path: names for path, names in found.items() if names}
