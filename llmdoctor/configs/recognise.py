"""What a configuration is, by its keys: one function, so that `check`, `look` and `mem` cannot disagree about a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.configs.types import Format


def recognise(value: Any, *, stated: bool = False) -> Format | None:
    """Return the format that the content of a file has; None if it has none of the known ones.

    `stated`: the user has called it a training configuration, so that one key of TrainingArguments is enough.
    """
    from llmdoctor.configs.formats import FORMATS

    if not isinstance(value, Mapping):
        return None
    found = next((one for one in FORMATS if one.recognise(value)), None)
    if found is None and stated:
        from llmdoctor.configs import trainer

        return trainer.FORMAT if trainer.SIGNATURE & set(value) else None
    return found


def is_deepspeed(value: Any) -> bool:
    """Return whether `value` is a DeepSpeed configuration."""
    found = recognise(value)
    return found is not None and found.engine


def is_accelerate(value: Any) -> bool:
    """Return whether `value` is what `accelerate config` writes."""
    return name_of(value) == "accelerate"


def is_training(value: Any) -> bool:
    """Return whether `value` are training arguments: the Trainer's or of a framework that is built on it."""
    found = recognise(value)
    return found is not None and found.arguments


def name_of(value: Any) -> str | None:
    """Return the name of the format that `value` has; None if it has none of the known ones."""
    found = recognise(value)
    return None if found is None else found.name
