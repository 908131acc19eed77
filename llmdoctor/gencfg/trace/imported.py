"""Did importing a package change how generate() decodes? The defaults and the functions that decide it, before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from llmdoctor.attach.records import plain
from llmdoctor.attach.session import Session
from llmdoctor.gencfg.trace.sites import Site, caller, is_installed, package_of, version_of

# The classes whose functions and defaults make a generate(), by the module that defines them.
CLASSES = {
    "transformers.generation.configuration_utils": "GenerationConfig",
    "transformers.generation.utils": "GenerationMixin",
    "transformers.modeling_utils": "PreTrainedModel",
}
_LIBRARY = frozenset({"transformers", "torch"})
Observed = dict[str, tuple[Any, Any]]


@dataclass(slots=True, eq=False)
class Open:
    """An import that is going on, and what has changed in it so far, by name: (before, after)."""

    package: str
    site: Site
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)


class Imported:
    """Compares around each top-level package; a change is attributed to the innermost package in whose import it happened.

    A package that is imported before transformers' generation is judged once that has been loaded: it has changed what is then a function
    of its own. transformers and torch, whose decorators it uses, are no change of it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._classes: dict[str, type[Any]] = {}
        self._seen: Observed = {}
        self._open: list[Open] = []
        self._early: list[Open] = []
        for module, name in CLASSES.items():
            session.hook.after(module, lambda module, name=name: self._arrived(module, name))  # type: ignore[misc]
        session.hook.around(self._begin)

    def _arrived(self, module: ModuleType, name: str) -> None:
        """One of the classes has come in, and carries the recorder's own patches already."""
        self._classes[name] = getattr(module, name)
        self._seen |= observe(name, self._classes[name])
        if name == "GenerationMixin":  # its module imports GenerationConfig's
            for early in self._early:
                self._write(early, {what: (None, value) for what, (_, value) in self._seen.items() if _made_by(value, early.package)})
            self._early.clear()

    def _begin(self, package: str) -> Callable[[], None]:
        """The import hook's listener."""
        if package in _LIBRARY:
            return lambda: None
        site, _ = caller(lambda _, found: found == "importlib")
        self._settle()
        opened = Open(package, site)
        self._open.append(opened)
        return lambda: self._end(opened)

    def look(self) -> None:
        """A generate() begins: has anything been replaced since the last look?"""
        now = {f"{name}.{attribute}": id(target) for name, kind in self._classes.items() for attribute, target in functions(kind)}
        if any(what in self._seen and self._seen[what][0] != identity for what, identity in now.items()):
            self._settle()

    def _settle(self) -> None:
        """What has changed since the last look belongs to the innermost import that is going on; outside of all, to whoever wrote it."""
        now: Observed = {}
        for name, kind in self._classes.items():
            now |= observe(name, kind)
        both = now.keys() & self._seen.keys()
        changed = {what: (self._seen[what][1], now[what][1]) for what in sorted(both) if self._seen[what] != now[what]}
        self._seen = now
        changed = {what: (before, after) for what, (before, after) in changed.items() if before != after}
        if self._open:
            self._open[-1].changed |= changed
            return
        for what, (before, after) in changed.items():
            file, _, line = after.rpartition(":") if isinstance(after, str) else ("", "", "")
            if line.isdigit():  # a function; a default that it changes goes with it
                package = package_of(file) or os.path.basename(file)
                self._write(Open(package, Site(file, int(line), what, package, version_of(package))), {what: (before, after)}, late=True)

    def _end(self, opened: Open) -> None:
        self._settle()
        self._open.remove(opened)
        if opened.changed or not is_installed(opened.site.file):
            if self._seen:
                self._write(opened, opened.changed)
            else:
                self._early.append(opened)

    def _write(self, opened: Open, changed: dict[str, tuple[Any, Any]], late: bool = False) -> None:
        where = {**opened.site.fields(), "package": opened.package, "version": version_of(opened.package), "source": opened.site.source}
        listed = [{"what": what, "before": before, "after": after} for what, (before, after) in changed.items()]
        self._session.write("import", **where, observed=len(self._seen), changed=listed, late=late)


def observe(name: str, kind: type[Any]) -> Observed:
    """Every function of a class, and every default of GenerationConfig: by name, an identity to compare and a value to show."""
    seen: Observed = {f"{name}.{attribute}": (id(target), _where(target)) for attribute, target in functions(kind)}
    if name == "GenerationConfig":
        seen |= {f"GenerationConfig().{field}": (text := plain(value), text) for field, value in kind().__dict__.items()}
    return seen


def functions(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """The functions that a class itself defines, methods of the class unwrapped."""
    for attribute, value in vars(kind).items():
        target = getattr(value, "__func__", value)
        if callable(target):
            yield attribute, target


def _where(function: Any) -> str:
    """Where a function is written; a wrapper counts as its own, unless it is the recorder's."""
    while package_of(getattr(getattr(function, "__code__", None), "co_filename", "")) == "llmdoctor":
        function = getattr(function, "__wrapped__", None)
    code = getattr(function, "__code__", None)
    return repr(function)[:80] if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _made_by(value: Any, package: str) -> bool:
    file, _, line = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return line.isdigit() and package_of(file) == package
