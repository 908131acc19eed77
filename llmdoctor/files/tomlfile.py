"""TOML, bounded: the value of a file, and where it is wrong. No lines of values: tomllib does not give them."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Any

from llmdoctor.core.finding import Location
from llmdoctor.core.text import plain
from llmdoctor.files.jsonfile import JsonFile, beyond_limits
from llmdoctor.files.rules import BEYOND_LIMITS, UNREADABLE

_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")


def parse_toml(data: bytes, path: str, name: str) -> JsonFile:
    """Read `data` as TOML; never raises. Dates become texts. What is not TOML has the value None and a problem with its line."""
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # the same module under the name that it has there
    try:
        value: Any = tomllib.loads(data.decode("utf-8"))
    except (
        ValueError,
        RecursionError,
    ) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors, so is an integer that is too long
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        found = _LINE.search(reason)
        where = Location(name, None, int(found[1]) if found else None)
        return JsonFile(path, name, None, (UNREADABLE.at(where, f"{name}: not TOML: {reason}"),))
    passed = beyond_limits(value)
    if passed is not None:
        return JsonFile(path, name, None, (BEYOND_LIMITS.at(Location(name), f"{name}: {passed}"),))
    return JsonFile(path, name, plain(value))
