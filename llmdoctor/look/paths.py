"""Paths as words of the commands that `look` proposes."""

from __future__ import annotations

import os
import shlex

from llmdoctor.modeldir.directory import is_model_dir

_LEVELS = 3  # folders upwards in which the model of a file is looked for


def model_near(path: str) -> str:
    """Return the model directory that the file `path` most likely belongs to, quoted for a shell.

    That is its own folder or one of the two above it; the placeholder MODEL if none of them is a model directory.
    """
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(_LEVELS):
        if is_model_dir(folder):
            return quoted(os.path.relpath(folder))
        folder = os.path.dirname(folder)
    return "MODEL"


def quoted(path: str) -> str:
    """Return `path` as one word of a shell command."""
    name = os.path.normpath(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
