"""Walks a repository: what git would not ignore, never out of it, bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmdoctor.core.report import Skipped
from llmdoctor.files.gitignore import Patterns
from llmdoctor.files.opening import read_bytes

MAX_ENTRIES, MAX_DEPTH, MAX_IGNORE = 1_000_000, 64, 2**20
_NEVER = frozenset(
    {".git", ".hg", ".svn", "__pycache__", "node_modules", ".venv", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Folder:
    """A folder and the names of the regular files in it, sorted; `path` as the user would type it."""

    path: str
    files: tuple[str, ...]


@dataclass(slots=True)
class Walk:
    """One walk from `root`. After folders() has ended, `skipped` lists what was not looked at and why, the first twenty of each reason by
    name. `exclude` holds patterns as in a .gitignore, from the folder `base`."""

    root: str
    exclude: tuple[str, ...] = ()
    base: str = ""
    skipped: list[Skipped] = field(default_factory=list)
    _left_out: dict[str, int] = field(default_factory=dict)
    _entries: int = 0

    def folders(self) -> Iterator[Folder]:
        """Yield every folder, each before those in it; links are not followed. The .gitignore of every folder counts, from the repository's root on.

        Unlike git, a root that is itself ignored is walked, because the user has named it.
        """
        specs = self._specs_above()
        if _below_ignored(os.path.abspath(self.root), specs):
            specs = []
        yield from self._folder(self.root, specs, 0)
        for reason, count in self._left_out.items():
            if count > _SHOWN:
                self.skipped.append(Skipped(self.root, f"{count - _SHOWN} more: {reason}"))

    def _specs_above(self) -> list[tuple[str, Patterns]]:
        """The .gitignore files between the repository's root and the folder that the walk starts in, and the patterns of `exclude`."""
        specs = [(os.path.abspath(self.base or "."), Patterns(self.exclude))] if self.exclude else []
        above = os.path.abspath(self.root)
        inside: list[str] = []
        while not os.path.exists(os.path.join(above, ".git")):  # a file in a worktree
            parent = os.path.dirname(above)
            if parent == above:
                return specs  # not in a repository: only the .gitignore files below count
            above = parent
            inside.append(above)
        own = _ignore_file(above, ".git/info/exclude")
        specs += [own] if own is not None else []
        return [*specs, *(found for folder in reversed(inside) if (found := _ignore_file(folder)) is not None)]

    def _folder(self, path: str, specs: list[tuple[str, Patterns]], depth: int) -> Iterator[Folder]:
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            self._leave(path, f"cannot be read: {error.strerror or error}")
            return
        here = _ignore_file(os.path.abspath(path)) if any(entry.name == ".gitignore" for entry in entries) else None
        specs = [*specs, here] if here is not None else specs
        files: list[str] = []
        folders: list[str] = []
        for entry in entries:
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                self._leave(path, f"more than {MAX_ENTRIES:,} entries: the walk ends here")
                break
            if entry.is_symlink():
                self._leave(os.path.join(path, entry.name), "a link, not followed")
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in _NEVER and not _ignored(entry.path, True, specs):
                    folders.append(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                self._leave(entry.path, "no regular file")
            elif not _ignored(entry.path, False, specs):
                files.append(entry.name)
        yield Folder(path, tuple(files))
        for folder in folders:
            if depth >= MAX_DEPTH:
                self._leave(folder, f"more than {MAX_DEPTH} folders deep")
            elif self._entries <= MAX_ENTRIES:
                yield from self._folder(folder, specs, depth + 1)

    def _leave(self, path: str, reason: str) -> None:
        count = self._left_out[reason] = self._left_out.get(reason, 0) + 1
        if count <= _SHOWN:
            self.skipped.append(Skipped(path, reason))


def _ignore_file(folder: str, name: str = ".gitignore") -> tuple[str, Patterns] | None:
    data = read_bytes(os.path.join(folder, name), MAX_IGNORE)
    return (folder, Patterns(data.decode("utf-8", "replace").splitlines())) if isinstance(data, bytes) else None


def _ignored(path: str, is_folder: bool, specs: list[tuple[str, Patterns]]) -> bool:
    """Return whether git ignores `path`, none of whose folders it ignores: the deepest file that has a line about it decides."""
    full = os.path.abspath(path)
    for folder, patterns in reversed(specs):
        if _is_below(full, folder):
            decision = patterns.decide(os.path.relpath(full, folder).replace(os.sep, "/"), is_folder)
            if decision is not None:
                return decision
    return False


def _below_ignored(folder: str, specs: list[tuple[str, Patterns]]) -> bool:
    """Return whether git ignores `folder` or one above it."""
    while True:
        if _ignored(folder, True, specs):
            return True
        parent = os.path.dirname(folder)
        if parent == folder:
            return False
        folder = parent


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
