"""Patterns as in a .gitignore, matched in time linear in the length of the path for each pattern.

The rules are those of gitignore(5) and of git's wildmatch.c with WM_PATHNAME. Nothing is translated to a regular expression: a pattern
with many stars would make one backtrack for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

_ANY = "?"  # one character of a name
_STAR = "*"  # any number of characters of a name
_FOLDERS = "**"  # any number of folders, none included
_CLASSES: dict[str, Callable[[str], bool]] = {
    "alnum": str.isalnum,
    "alpha": str.isalpha,
    "blank": lambda one: one in " \t",
    "cntrl": lambda one: ord(one) < 32 or ord(one) == 127,
    "digit": str.isdigit,
    "graph": lambda one: one.isprintable() and one != " ",
    "lower": str.islower,
    "print": str.isprintable,
    "punct": lambda one: one.isascii() and one.isprintable() and not one.isalnum() and one != " ",
    "space": str.isspace,
    "upper": str.isupper,
    "xdigit": lambda one: one in "0123456789abcdefABCDEF",
}
T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class _Set:
    """A bracket expression: the ranges and the named classes in it; `negated` matches every other character."""

    ranges: tuple[tuple[str, str], ...]
    classes: tuple[str, ...]
    negated: bool

    def matches(self, one: str) -> bool:
        inside = any(low <= one <= high for low, high in self.ranges) or any(_CLASSES[name](one) for name in self.classes)
        return inside != self.negated


@dataclass(frozen=True, slots=True)
class _Literal:
    """One character that stands for itself."""

    text: str


_Token = str | _Set | _Literal
_Name = tuple[_Token, ...]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line: the names that it matches from the base folder on, each as tokens or as the text of _FOLDERS."""

    names: tuple[_Name | str, ...]
    negated: bool
    folders_only: bool


class Patterns:
    """The lines of one .gitignore, or the values of one setting; a line that git could not read either is left out."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for pattern in map(_parse, lines) if pattern is not None]
        self._patterns.reverse()  # the last line that matches decides

    def decide(self, path: str, is_folder: bool) -> bool | None:
        """Return what the last line that matches `path` says: True for ignored, False for a negated line, None if no line matches.

        `path` is relative to the folder of the patterns, with "/" between the names. The folders above it are not looked at.
        """
        names = path.split("/")
        for pattern in self._patterns:
            if (is_folder or not pattern.folders_only) and _wild(pattern.names, names, _FOLDERS, _name_matches):
                return not pattern.negated
        return None

    def match(self, path: str, is_folder: bool = False) -> bool:
        """Return whether `path` or a folder above it is ignored. As in git, nothing brings back what lies in an ignored folder."""
        names = path.split("/")
        above = ("/".join(names[:count]) for count in range(1, len(names)))
        return any(self.decide(folder, True) for folder in above) or self.decide(path, is_folder) is True


def _parse(line: str) -> _Pattern | None:
    """Return the pattern of a line; None for a comment, an empty line, and a pattern that can match nothing."""
    text = line.rstrip("\r\n")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    negated = text.startswith("!")
    text = text[1:] if negated else text
    folders_only = text.endswith("/")
    text = text[:-1] if folders_only else text
    names = _names(text.removeprefix("/"))
    if not text.strip("/") or names is None:
        return None
    if "/" not in text:  # a slash in a bracket counts too, as it does for git
        names.insert(0, _FOLDERS)
    if names[-1] == _FOLDERS:
        names.append((_STAR,))  # a/** matches what lies in a, not a itself
    return _Pattern(tuple(names), negated, folders_only)


def _names(text: str) -> list[_Name | str] | None:
    """Return the tokens of each name in a pattern; None if a bracket is not closed or the last character is a single backslash."""
    names: list[_Name | str] = []
    tokens: list[_Token] = []
    at = 0
    while at <= len(text):
        one = text[at : at + 1]
        if one in ("/", ""):
            names.append(_FOLDERS if tokens == [_STAR] and text[:at].endswith("**") else tuple(tokens))
            tokens = []
        elif one == "\\":
            at += 1
            if at == len(text):
                return None
            tokens.append(_Literal(text[at]))
        elif one == "[":
            end = _bracket_end(text, at)
            found = None if end is None else _set(text[at + 1 : end])
            if end is None or found is None:
                return None
            tokens.append(found)
            at = end
        elif one == "*":
            if tokens[-1:] != [_STAR]:
                tokens.append(_STAR)
        else:
            tokens.append(_ANY if one == "?" else _Literal(one))
        at += 1
    return names


def _bracket_end(text: str, start: int) -> int | None:
    """Return the offset of the bracket that closes the one at `start`; None if there is none."""
    at = start + 1
    at += text[at : at + 1] in ("!", "^")
    first = at
    while at < len(text):
        if text[at] == "]" and at > first:
            return at
        if text.startswith("[:", at) and ":]" in text[at:]:
            at = text.index(":]", at) + 1
        elif text[at] == "\\":
            at += 1
        at += 1
    return None


def _set(text: str) -> _Set | None:
    """Return the set of a bracket expression without its brackets; None if it names a class that does not exist."""
    negated = text.startswith(("!", "^"))
    at = 1 if negated else 0
    ranges, classes = [], []
    while at < len(text):
        if text.startswith("[:", at) and ":]" in text[at:]:
            end = text.index(":]", at)
            name = text[at + 2 : end]
            if name not in _CLASSES:
                return None
            classes.append(name)
            at = end + 2
            continue
        low, at = _member(text, at)
        high = low
        if text[at : at + 1] == "-" and at + 1 < len(text):
            high, at = _member(text, at + 1)
        ranges += [(low, low), (low, high)]  # [z-a] matches z, as it does for git
    return _Set(tuple(ranges), tuple(classes), negated)


def _member(text: str, at: int) -> tuple[str, int]:
    """Return the character at `at`, which a backslash may escape, and the offset after it."""
    if text[at] == "\\" and at + 1 < len(text):
        at += 1
    return text[at], at + 1


def _name_matches(tokens: _Name | str, name: str) -> bool:
    return not isinstance(tokens, str) and _wild(tokens, name, _STAR, _character_matches)


def _character_matches(token: _Token, one: str) -> bool:
    if isinstance(token, _Literal):
        return token.text == one
    return token == _ANY or (isinstance(token, _Set) and token.matches(one))


def _wild(pattern: Sequence[T], items: Sequence[S], star: object, matches: Callable[[T, S], bool]) -> bool:
    """Return whether `pattern` matches all of `items`, with `star` for any number of them.

    Only the last star is ever tried again with one item more, because the first place where the items between two stars match is as good
    as any later one: at most len(pattern) * len(items) comparisons.
    """
    at, item, resume, taken = 0, 0, -1, 0
    while item < len(items):
        if at < len(pattern) and pattern[at] == star:
            resume, taken, at = at, item, at + 1
        elif at < len(pattern) and matches(pattern[at], items[item]):
            at, item = at + 1, item + 1
        elif resume >= 0:
            taken += 1
            at, item = resume + 1, taken
        else:
            return False
    return all(rest == star for rest in pattern[at:])
