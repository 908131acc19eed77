"""Make rows of stop ids by running the functions of engines that read them, cut out of their wheels; nothing of an engine is installed.

    pip download --no-deps -d WHEELS sglang mlx-lm, and sglang==0.4.2, 0.4.9, 0.4.9.post5, 0.4.10, 0.5.3
    python conformance/make_engine_rows.py WHEELS > tests/gencfg/engine_rows.jsonl

A row is {"engine", "version", "config", "generation", "ids"}: config.json's and generation_config.json's eos_token_id ("absent" if the
file has no such key), and the ids that the engine's own function makes of them. The tokenizer's eos_token is added by both engines
afterwards (sglang schedule_batch.py:1869, mlx_lm tokenizer_utils.py:360) and is not part of a row.
"""

from __future__ import annotations

import ast
import itertools
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmdoctor.core.release import release

VALUES = ("absent", None, 5, [5, 6], [], 7)


def function(wheel: Path, file: str, name: str, **names: Any) -> Callable[..., Any]:
    """Return a function of a file in a wheel, compiled alone; `names` are the globals that it uses."""
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read(file).decode())
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    found.decorator_list, found.returns = [], None
    for argument in (*found.args.args, *found.args.kwonlyargs):
        argument.annotation = None
    scope = dict(names)
    exec(compile(ast.Module([found], []), file, "exec"), scope)
    made: Callable[..., Any] = scope[name]
    return made


def sglang_ids(wheel: Path) -> Callable[[Any, Any], Any]:
    """Return what ModelConfig._get_hf_eos_token_id makes of the two values."""
    file = "sglang/srt/configs/model_config.py"
    with zipfile.ZipFile(wheel) as archive:
        name = "_get_hf_eos_token_id" if "def _get_hf_eos_token_id" in archive.read(file).decode() else "get_hf_eos_token_id"
    read = function(wheel, file, name, Optional=Optional, Set=set)

    def ids(config: Any, generation: Any) -> Any:
        holder = SimpleNamespace(
            hf_config=SimpleNamespace(**({} if config == "absent" else {"eos_token_id": config})),
            hf_generation_config=SimpleNamespace(**({} if generation == "absent" else {"eos_token_id": generation})),
        )
        return read(holder)

    return ids


def mlx_ids(wheel: Path) -> Callable[[Any, Any], Any]:
    """Return the eos_token_id that load_config makes of the two files."""
    read = function(wheel, "mlx_lm/utils.py", "load_config", json=json, _decode_tagged_floats=lambda value: value)

    def ids(config: Any, generation: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            for name, value in (("config.json", config), ("generation_config.json", generation)):
                (Path(folder) / name).write_text(json.dumps({} if value == "absent" else {"eos_token_id": value}))
            return read(Path(folder)).get("eos_token_id")

    return ids


ENGINES = {"sglang": ("sglang", sglang_ids), "mlx": ("mlx_lm", mlx_ids)}


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of every engine whose wheel is in `folder`."""
    for engine, (name, make) in ENGINES.items():
        for wheel in sorted(folder.glob(f"{name}-*.whl"), key=lambda path: release(path.name.split("-")[1])):
            ids = make(wheel)
            for config, generation in itertools.product(VALUES, VALUES):
                found = ids(config, generation)
                listed = sorted(found) if isinstance(found, set | list) else [] if found is None else [found]
                yield {"engine": engine, "version": wheel.name.split("-")[1], "config": config, "generation": generation, "ids": listed}


if __name__ == "__main__":
    for row in rows(Path(sys.argv[1])):
        print(json.dumps(row))
