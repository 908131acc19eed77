"""Which release of a library an answer is for, and how that was decided.

In this order: the release that the user names, the one that the repository of the subject pins, the installed one, the newest that the rules know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.release import is_version, release
from llmdoctor.core.requirement import normalised

if TYPE_CHECKING:
    from llmdoctor.files.pins import Pin

VersionBasis = Literal["named", "pinned", "installed", "newest"]
DISTRIBUTIONS = {"tgi": "text-generation-inference", "mlx": "mlx-lm"}  # what an index or an image calls a library of another name here


class LibraryVersionResult(TypedDict):
    """The release of a library that an answer is for."""

    library: str
    version: str
    basis: str  # "named", "pinned", "installed" or "newest": the newest that the rules know
    place: str | None  # of the pin, such as "requirements.txt:3"
    installed: str | None
    conflict: list[str]  # pins that contradict each other, with their releases


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryVersion:
    """The release of `library` (`title` on a screen) that an answer is for.

    `place` is where it is pinned ("requirements.txt:3"), with the requirement if that allows several releases; None if it is not pinned.
    `conflict` holds the pins that contradict each other ("requirements.txt:3 (4.50.3)"): the answer is for one of them.
    `installed` is the release that this interpreter would import, None without one. `known` are the oldest and the newest release that the
    rules know.
    """

    library: str
    title: str
    version: str
    basis: VersionBasis
    installed: str | None = None
    place: str | None = None
    conflict: tuple[str, ...] = ()
    known: tuple[str, str] = ("", "")

    @property
    def how(self) -> str:
        """Return how the release was decided, as a clause behind "transformers 4.50.3"."""
        here = "" if self.installed in (None, self.version) else f"; {self.installed} is installed here"
        if self.conflict:
            return f"one of the releases that {' and '.join(self.conflict)} pin{here}"
        if self.basis == "pinned":
            return f"pinned by {self.place}{here}"
        if self.installed == self.version:
            return "installed here"
        if self.basis == "named":
            return here.removeprefix("; ") or "not installed here"
        return "the newest version known here, because none is installed"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return the clauses on why the rules may not be those of the user's release: contradicting pins, a release that is not known."""
        found: list[str] = []
        if self.conflict:
            pins = " and ".join(self.conflict)
            what = f"{pins} contradict each other" if len(self.conflict) > 1 else f"no release known here satisfies {pins}"
            found.append(f"undecided for which {self.title}: {what}, the answer is for {self.version}")
        for beyond, word, rules in (
            (release(self.version) > release(self.known[1]), "newer", self.known[1]),
            (release(self.version) < release(self.known[0]), "older", self.known[0]),
        ):
            if beyond:
                found.append(f"{self.title} {self.version} is {word} than every version known here: the rules of {rules} were applied")
        return tuple(found)

    @property
    def pinned(self) -> str | None:
        """Return the clause that names the pin of a release that is not the installed one; None if there is nothing to name."""
        if self.conflict:
            return None
        if self.basis == "pinned" and self.installed != self.version:
            return f"for {self.title} {self.version}, which {self.place} pins"
        return None

    def result(self) -> LibraryVersionResult:
        """Return the release for a program."""
        return {
            "library": self.library,
            "version": self.version,
            "basis": self.basis,
            "place": self.place,
            "installed": self.installed,
            "conflict": list(self.conflict),
        }


