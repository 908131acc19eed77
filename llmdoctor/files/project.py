"""`[tool.llmdoctor]` of a repository's pyproject.toml: the settings that a team shares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.selection import Selection
from llmdoctor.core.text import size_of
from llmdoctor.files.gitignore import Patterns
from llmdoctor.files.mapping import read_settings_file

_LISTS = ("select", "ignore", "exclude")
_TEXTS = ("fail-on", "baseline", "transformers", "gpu-memory")
FAIL_ON = ("error", "warning", "info", "never")


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """The settings and their origin: `source` is the pyproject.toml, None without one; paths are relative to its folder `root`.

    `select` and `ignore` are prefixes of rule codes. `exclude` and the keys of `per_path` are patterns as in a .gitignore in `root`;
    `per_path` maps a pattern to the prefixes that are ignored in the files that it matches. `gpu_memory` is the memory of one device, in
    bytes ("gpu-memory" = "24GiB" in the file).
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
        """Return whether a finding of the rule `code` in `file` is reported."""
        if not Selection(select=self.select, ignore=self.ignore).wants(code):
            return False
        return not any(
            code.startswith(codes) for pattern, codes in self.per_path.items() if file is not None and self._match((pattern,), file)
        )

    def excludes(self, path: str) -> bool:
        """Return whether `exclude` leaves out the file `path` or a folder that it is in."""
        return self._match(self.exclude, path)

    def _match(self, patterns: tuple[str, ...], path: str) -> bool:
        relative = os.path.relpath(path, self.root)
        return relative.split(os.sep)[0] != ".." and Patterns(patterns).match(relative.replace(os.sep, "/"))


def load_settings(start: str) -> ProjectSettings:
    """Return the settings of the nearest pyproject.toml with a [tool.llmdoctor] table, from the folder `start` upwards to the repository's root.

    Without one the defaults are returned. Raises QuestionError if a file on the way cannot be read, or has a key or a type that is not known.
    """
    folder = os.path.abspath(start)
    while True:
        path = os.path.join(folder, "pyproject.toml")
        table = _table(path) if os.path.lexists(path) else None
        if table is not None:
            return _settings_of(table, os.path.relpath(path), os.path.relpath(folder))
        parent = os.path.dirname(folder)
        if parent == folder or os.path.exists(os.path.join(folder, ".git")):
            return ProjectSettings()
        folder = parent


def _table(path: str) -> dict[str, Any] | None:
    name = os.path.relpath(path)
    file = read_settings_file(path)
    if file is None:
        return None
    if file.problems:
        reason = file.problems[0].message.replace(file.shown_name, name, 1)
        raise QuestionError(reason if name in reason else f"{name}: {reason}")
    tool = file.value.get("tool")
    table = tool.get("llmdoctor") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise QuestionError(f"{name}: tool.llmdoctor is not a table")
    return table


def _settings_of(table: Mapping[str, Any], source: str, root: str) -> ProjectSettings:
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
        raise QuestionError(f"{where} per-path-ignores is {ignores!r}, expected a table of patterns")
    return ProjectSettings(
        source=source,
        root=root,
        fail_on=table.get("fail-on"),
        baseline=table.get("baseline"),
        transformers=table.get("transformers"),
        gpu_memory=None if memory is None else size_of(memory),
        per_path={pattern: _texts(codes, f"{where} per-path-ignores.{pattern}") for pattern, codes in ignores.items()},
        **lists,
    )


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise QuestionError(f"{where} is {value!r}, expected a list of texts")
    return tuple(value)
