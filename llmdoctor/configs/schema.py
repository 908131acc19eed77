"""Joins the settings that a framework declares (schemas/*.json, written by conformance/make_configs.py) with their meaning, written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from llmdoctor.configs.types import Ignored, Key, Meaning, Purpose, Refused, Uses

NO_TARGETS = Ignored("no influence on the training targets")
NOT_MODELLED = Refused("its influence on memory is not modelled")
OTHER_TARGETS = Refused("it changes what is trained and is not modelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meanings:
    """What the keys of a framework mean for memory and for labels.

    `uses` and `labels` map a key to a normalised setting; `ignored` and `refused` map a reason to the keys that it holds for, separated by blanks, a
    trailing `*` for all that begin so; `refused_if` maps a key to a Refused with harmless values of its own. `labels_refused` are the keys that change
    the training targets in a way that is not modelled (tests/labels/test_schema.py holds both against the trainers of labels/).
    """

    uses: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    refused_if: Mapping[str, Refused] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    labels_refused: str = ""

    def memory(self, name: str) -> Meaning | None:
        """Return what `name` means for memory; None if nothing is written about it."""
        if name in self.uses:
            return Uses(self.uses[name])
        if name in self.refused_if:
            return self.refused_if[name]
        for table, kind in ((self.refused, Refused), (self.ignored, Ignored)):
            for exact in (True, False):
                for reason, words in table.items():
                    if any(word == name if exact else word.endswith("*") and name.startswith(word[:-1]) for word in words.split()):
                        return kind(reason)
        return None


def meaning_of(name: str, tables: Iterable[Meanings]) -> dict[Purpose, Meaning]:
    """Return the meanings of a key by the first table that has one."""
    tables = tuple(tables)
    memory = next((found for table in tables if (found := table.memory(name)) is not None), NOT_MODELLED)
    used = next((Uses(table.labels[name]) for table in tables if name in table.labels), None)
    labels = used or (OTHER_TARGETS if any(name in table.labels_refused.split() for table in tables) else NO_TARGETS)
    return {"memory": memory, "labels": labels}


@cache
def declared(framework: str) -> dict[str, Any]:
    """Return the content of one schema file."""
    value: dict[str, Any] = json.loads((files("llmdoctor.configs") / "schemas" / f"{framework}.json").read_text(encoding="utf-8"))
    return value


def fields_of(framework: str, name: str) -> dict[str, tuple[str, Any]]:
    """Return {key: (type, default)} of a framework's class, the arguments of transformers included that it extends."""
    found = declared(framework)["classes"][name]
    out: dict[str, tuple[str, Any]] = {}
    if found["extends"] is not None:
        out.update(
            {key: (kind, default) for key, (kind, default) in declared("transformers")["classes"][found["extends"]]["fields"].items()}
        )
    out.update({key: (kind, default) for key, (kind, default) in found["fields"].items()})
    return out


def keys_of(
    framework: str, classes: Iterable[str], tables: Iterable[Meanings], prefix: str = "", aliases: Mapping[str, str] | None = None
) -> dict[str, Key]:
    """Return the keys of a framework's classes, each below `prefix`, with their meanings; `aliases` maps other names to keys."""
    tables = tuple(tables)
    others: dict[str, tuple[str, ...]] = {}
    for alias, key in (aliases or {}).items():
        others[key] = (*others.get(key, ()), prefix + alias)
    out: dict[str, Key] = {}
    for name in classes:
        for key, (kind, default) in fields_of(framework, name).items():
            plain = None if isinstance(default, dict) and "computed" in default else default
            out.setdefault(
                prefix + key,
                Key(name=prefix + key, type=kind, default=plain, meanings=meaning_of(key, tables), aliases=others.get(key, ())),
            )
    return out


def removed_keys(framework: str, tables: Iterable[Meanings]) -> dict[str, Key]:
    """Return the keys that an older release had, and the one described here rejects."""
    tables = tuple(tables)
    older: dict[str, str] = declared(framework)["older"]
    return {name: Key(name=name, meanings=meaning_of(name, tables), removed=f"{framework} {release}") for name, release in older.items()}


def literal_choices(kind: str) -> tuple[Any, ...]:
    """Return the values that an annotation admits, if it is made of literals and None only; empty for another."""
    found = re.fullmatch(r"(?:Optional\[)?Literal\[([^\[\]]*)\]\]?(?: \| None)?", kind)
    if found is None:
        return ()
    import ast

    values = ast.literal_eval(f"({found[1]},)")
    return (*values, None) if "None" in kind or kind.startswith("Optional") else tuple(values)
