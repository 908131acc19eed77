"""Add releases of transformers to the table of model types, from the releases' own sources.

    python conformance/make_model_types.py [--wheels FOLDER] VERSION...

Each VERSION's wheel is downloaded (`pip download --no-deps`) unless it is in FOLDER, and CONFIG_MAPPING_NAMES is read from
models/auto/configuration_auto.py, or auto_mappings.py, by syntax tree; nothing is imported. The file
llmdoctor/gencfg/model_types.json holds, by model type, the first and the last of these releases that has it (null: all before, all after).
Releases newer than all in the file are added to it. To make it anew, name every release from its oldest to its newest: it holds what came and went
and not what each release has, so that fewer would lose some. Types that are gone are listed up to 4.57 only.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "llmdoctor" / "gencfg" / "model_types.json"
AUTO = "transformers/models/auto/"


def main() -> None:
    """Read the releases named on the command line, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--wheels", type=Path, help="keep the wheels here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(add(chosen.versions, chosen.wheels or Path(scratch)))


def add(versions: list[str], folder: Path) -> str:
    """Add releases to the table, or make it anew from all of them; return what it holds, in a sentence. Raises SystemExit if releases are missing."""
    held = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else None
    named = sorted(versions, key=minor)
    oldest, newest = (minor(held[end]) for end in ("oldest", "newest")) if held else ((99, 0), (0, 0))
    if held and minor(named[0]) > newest:
        for version in named:
            _append(held, minor(version), types_in(wheel(version, folder)))
    elif minor(named[0]) > oldest or minor(named[-1]) < newest:
        raise SystemExit(f"{OUT.name} holds {held['oldest']} to {held['newest']}: name later releases, or all of these; it is as it was")
    else:
        held = made([(minor(version), types_in(wheel(version, folder))) for version in named])
    unfinished = OUT.with_suffix(".new")
    unfinished.write_text(json.dumps(held, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(unfinished, OUT)
    came = len(held["types"])
    return f"{came} types came or went between {held['oldest']} and {held['newest']}, {len(held['always'])} were there throughout"


def _append(held: dict[str, Any], release: tuple[int, int], types: set[str]) -> None:
    """Put what a later release has for the first time into the table."""
    new = types - held["types"].keys() - set(held["always"])
    held["types"] = dict(sorted({**held["types"], **{name: ["{}.{}".format(*release), None] for name in new}}.items()))
    held["newest"] = "{}.{}".format(*release)


def made(releases: list[tuple[tuple[int, int], set[str]]]) -> dict[str, Any]:
    """Return the table of these releases, the oldest first."""
    table: dict[str, list[str | None]] = {}
    for name in sorted({name for _, types in releases for name in types}):
        having = [release for release, types in releases if name in types]
        first, last = (None if having[at] == releases[at][0] else "{}.{}".format(*having[at]) for at in (0, -1))
        if having[-1] >= (5, 0):
            last = None  # later releases register some types in other ways: absence from the mapping is no proof
        if first or last:
            table[name] = [first, last]
    oldest, newest = ("{}.{}".format(*releases[at][0]) for at in (0, -1))
    return {"oldest": oldest, "newest": newest, "types": table, "always": sorted(name for name in releases[-1][1] if name not in table)}


def minor(version: str) -> tuple[int, int]:
    """Return (major, minor)."""
    major, second = version.split(".")[:2]
    return int(major), int(second)


def wheel(version: str, folder: Path) -> Path:
    """Return the wheel of a release, downloaded if it is not in `folder`."""
    path = folder / f"transformers-{version}-py3-none-any.whl"
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), f"transformers=={version}"]
        subprocess.run(command, check=True)
    return path


def types_in(path: Path) -> set[str]:
    """Return the keys of CONFIG_MAPPING_NAMES."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        sources = [archive.read(AUTO + name).decode() for name in ("configuration_auto.py", "auto_mappings.py") if AUTO + name in names]
    found = {name for source in sources for name in _keys(ast.parse(source))}
    if len(found) < 100:
        raise SystemExit(f"{path.name}: CONFIG_MAPPING_NAMES was not found")
    return found


def _keys(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if not any(isinstance(target, ast.Name) and target.id == "CONFIG_MAPPING_NAMES" for target in targets):
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Tuple) and len(part.elts) == 2 and isinstance(part.elts[0], ast.Constant):
                yield str(part.elts[0].value)
            elif isinstance(part, ast.Dict):
                yield from (str(key.value) for key in part.keys if isinstance(key, ast.Constant))


if __name__ == "__main__":
    main()
