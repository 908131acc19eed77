"""The files that a configuration names (a DeepSpeed JSON, a launch's config), each read once, and the settings of the repository."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from llmdoctor.files.jsonfile import JsonFile, parse
from llmdoctor.files.opening import Refusal, read_bytes
from llmdoctor.files.project import ProjectSettings

_LIMIT, _KEPT, _ABOVE = 2**20, 16 * 2**20, 6  # bytes of a file, characters kept in all, folders above the one that names another


def places(by: str, name: str) -> list[str]:
    """Return where a file `name` can be that the file `by` names, in the order of the search: beside it, in the working directory, in a folder above
    it, in which launchers are started.
    """
    folder = os.path.dirname(os.path.abspath(by))
    found = [os.path.abspath(os.path.join(folder, name)), os.path.abspath(name)]
    for _ in range(_ABOVE - 1):
        folder = os.path.dirname(folder)
        found.append(os.path.abspath(os.path.join(folder, name)))
    return found


@dataclass(slots=True)
class LinkedFiles:
    """The settings of the repository, and the JSON files that were read so far, by their full path."""

    settings: ProjectSettings
    _read: dict[str, JsonFile] = field(default_factory=dict)
    _size: int = 0

    def keep(self, file: JsonFile) -> None:
        """Keep a file that others may name; once 16 MiB are kept, a file that is named is read again."""
        if self._size < _KEPT:
            self._size += len(file.text) + 500
            self._read[os.path.abspath(file.path)] = file

    def named(self, by: str, name: str) -> JsonFile | None:
        """Return the JSON file that the file `by` names, in one of `places`; None if there is none, or if it holds no object."""
        place = self.place(by, name)
        file = None if place is None else self._once(place)
        return file if file is not None and isinstance(file.value, dict) else None

    def place(self, by: str, name: str) -> str | None:
        """Return the path of the file that `by` names; None if it is in none of these folders."""
        return next((place for place in places(by, name) if place in self._read or os.path.isfile(place)), None)

    def _once(self, place: str) -> JsonFile | None:
        if place in self._read:
            return self._read[place]
        data = read_bytes(place, _LIMIT)
        if data is None or isinstance(data, Refusal):
            return None
        file = parse(data, place, os.path.relpath(place))  # a message with an absolute path would be another on every machine
        self.keep(file)
        return file
