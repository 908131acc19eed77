"""Paths as words of the commands that `look` proposes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

from llmdoctor.modeldir.directory import is_model_dir
from llmdoctor.modeldir.hub import find_snapshot, looks_like_id

_LEVELS = 3  # folders upwards in which the model of a file is looked for
_MODEL_KEYS = ("model_name_or_path", "base_model", "model_id_or_path", "model")  # TRL and LLaMA-Factory, axolotl, ms-swift to 2 and from 3


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


def named_model(value: Any) -> str | None:
    """Return the model that a training configuration names; None if it names none."""
    names = (value.get(key) for key in _MODEL_KEYS) if isinstance(value, Mapping) else ()
    return next((name for name in names if isinstance(name, str) and name), None)


def model_on_this_machine(name: str, beside: str) -> str | None:
    """Return the model `name` as a word of a command: a directory from here or from the file `beside`, or a hub id in the local cache."""
    for path in (name, os.path.join(os.path.dirname(beside), name)):
        if is_model_dir(path):
            return quoted(path)
    return quoted(name) if looks_like_id(name) and find_snapshot(name) is not None else None


def quoted(path: str) -> str:
    """Return `path` as one word of a shell command."""
    name = os.path.normpath(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