def version_of(
    library: str,
    *,
    known: Sequence[str],
    named: str | None = None,
    near: str | None = None,
    distribution: str | None = "",
    title: str | None = None,
) -> LibraryVersion:
    """Return the release of `library` that an answer about the file or folder `near` is for.

    `known` are the releases that the rules know, oldest first; `distribution` is the package whose installed release counts: by default
    `library`, None if there is none. Without `near`, or if it is no path, the repository is that of the working directory.

    Raises QuestionError if `named` is not a version.
    """
    if named is not None and not is_version(named):
        raise QuestionError(f"{title or library} {named}: not a version; expected one such as {known[-1]}")
    package = library if distribution == "" else distribution
    installed = None if package is None else installed_version(package)
    pinned = None if named is not None else _pinned(DISTRIBUTIONS.get(library, library), near, known, installed)
    version, place, conflict = pinned or (named or installed or known[-1], None, ())
    basis: VersionBasis = "named" if named is not None else "pinned" if pinned is not None else "installed" if installed else "newest"
    return LibraryVersion(
        library=library,
        title=title or library,
        version=version,
        basis=basis,
        installed=installed,
        place=place,
        conflict=conflict,
        known=(known[0], known[-1]),
    )


def _pinned(distribution: str, near: str | None, known: Sequence[str], installed: str | None) -> tuple[str, str, tuple[str, ...]] | None:
    """Return the release that the repository pins, where, and which pins contradict each other; None if its pins leave the choice open."""
    from llmdoctor.files.pins import pins_in

    name = normalised(distribution)
    ranges: list[Pin] = []
    exact: list[Pin] = []
    for folder in _folders(near):
        pins = [pin for pin in pins_in(folder) if pin.requirement.name == name]
        exact = [pin for pin in pins if pin.requirement.exact is not None]
        ranges += [pin for pin in pins if pin.requirement.exact is None and pin.requirement.clauses]
        if exact:
            break
    if exact:
        return _of_exact(exact, installed)
    if not ranges:
        return None

    def allowed(version: str) -> bool:
        return all(pin.requirement.allows(version) for pin in ranges)

    if installed is not None and allowed(installed):
        return None
    fitting = [version for version in known if allowed(version)]
    if installed is None and fitting and fitting[-1] == known[-1]:
        return None
    places = tuple(dict.fromkeys(f"{pin.place} ({pin.requirement.text})" for pin in ranges))
    if fitting:
        return fitting[-1], " and ".join(places), ()
    bounds = [version for pin in ranges for operator, version in pin.requirement.clauses if operator != "!="]
    wanted = next((version.removesuffix(".*") for version in bounds if allowed(version.removesuffix(".*"))), None)
    return (wanted, " and ".join(places), ()) if wanted is not None else (installed or known[-1], places[0], places)


def _of_exact(pins: Sequence[Pin], installed: str | None) -> tuple[str, str, tuple[str, ...]]:
    """Return the release of exact pins: the installed one if it is among several, else the newest of them."""
    first: dict[tuple[int, ...], Pin] = {}
    for pin in pins:
        first.setdefault(release(pin.requirement.exact or ""), pin)
    here = release(installed or "")
    chosen = first[here if here in first else max(first)]
    named = tuple(f"{pin.place} ({pin.requirement.exact}{_when(pin.requirement.marker)})" for pin in first.values())
    return chosen.requirement.exact or "", chosen.place, named if len(named) > 1 else ()


def _when(marker: str) -> str:
    return f" if {marker}" if marker else ""


def _folders(near: str | None) -> Iterator[str]:
    """Yield the folders whose files can pin a release for `near`, the nearest first; then those of the working directory."""
    here = os.getcwd()
    start = os.path.abspath(near) if near is not None and os.path.exists(near) else here
    start = start if os.path.isdir(start) else os.path.dirname(start)
    above = list(_above(start, here))
    yield from above
    yield from (folder for folder in _above(here, here) if folder not in above)


def _above(start: str, here: str) -> Iterator[str]:
    """Yield `start` and the folders above it, up to the root of its repository; without a repository, up to the working directory."""
    folders = [start]
    while not os.path.exists(os.path.join(folders[-1], ".git")) and os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    if os.path.exists(os.path.join(folders[-1], ".git")):
        yield from folders
    elif here in folders:
        yield from folders[: folders.index(here) + 1]
    else:
        yield from folders[:2]
