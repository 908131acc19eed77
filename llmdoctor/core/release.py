"""The numbers of a version, to compare two releases."""

from __future__ import annotations

import re

_VERSION = re.compile(r"[vb]?\d+(\.\d+){0,5}([.-]?(a|b|c|rc|alpha|beta|pre|post|dev)\w*)*(\+[\w.-]+)?")


def is_version(text: str) -> bool:
    """Return whether `text` is written as a version: 5.23.0, 0.5.3.post1, 4.57.0.dev0, b11549, 0.10.2+cu128."""
    return len(text) <= 64 and _VERSION.fullmatch(text) is not None


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, at least three: (5, 23, 0) for "5.23.0rc1", (11549, 0, 0) for "b11549"; () if it has none.

    What follows the numbers (rc1, .dev0, +cu12) is not looked at.
    """
    found = re.match(r"\d+(\.\d+)*", version.strip().lstrip("vb"))
    if found is None:
        return ()
    numbers = tuple(int(part[:9]) for part in found.group().split("."))
    return numbers + (0,) * (3 - len(numbers))
