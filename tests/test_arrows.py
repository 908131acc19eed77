"""The arrows of the design (DESIGN.md, The layout), no import cycles, and heavy imports only in `live`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "llmdoctor"
JOBS = {"gencfg", "mask", "mem", "sample", "labels", "callsites"}
BELOW = {"configs", "requests", "attach", "modeldir", "files", "core"}  # what every job may use
ALLOWED: dict[str, set[str]] = {
    "cli": {"check", "look", "demo", *JOBS, "report", *BELOW},
    "demo": {*JOBS, "report", *BELOW},
    "look": {"check", *JOBS, *BELOW},
    "check": {*JOBS, *BELOW},
    **dict.fromkeys(JOBS, BELOW),
    "report": {"core"},
    "configs": {"modeldir", "files", "core"},
    "requests": {"modeldir", "files", "core"},
    "attach": {"core"},
    "modeldir": {"files", "core"},
    "files": {"core"},
    "core": set(),
    "schema": set(),
}
HEAVY = {"torch", "transformers", "accelerate", "deepspeed", "qwen_vl_utils", "pynvml", "trl", "PIL", "tokenizers", "datasets", "peft"}
FILES = sorted(ROOT.rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Every module that `path` imports, and whether it does so at the top level of the file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module] if node.module != "llmdoctor" else [f"llmdoctor.{alias.name}" for alias in node.names]
        found += [(name, id(node) in top) for name in names]
    return found


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def is_live(path: Path) -> bool:
    return path.stem == "live" or "live" in path.relative_to(ROOT).parts


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    room = room_of(path)
    for name, _ in imports_of(path):
        parts = name.split(".")
        if parts[0] != "llmdoctor" or len(parts) == 1 or not room:
            continue
        target = parts[1]
        assert not (ROOT / target).is_dir() or target in {room, *ALLOWED[room]}, f"{room} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_imports_stand_in_functions_of_live(path: Path) -> None:
    heavy = [(name, top) for name, top in imports_of(path) if name.split(".")[0] in HEAVY]
    assert is_live(path) or not heavy, f"imports {heavy} outside live"
    assert not any(top for _, top in heavy), f"imports {heavy} at the top of the file"


def test_core_is_standard_library_only() -> None:
    import sys

    for path in FILES:
        if room_of(path) == "core":
            outside = {name for name, _ in imports_of(path) if name.split(".")[0] not in {*sys.stdlib_module_names, "llmdoctor"}}
            assert not outside, f"{path.name} imports {outside}"


def modules_of(path: Path, names: set[str]) -> set[str]:
    """The modules of this package that `path` imports, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in names else node.module)
    return found & names


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another in a circle (strongly connected components of more than one)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, edges: dict[str, set[str]], out: list[str]) -> None:
        stack = [(name, iter(sorted(edges[name])))]
        seen.add(name)
        while stack:
            top, rest = stack[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                out.append(top)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(edges[following]))))

    for name in graph:
        if name not in seen:
            visit(name, graph, order)
    back: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            back[target].add(name)
    seen.clear()
    groups = []
    for name in reversed(order):
        if name not in seen:
            group: list[str] = []
            visit(name, back, group)
            groups.append(sorted(group))
    return [group for group in groups if len(group) > 1]


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def test_no_module_imports_itself_in_a_circle() -> None:
    names = {module_name(path) for path in FILES}
    graph = {module_name(path): modules_of(path, names) - {module_name(path)} for path in FILES}
    assert cycles(graph) == []


def test_no_package_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    names = {module_name(path) for path in FILES}
    for path in FILES:
        room = room_of(path)
        if room:
            targets = {name.split(".")[1] for name in modules_of(path, names) if "." in name}
            graph.setdefault(room, set()).update(target for target in targets if (ROOT / target).is_dir() and target != room)
    assert cycles({room: {target for target in targets if target in graph} for room, targets in graph.items()}) == []


def test_the_search_for_cycles_can_fail() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
