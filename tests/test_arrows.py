"""The arrows of the design: cli -> jobs, report -> attach, modeldir -> core; heavy imports only in `live`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "llmdoctor"
JOBS = {"gencfg", "mask", "mem", "sample", "callsites"}
ALLOWED: dict[str, set[str]] = {
    "cli": {*JOBS, "report", "attach", "modeldir", "core", "cli"},
    "report": {"attach", "modeldir", "core", "report"},
    "attach": {"core", "attach"},
    "modeldir": {"core", "modeldir"},
    "core": {"core"},
    "schema": set(),
    **{job: {job, "attach", "modeldir", "core"} for job in JOBS},
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
        assert not (ROOT / target).is_dir() or target in ALLOWED[room], f"{room} imports {name}"


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
