"""The releases that a repository pins: requirements files, pyproject.toml, setup.cfg, lock files, conda environments, Dockerfiles.

Text is read, nothing is run. A file that cannot be read, or is larger than its limit, pins nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache

from llmdoctor.core.requirement import Requirement
from llmdoctor.files import pinned_packages as packages
from llmdoctor.files.opening import read_bytes
from llmdoctor.files.pinned_images import compose_file, dockerfile

_LIMIT, _LOCK_LIMIT, _FILES = 2**19, 2**24, 60  # bytes of a file, bytes of a lock file, files of a folder
_FOLDERS = ("", "requirements", "docker", ".devcontainer")  # of a folder, in which such files lie too

Reader = Callable[[str], Iterator[tuple[Requirement, int | None]]]


@dataclass(frozen=True, slots=True)
class Pin:
    """A requirement, and its place: the file as it is shown, and the line if it is known. `locked` is true for a line of a lock file."""

    requirement: Requirement
    file: str
    line: int | None = None
    locked: bool = False

    @property
    def place(self) -> str:
        """Return where the pin is, such as "requirements.txt:3"."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


def pins_in(folder: str) -> tuple[Pin, ...]:
    """Return every pin in the files of one folder, and in its folders "requirements" and "docker"."""
    found: list[Pin] = []
    for below in _FOLDERS:
        place = os.path.join(folder, below) if below else folder
        try:
            changed = os.stat(place).st_mtime_ns
        except OSError:
            continue
        for path, reader in _readable(place, below, changed):
            found += _read(path, reader)
    return tuple(found)


@lru_cache(maxsize=256)
def _readable(place: str, below: str, _changed: int) -> tuple[tuple[str, Reader], ...]:
    """Return the files of a folder that can pin a release, with the function that reads each; every library asks for the same ones."""
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return ()
    readable = [(os.path.join(place, name), reader) for name in names if (reader := _reader(name, below)) is not None]
    return tuple(readable[:_FILES])


def _reader(name: str, below: str) -> Reader | None:
    """Return the function that reads a file of this name; None if such a file pins nothing."""
    if below == "requirements" and name.endswith((".txt", ".in")):
        return packages.requirements_txt
    return next((reader for pattern, reader in _READERS.items() if fnmatch(name.lower(), pattern)), None)


def _read(path: str, reader: Reader) -> tuple[Pin, ...]:
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return _pins(path, reader, os.path.relpath(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _pins(path: str, reader: Reader, shown: str, _changed: int, _size: int) -> tuple[Pin, ...]:
    locked = reader in (packages.package_lock, packages.pipfile_lock)
    data = read_bytes(path, _LOCK_LIMIT if locked else _LIMIT)
    if not isinstance(data, bytes):
        return ()
    text = data.decode("utf-8", "replace")
    return tuple(Pin(requirement, shown, line, locked) for requirement, line in reader(text))


_READERS: dict[str, Reader] = {
    "*requirements*.txt": packages.requirements_txt,
    "*requirements*.in": packages.requirements_txt,
    "constraints*.txt": packages.requirements_txt,
    "pyproject.toml": packages.pyproject_toml,
    "pipfile": packages.pipfile,
    "setup.cfg": packages.setup_cfg,
    "setup.py": packages.setup_py,
    "poetry.lock": packages.package_lock,
    "uv.lock": packages.package_lock,
    "pdm.lock": packages.package_lock,
    "pylock*.toml": packages.package_lock,
    "pipfile.lock": packages.pipfile_lock,
    "environment*.y*ml": packages.conda_environment,
    "conda*.y*ml": packages.conda_environment,
    "dockerfile*": dockerfile,
    "*.dockerfile": dockerfile,
    "containerfile": dockerfile,
    "docker-compose*.y*ml": compose_file,
    "compose*.y*ml": compose_file,
}
