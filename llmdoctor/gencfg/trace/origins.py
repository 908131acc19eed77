"""Where each field of each live GenerationConfig came from, kept beside the objects, never on them."""

from __future__ import annotations

import os
import re
import weakref
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from llmdoctor.attach.records import plain
from llmdoctor.gencfg.trace.sites import Site

_MAX_FILE = 4 * 2**20
UNSEEN = "code that the recorder did not see"


@dataclass(frozen=True)
class Source:
    """Where one value came from: one of the contract's layers, and a place: a JSON file (its line is looked up when it is written), or a
    line of code; `words` where there is neither."""

    layer: str
    value: Any
    path: str | None = None
    site: Site | None = None
    words: str = "the config that the model was built with"

    def fields(self, name: str) -> dict[str, Any]:
        """The same as the contract's provenance object of the field `name`, without "overrides"."""
        if self.path is not None:
            line = key_line(self.path, name)
            text = os.path.basename(self.path) + ("" if line is None else f":{line}")
            return {"layer": self.layer, "source": text, "file": self.path, "pointer": f"/{name}", "line": line}
        if self.site is not None:
            return {"layer": self.layer, "source": self.site.source, "file": self.site.file, "pointer": None, "line": self.site.line}
        return {"layer": self.layer, "source": self.words, "file": None, "pointer": None, "line": None}


@dataclass(slots=True, eq=False)
class _Config:
    """What is known of one config: its fields' sources, the latest last, and whether its making was seen."""

    ref: weakref.ref[Any]
    fields: dict[str, list[Source]] = field(default_factory=dict)
    made: bool = False


class Origins:
    """Histories by object: {field: [sources, the latest last]}. An object that nothing is known of has an empty history."""

    def __init__(self) -> None:
        self._known: dict[int, _Config] = {}

    def _of(self, config: Any) -> _Config:
        known = self._known.get(id(config))
        if known is None or known.ref() is not config:
            key = id(config)
            known = _Config(weakref.ref(config, lambda _: self._known.pop(key, None)))
            self._known[key] = known
        return known

    def of(self, config: Any) -> dict[str, list[Source]]:
        """The history of `config`, to be read and added to."""
        return self._of(config).fields

    def made(self, config: Any) -> None:
        """`config` was made before our eyes: what its history does not have, nothing gave it."""
        self._of(config).made = True

    def knows(self, config: Any) -> bool:
        """Whether the making of `config` was seen."""
        return self._of(config).made

    def notice(self, config: Any, fields: dict[str, Any]) -> None:
        """Add to the histories what `config` holds now, in `fields`, and no recorded source gave it: a list changed in place, an assignment in
        __dict__."""
        for name in [name for name, sources in self.of(config).items() if sources[-1].value != fields.get(name)]:
            self.add(config, name, Source("mutation", fields.get(name), words=UNSEEN))

    def add(self, config: Any, name: str, source: Source) -> None:
        """A value was given to a field."""
        source = replace(source, value=plain(source.value))  # a list may be changed in place afterwards
        history = self.of(config).setdefault(name, [])
        history.append(source)
        del history[:-20]

    def copy(self, old: Any, new: Any) -> None:
        """`new` is a copy of `old` and has come the same way."""
        known = self._of(new)
        known.fields.update({name: list(sources) for name, sources in self.of(old).items()})
        known.made = self.knows(old)

    def latest(self, config: Any, name: str) -> Source | None:
        """The last source of a field; None where nothing ever set it."""
        history = self.of(config).get(name)
        return history[-1] if history else None


def passed(source: Source) -> Source:
    """A source as part of a GenerationConfig that is passed to generate(): its place stays, its layer is the user's."""
    return replace(source, layer="user-config")


_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}\[\]]')


@lru_cache(maxsize=4096)
def key_line(path: str, name: str) -> int | None:
    """The line, from 1, of the last key `name` of a JSON file's outermost object; None where there is none or the file cannot be read."""
    text, depth, found = _text(path), 0, None
    for match in _TOKEN.finditer(text):
        if match[1] is None:
            depth += 1 if match[0] in "{[" else -1
        elif depth == 1 and match[2] and match[1] == name:
            found = match.start()
    return None if found is None else text.count("\n", 0, found) + 1


@lru_cache(maxsize=64)
def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_FILE)
    except OSError:
        return ""
