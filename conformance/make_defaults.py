"""Add releases to llmdoctor/gencfg/library.json: GenerationConfig's fields, their defaults and cache names, by version.

    python conformance/make_defaults.py [--sources DIR] VERSION...

The wheel of each VERSION is fetched with pip into DIR (a temporary folder if it is not given), and its source is read; nothing is imported: the
values are those of `self.NAME = kwargs.pop("NAME", DEFAULT)` in GenerationConfig.__init__ and, for 5.x, of _get_default_generation_params(). What
the file holds of other versions stays: it is replaced at the end, in one piece. What differs from the release before is printed. Exit status 1 if a
version that was there before is read differently now.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "llmdoctor" / "gencfg" / "library.json"
FILE = "transformers/generation/configuration_utils.py"


@dataclass(frozen=True)
class Defaults:
    """What one release has: fields with their defaults, the defaults that generate() fills in, names of caches."""

    fields: dict[str, Any]
    late: dict[str, Any]
    caches: list[str]


def main() -> int:
    """Add the versions of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--sources", type=Path, help="where the wheels are kept")
    chosen = parser.parse_args()
    return int(bool(add(chosen.versions, chosen.sources)))


def add(versions: list[str], sources: Path | None = None) -> list[str]:
    """Add versions to the file, and return those that it held before and that are read differently now."""
    before = stored()
    with tempfile.TemporaryDirectory() as temporary:
        found = {version: Defaults(*read(ast.parse(source(version, sources or Path(temporary))))) for version in versions}
    releases = dict(sorted({**before, **found}.items(), key=lambda item: numbers(item[0])))
    write(releases)
    order = list(releases)
    for version, now in found.items():
        at = order.index(version)
        for line in changes(releases[order[at - 1]], releases[version]) if at else ():
            print(f"  {version}, against {order[at - 1]}: {line}")
        print(f"{version}: {len(now.fields)} fields", flush=True)
    changed = [version for version in found if version in before and before[version] != found[version]]
    if changed:
        print(f"CHANGED: {', '.join(changed)}")
    return changed


def numbers(version: str) -> list[int]:
    """Return the order of a version."""
    return [int(part) for part in version.split(".")]


def source(version: str, folder: Path) -> str:
    """Return the source of GenerationConfig in a release, whose wheel pip fetches if it is not in the folder."""
    wheel = folder / f"transformers-{version}-py3-none-any.whl"
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
        subprocess.run([*command, f"transformers=={version}"], check=True)
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(FILE).decode()


def stored() -> dict[str, Defaults]:
    """Return what the file holds, version by version."""
    if not OUT.exists():
        return {}
    data = json.loads(OUT.read_text(encoding="utf-8"))

    def at(history: dict[str, list[list[Any]]], version: str) -> dict[str, Any]:
        now = {}
        for name, entries in history.items():
            current = [entry for entry in entries if numbers(entry[0]) <= numbers(version)[:2]]
            if current and len(current[-1]) == 2:
                now[name] = current[-1][1]
        return now

    def caches(version: str) -> list[str]:
        names: list[str] = next(
            (value for since, value in reversed(data["cache_implementations"]) if numbers(since) <= numbers(version)[:2]), []
        )
        return names

    return {each: Defaults(at(data["fields"], each), at(data["late_defaults"], each), caches(each)) for each in data["versions"]}


def write(releases: dict[str, Defaults]) -> None:
    """Replace the file with the histories of all releases."""
    fields: dict[str, list[list[Any]]] = {}
    late: dict[str, list[list[Any]]] = {}
    caches: list[list[Any]] = []
    last = Defaults({}, {}, [])
    for version, now in releases.items():
        minor = ".".join(version.split(".")[:2])
        record(fields, last.fields, now.fields, minor)
        record(late, last.late, now.late, minor)
        if not caches or caches[-1][1] != now.caches:
            caches.append([minor, now.caches])
        last = now
    lines = [f'"fields": {table(fields)}', f'"late_defaults": {table(late)}', f'"cache_implementations": {json.dumps(caches)}']
    lines.insert(0, f'"versions": {json.dumps(list(releases))}')
    unfinished = OUT.with_suffix(".new")
    unfinished.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(unfinished, OUT)


def changes(before: Defaults, now: Defaults) -> list[str]:
    """Return what a release adds, removes and changes."""
    found = []
    for what, old, new in (("field", before.fields, now.fields), ("default", before.late, now.late)):
        found += [f"{what} {name} is new ({new[name]!r})" for name in new if name not in old]
        found += [f"{what} {name} is gone" for name in old if name not in new]
        found += [f"{what} {name} is {new[name]!r}, it was {old[name]!r}" for name in new if name in old and new[name] != old[name]]
    return [*found, *([f"cache_implementation: {now.caches}"] if before.caches != now.caches else [])]


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
    sys.exit(main())
