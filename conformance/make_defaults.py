"""Write llmdoctor/gencfg/library.json: GenerationConfig's fields, their defaults and cache names, by version.

    python conformance/make_defaults.py SOURCES

SOURCES holds one unpacked transformers a version: SOURCES/4.57.6/transformers/generation/... Nothing is imported: the values are read from
`self.NAME = kwargs.pop("NAME", DEFAULT)` in GenerationConfig.__init__ and, for 5.x, from _get_default_generation_params().
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "llmdoctor" / "gencfg" / "library.json"


def main() -> None:
    sources = Path(sys.argv[1])
    versions = sorted((path.name for path in sources.iterdir()), key=lambda text: [int(part) for part in text.split(".")])
    fields: dict[str, list[list[Any]]] = {}
    late: dict[str, list[list[Any]]] = {}
    caches: list[list[Any]] = []
    last: dict[str, Any] = {}
    last_late: dict[str, Any] = {}
    for version in versions:
        minor = ".".join(version.split(".")[:2])
        module = ast.parse((sources / version / "transformers/generation/configuration_utils.py").read_text())
        now, now_late, names = read(module)
        record(fields, last, now, minor)
        record(late, last_late, now_late, minor)
        if not caches or caches[-1][1] != names:
            caches.append([minor, names])
        last, last_late = now, now_late
    lines = [f'"fields": {table(fields)}', f'"late_defaults": {table(late)}', f'"cache_implementations": {json.dumps(caches)}']
    lines.insert(0, f'"versions": {json.dumps(versions)}')
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def table(entries: dict[str, list[list[Any]]]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items()) + "\n}"


def record(history: dict[str, list[list[Any]]], before: dict[str, Any], now: dict[str, Any], minor: str) -> None:
    """[minor, default] where a field appears or changes, [minor] where it goes."""
    for name, value in now.items():
        if name not in before or before[name] != value:
            history.setdefault(name, []).append([minor, value])
    for name in before:
        if name not in now:
            history[name].append([minor])


def read(module: ast.Module) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    fields: dict[str, Any] = {}
    late: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for node in flat(module.body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                constants[node.targets[0].id] = evaluate(node.value, constants)
            except ValueError:
                continue
        if isinstance(node, ast.ClassDef) and node.name == "GenerationConfig":
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                    fields = dict(pops(function))
                elif isinstance(function, ast.FunctionDef) and function.name == "_get_default_generation_params":
                    late = next(
                        ast.literal_eval(inner.value) for inner in ast.walk(function) if isinstance(inner, ast.Return) and inner.value
                    )
    names = list(constants.get("ALL_CACHE_IMPLEMENTATIONS", []))
    if names and "quantized" not in names:
        names.append("quantized")  # put into NEEDS_CACHE_CONFIG by an assignment of its own
    return fields, late, names


def pops(function: ast.FunctionDef) -> list[tuple[str, Any]]:
    found = []
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and getattr(node.targets[0], "attr", "_") == "is_assistant"
        ):
            found.append((node.lineno, "is_assistant", node.value.value))  # set, and not an argument, in 4.x
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        call, name = node.value, getattr(node.targets[0], "attr", getattr(node.targets[0], "id", "_"))
        if ast.unparse(call.func) == "kwargs.pop" and not name.startswith("_") and name != "transformers_version":
            try:
                default = ast.literal_eval(call.args[1])
            except ValueError:
                default = None
            found.append((node.lineno, name, default))
    return [(name, default) for _, name, default in sorted(found)]


def evaluate(node: ast.expr, constants: dict[str, Any]) -> Any:
    """A constant built from literals, earlier constants, + and tuple/list calls."""
    if isinstance(node, ast.Name):
        if node.id not in constants:
            raise ValueError(node.id)
        return constants[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = evaluate(node.left, constants), evaluate(node.right, constants)
        return list(left) + list(right)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple") and node.args:
        return list(evaluate(node.args[0], constants))
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".keys"):
        return list(evaluate(node.func.value, constants))  # type: ignore[attr-defined]
    if isinstance(node, ast.Dict):
        return [ast.literal_eval(key) for key in node.keys if key is not None]
    return ast.literal_eval(node)


def flat(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements with those under `if is_torch_available():` in their place."""
    out: list[ast.stmt] = []
    for node in body:
        out += flat(node.body) if isinstance(node, ast.If) else [node]
    return out


if __name__ == "__main__":
    main()
