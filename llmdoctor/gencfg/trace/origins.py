"""Where each field of each live GenerationConfig came from, kept beside the objects, never on them."""

from __future__ import annotations

import os
import re
import weakref
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llmdoctor.gencfg.trace.sites import Site

_MAX_FILE = 4 * 2**20


@dataclass(frozen=True)
class Source:
    """Where one value came from: one of the contract's layers, and a place: a JSON file (its line is looked up when it is written), or a
    line of code."""

    layer: str
    value: Any
    path: str | None = None
    site: Site | None = None

    def fields(self, name: str) -> dict[str, Any]:
        """The same as the contract's provenance object of the field `name`, without "overrides"."""
        if self.path is not None:
            line = key_line(self.path, name)
            text = os.path.basename(self.path) + ("" if line is None else f":{line}")
            return {"layer": self.layer, "source": text, "file": self.path, "pointer": f"/{name}", "line": line}
        if self.site is not None:
            return {"layer": self.layer, "source": self.site.source, "file": self.site.file, "pointer": None, "line": self.site.line}
        return {"layer": self.layer, "source": "the library", "file": None, "pointer": None, "line": None}


class Origins:
    """Histories by object: {field: [sources, the latest last]}. An object that nothing is known of has an empty history."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], dict[str, list[Source]]]] = {}

    def of(self, config: Any) -> dict[str, list[Source]]:
        """The history of `config`, to be read and added to."""
        known = self._known.get(id(config))
        if known is None or known[0]() is not config:
            key = id(config)
            known = (weakref.ref(config, lambda _: self._known.pop(key, None)), {})
            self._known[key] = known
        return known[1]

    def add(self, config: Any, name: str, source: Source) -> None:
        """A value was given to a field."""
        history = self.of(config).setdefault(name, [])
        history.append(source)
        del history[:-20]

    def copy(self, old: Any, new: Any) -> None:
        """`new` is a copy of `old` and has come the same way."""
        self.of(new).update({name: list(sources) for name, sources in self.of(old).items()})

    def latest(self, config: Any, name: str) -> Source | None:
        """The last source of a field; None where nothing ever set it."""
        history = self.of(config).get(name)
        return history[-1] if history else None


def passed(source: Source) -> Source:
    """A source as part of a GenerationConfig that is passed to generate(): its place stays, its layer is the user's."""
    return replace(source, layer="user-config")


@lru_cache(maxsize=4096)
def key_line(path: str, name: str) -> int | None:
    """The line, from 1, of the last top-level-looking key `name` in a JSON file; None where there is none or the file cannot be read."""
    text = _text(path)
    found = [match.end() for match in re.finditer(r'(?m)^\s*\{?\s*"' + re.escape(name) + r'"\s*:', text)]
    return text.count("\n", 0, found[-1]) + 1 if found else None


@lru_cache(maxsize=64)
def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_FILE)
    except OSError:
        return ""
