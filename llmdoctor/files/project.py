"""Finds the pyproject.toml of a repository and reads its [tool.llmdoctor]."""

from __future__ import annotations

import os
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.settings import Settings, settings_of
from llmdoctor.files.mapping import read_settings_file


def load_settings(start: str) -> Settings:
    """Return the settings of the nearest pyproject.toml with a [tool.llmdoctor] table, from the folder `start` upwards to the repository's root.

    Without one the defaults are returned. Raises QuestionError if a file on the way cannot be read, or has a key or a type that is not known.
    """
    folder = os.path.abspath(start)
    while True:
        path = os.path.join(folder, "pyproject.toml")
        table = _table(path) if os.path.lexists(path) else None
        if table is not None:
            return settings_of(table, os.path.relpath(path), os.path.relpath(folder))
        parent = os.path.dirname(folder)
        if parent == folder or os.path.exists(os.path.join(folder, ".git")):
            return Settings()
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
