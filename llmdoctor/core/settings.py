"""`[tool.llmdoctor]` of a repository's pyproject.toml: what a team has agreed on, so that nobody types it."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import size_of

_LISTS = ("select", "ignore", "exclude")
_TEXTS = ("fail-on", "baseline", "transformers", "gpu-memory")
FAIL_ON = ("error", "warning", "info", "never")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings and where they are from: `source` is the pyproject.toml, None without one; paths in it are relative to its folder `root`.

    `select` and `ignore` are prefixes of rule codes, `exclude` patterns as in a .gitignore, `per_path` pairs of a glob and the prefixes that
    are ignored for the files it matches. `gpu_memory` is a device's, in bytes ("gpu-memory": "24GiB" in the file).
    """

    source: str | None = None
    root: str = "."
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fail_on: str | None = None
    baseline: str | None = None
    transformers: str | None = None
    gpu_memory: int | None = None
    per_path: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def wants(self, code: str, file: str | None) -> bool:
        """Whether a finding of rule `code` in `file` is to be told."""
        if self.select and not code.startswith(self.select):
            return False
        if self.ignore and code.startswith(self.ignore):
            return False
        return not any(code.startswith(codes) for glob, codes in self.per_path.items() if file is not None and self._matches(file, glob))

    def _matches(self, file: str, glob: str) -> bool:
        relative = os.path.relpath(file, self.root)
        return fnmatch.fnmatch(relative, glob) or fnmatch.fnmatch(relative, f"{glob.rstrip('/')}/*")


def settings_of(table: Mapping[str, Any], source: str, root: str) -> Settings:
    """Return the settings in the table [tool.llmdoctor] of the file `source`. Raises QuestionError for a key or a type that is not known."""
    where = f"{source}: [tool.llmdoctor]"
    known = {*_LISTS, *_TEXTS, "per-path-ignores"}
    for name in table:
        if name not in known:
            raise QuestionError(f"{where} has {name!r}, expected one of {', '.join(sorted(known))}")
    lists = {name: _texts(table.get(name, []), f"{where} {name}") for name in _LISTS}
    for name in _TEXTS:
        if name in table and not isinstance(table[name], str):
            raise QuestionError(f"{where} {name} is {table[name]!r}, expected a text")
    memory = table.get("gpu-memory")
    if memory is not None and size_of(memory) is None:
        raise QuestionError(f"{where} gpu-memory is {memory!r}, expected a size such as 24GiB")
    if table.get("fail-on") not in (None, *FAIL_ON):
        raise QuestionError(f"{where} fail-on is {table['fail-on']!r}, expected one of {', '.join(FAIL_ON)}")
    ignores = table.get("per-path-ignores", {})
    if not isinstance(ignores, dict):
        raise QuestionError(f"{where} per-path-ignores is {ignores!r}, expected a table of globs")
    return Settings(
        source=source,
        root=root,
        fail_on=table.get("fail-on"),
        baseline=table.get("baseline"),
        transformers=table.get("transformers"),
        gpu_memory=None if memory is None else size_of(memory),
        per_path={glob: _texts(codes, f"{where} per-path-ignores.{glob}") for glob, codes in ignores.items()},
        **lists,
    )


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise QuestionError(f"{where} is {value!r}, expected a list of texts")
    return tuple(value)
