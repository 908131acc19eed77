"""Write llmdoctor/configs/schemas/deepspeed_releases.json: which release of DeepSpeed has which setting, and what it does by default.

    python conformance/make_deepspeed_releases.py [--sources DIR] [RELEASE ...]

Each RELEASE (by default every one that is written already) is fetched from the package index as a source distribution, unpacked below DIR (a
temporary folder if it is not given) and read by syntax tree: nothing of it is imported. The file is replaced only if every release could be read,
and no release that it holds is dropped. Exit status 1 if an entry of a release that was written before has changed.

`deepspeed_check.py` holds the table against the DeepSpeedConfig of each release, run.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.core.release import release as numbers

OUT = Path(__file__).resolve().parent.parent / "llmdoctor" / "configs" / "schemas" / "deepspeed_releases.json"
MODELS = {
    "zero_optimization": ("runtime/zero/config.py", "DeepSpeedZeroConfig"),
    "zero_optimization.offload_param": ("runtime/zero/offload_config.py", "DeepSpeedZeroOffloadParamConfig"),
    "zero_optimization.offload_optimizer": ("runtime/zero/offload_config.py", "DeepSpeedZeroOffloadOptimizerConfig"),
    "bf16": ("runtime/precision_config.py", "DeepSpeedBF16Config"),
    "fp16": ("runtime/precision_config.py", "DeepSpeedFP16Config"),
}
CONSTANTS = {
    "gradient_clipping": "GRADIENT_CLIPPING_DEFAULT",
    "bf16.immediate_grad_update": "BFLOAT16_IMMEDIATE_GRAD_UPDATE_DEFAULT",
}
DEFAULTS = ("bf16.check_grad_overflow", "zero_optimization.offload_optimizer.pin_memory", "zero_optimization.offload_param.pin_memory")


def main() -> int:
    """Write the table for the releases of the command line and those that it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="RELEASE")
    parser.add_argument("--sources", type=Path, help="where the sources are kept")
    chosen = parser.parse_args()
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"releases": []}
    releases = sorted({*before["releases"], *chosen.releases}, key=numbers)
    with tempfile.TemporaryDirectory() as temporary:
        sources = chosen.sources or Path(temporary)
        facts = {each: read(source(each, sources)) for each in releases}
    table = {"releases": releases, **histories(facts)}
    text = json.dumps(table, separators=(",", ":")).replace('],"', '],\n"').replace('},"', '},\n"') + "\n"
    unfinished = OUT.with_suffix(".new")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, OUT)
    changed = [each for each in before["releases"] if at(before, each) != at(table, each)]
    print(f"{OUT}: {len(releases)} releases, {releases[0]} to {releases[-1]}" + (f"; CHANGED: {', '.join(changed)}" if changed else ""))
    return int(bool(changed))


def source(release: str, sources: Path) -> Path:
    """Return the folder of the package of a release, fetched if it is not there."""
    folder = sources / f"deepspeed-{release}"
    if not (folder / "deepspeed").is_dir():
        archive = sources / f"deepspeed-{release}.tar.gz"
        if not archive.exists():
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", "deepspeed"]
            subprocess.run([*command, "-d", str(sources), f"deepspeed=={release}"], check=True, env={**os.environ, "DS_BUILD_OPS": "0"})
        with tarfile.open(archive) as packed:
            packed.extractall(sources, filter="data")
    return folder / "deepspeed"


def read(package: Path) -> dict[str, Any]:
    """Return what one release has: {"sections", "removed", "removed_zero", "names", "defaults"}."""
    sections = {place: dict(fields(package / file, name)) for place, (file, name) in MODELS.items()}
    config = (package / "runtime/config.py").read_text(encoding="utf-8")
    constants = (package / "runtime/constants.py").read_text(encoding="utf-8")
    defaults: dict[str, Any] = {key: constant(constants, name) for key, name in CONSTANTS.items()}
    for place in ("bf16.immediate_grad_update", *DEFAULTS):
        section, _, name = place.rpartition(".")
        if name in sections[section]:
            defaults[place] = sections[section][name]
    return {
        "sections": {place: sorted(found) for place, found in sections.items() if found},
        "removed": sorted(keys_of(config, "_REMOVED_TOP_LEVEL_CONFIG_KEYS")),
        "removed_zero": sorted(keys_of(config, "_REMOVED_ZERO_CONFIG_KEYS")),
        "names": sorted(names_in(package)),
        "defaults": defaults,
    }


