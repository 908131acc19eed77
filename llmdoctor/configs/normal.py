"""Normalised settings with their provenance: which key set each, and which consumers have taken."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.configs.fields import FIELDS
from llmdoctor.core.errors import QuestionError

DTYPES = {
    **dict.fromkeys(("float32", "fp32", "float", "torch.float32"), "float32"),
    **dict.fromkeys(("bfloat16", "bf16", "torch.bfloat16"), "bfloat16"),
    **dict.fromkeys(("float16", "fp16", "half", "torch.float16"), "float16"),
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "none", "")


@dataclass(slots=True)
class Normal:
    """The normalised settings of one file (configs/fields.py lists them).

    `values` has those that the file or the framework sets; `keys` the key of the file that set each, absent for a framework's default; `path` is the
    file, for messages. While a format's `settle` runs, the settings can be changed; a consumer only reads.
    """

    path: str
    variant: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    assumed: dict[str, Any] = field(default_factory=dict)  # what a format's settle could not read and takes for granted: {what: value}
    limits: list[str] = field(default_factory=list)  # clauses that the verdict of an answer repeats, because they could turn it

    def get(self, name: str, default: Any = None) -> Any:
        """Return the setting `name`, or `default` if neither the file nor the framework sets it; KeyError for a name that is not in FIELDS."""
        FIELDS[name]
        value = self.values.get(name)
        return default if value is None else value

    def key(self, name: str) -> str | None:
        """Return the key of the file that sets `name`; None for a framework's default."""
        return self.keys.get(name)

    def put(self, name: str, value: Any, key: str | None = None) -> None:
        """Set `name`, as the file's `key` does or, without a key, as the framework does."""
        self.values[name] = converted(value, name, f"{self.path}: {key or name}")
        if key is not None:
            self.keys[name] = key

    def drop(self, name: str) -> None:
        """Remove a setting that has no effect beside the others."""
        self.values.pop(name, None)
        self.keys.pop(name, None)

    def is_neutral(self, name: str) -> bool:
        """Return whether `name` has a value with which it changes nothing, or none."""
        value = self.values.get(name)
        return any(value is one or (type(value) is type(one) and value == one) for one in FIELDS[name].neutral)


def converted(value: Any, name: str, where: str) -> Any:
    """Return `value` as the kind that the setting `name` has; QuestionError, one sentence, if it is of another."""
    kind = FIELDS[name].kind
    if value is None or kind == "any":
        return value
    if kind in ("count", "size"):
        return count(value, where, 1 if kind == "count" else 0)
    if kind == "number":
        return number(value, where)
    if kind == "flag":
        return flag(value, where)
    if kind == "dtype":
        return dtype(value, where)
    if kind == "names":
        return names(value, where)
    if kind == "object" and not isinstance(value, Mapping):
        raise QuestionError(f"{where}: expected an object, found {shorter(value)}")
    if kind == "text" and not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def count(value: Any, where: str, least: int = 1) -> int:
    """Return a whole number of at least `least`, also written 5e8."""
    found = value
    if isinstance(found, str) and re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9]+)?", found):
        found = float(found) if not found.isdecimal() else int(found)  # YAML reads 5e8 as text
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found < 2**63:
        raise QuestionError(f"{where}: expected a whole number of at least {least}, found {shorter(value)}")
    return found


def number(value: Any, where: str) -> float:
    """Return a finite number, also written as text (YAML reads 1e-5 as text)."""
    found = value
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            found = None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found) or abs(found) >= 2**63:
        raise QuestionError(f"{where}: expected a number, found {shorter(value)}")
    return float(found)


def flag(value: Any, where: str) -> bool:
    """Return a boolean, also written as text or as 0 and 1."""
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise QuestionError(f"{where}: expected true or false, found {shorter(value)}")


def dtype(value: Any, where: str) -> str:
    """Return float32, bfloat16 or float16 for any usual name of them."""
    if str(value) not in DTYPES:
        raise QuestionError(f"{where}: unknown dtype {shorter(value)}, expected float32, bfloat16 or float16")
    return DTYPES[str(value)]


def names(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of names, also written as one text with commas."""
    found = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise QuestionError(f"{where}: expected a list of names, found {shorter(value)}")
    return tuple(name for name in found if name)


def shorter(value: Any) -> str:
    """Return `value` as a message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else text[:36] + " ..."