def fields(file: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a pydantic model, and their aliases, with their defaults; nothing if the release has no such model."""
    if not file.exists():
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    model = next((node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name), None)
    for node in model.body if model else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            call = node.value if isinstance(node.value, ast.Call) else None
            alias = next((word.value for word in call.keywords if word.arg == "alias"), None) if call else None
            value = literal(call.args[0] if call and call.args else node.value)
            yield node.target.id, value
            if isinstance(alias, ast.Constant):
                yield str(alias.value), value


def literal(node: ast.expr | None) -> Any:
    """Return the value of a literal; None for anything else."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def constant(text: str, name: str) -> Any:
    """Return the value of `NAME = LITERAL` in a module."""
    found = re.search(rf"^{name} = (\S+)", text, re.MULTILINE)
    return ast.literal_eval(found[1]) if found else None


def keys_of(text: str, name: str) -> list[str]:
    """Return the keys of a dictionary that a module assigns to `name`."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Dict):
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def names_in(package: Path) -> set[str]:
    """Return the known top-level keys that occur as a text anywhere in the package."""
    wanted = {*schema.TOP, *schema.REMOVED}
    literals: set[str] = set()
    for path in package.rglob("*.py"):
        literals |= set(re.findall(r"[\"']([a-z0-9_]+)[\"']", path.read_text(encoding="utf-8", errors="replace")))
    return wanted & literals


def histories(facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the facts by what changes: [[first, last]] spans of releases for a name, [[first, value]] for a default."""
    releases = list(facts)
    sections = {
        place: {
            name: spans(releases, [name in fact["sections"].get(place, ()) for fact in facts.values()])
            for name in sorted({name for fact in facts.values() for name in fact["sections"].get(place, ())})
        }
        for place in MODELS
    }
    out: dict[str, Any] = {"sections": sections}
    out["models"] = {place: spans(releases, [place in fact["sections"] for fact in facts.values()]) for place in MODELS}
    for group in ("removed", "removed_zero", "names"):
        every = sorted({name for fact in facts.values() for name in fact[group]})
        out[group] = {name: spans(releases, [name in fact[group] for fact in facts.values()]) for name in every}
    out["defaults"] = {}
    for place in facts[releases[-1]]["defaults"]:
        changes: list[list[Any]] = []
        for release, fact in facts.items():
            value = fact["defaults"].get(place)
            if not changes or changes[-1][1] != value:
                changes.append([release, value])
        out["defaults"][place] = changes
    return out


def spans(releases: Sequence[str], present: Sequence[bool]) -> list[list[str]]:
    """Return the first and the last release of each run of releases that have something."""
    out: list[list[str]] = []
    for release, has, before in zip(releases, present, (False, *present), strict=False):
        if has and not before:
            out.append([release, release])
        elif has:
            out[-1][1] = release
    return out


def at(table: dict[str, Any], release: str) -> Any:
    """Return everything that a table has about one release."""

    def has(found: list[list[str]]) -> bool:
        return any(numbers(first) <= numbers(release) <= numbers(last) for first, last in found)

    groups = {**table.get("sections", {}), **{name: table.get(name, {}) for name in ("models", "removed", "removed_zero", "names")}}
    values = {
        place: [value for first, value in changes if numbers(first) <= numbers(release)][-1:]
        for place, changes in table.get("defaults", {}).items()
    }
    return {group: sorted(name for name, found in entries.items() if has(found)) for group, entries in groups.items()}, values


if __name__ == "__main__":
    sys.exit(main())
