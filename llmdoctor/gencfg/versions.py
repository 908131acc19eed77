"""Versions of transformers: which are known, and what each one's GenerationConfig has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError

Minor = tuple[int, int]
METADATA = ("transformers_version", "_from_model_config", "_commit_hash", "generation_kwargs")  # of the file, no settings
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:\.?(?:a|b|rc|dev|post)\d*|\+[\w.]+)*")


@cache
def _library() -> dict[str, Any]:
    """library.json: written by conformance/make_defaults.py from the library's sources."""
    data: dict[str, Any] = json.loads(Path(__file__).with_name("library.json").read_bytes())
    return data


def known_versions() -> tuple[str, ...]:
    """Return the versions whose sources the rules were read from, oldest first."""
    return tuple(_library()["versions"])


def newest_known() -> str:
    """Return the newest of them."""
    return known_versions()[-1]


def parse(version: str) -> Minor:
    """Return (major, minor) of a version such as "4.57.6", "5.0", "5.24.0.dev0".

    Raises QuestionError if it is not a version, or older than the oldest known.
    """
    match = _VERSION.fullmatch(version.strip())
    known = known_versions()
    if match is None:
        raise QuestionError(
            f"transformers {version}: not a version; expected one such as {newest_known()} ({known[0]} to {known[-1]} are known)"
        )
    minor = (int(match.group(1)), int(match.group(2)))
    if minor < as_minor(known[0]):
        raise QuestionError(f"transformers {version}: rules are known from {known[0]} to {known[-1]} only")
    return minor


def rules_for(version: str) -> tuple[Minor, str]:
    """Return the minor whose rules apply to `version`, and the version to name for them: itself, or the newest known one if it is newer."""
    minor = parse(version)
    if minor > as_minor(newest_known()):
        return as_minor(newest_known()), newest_known()
    return minor, version


@cache
def field_defaults(minor: Minor) -> Mapping[str, Any]:
    """Return GenerationConfig's fields with the values of a bare GenerationConfig() (all None in 5.x)."""
    return _at(_library()["fields"], minor)


@cache
def known_field(name: str) -> str | None:
    """Return in which versions GenerationConfig has a field ("since 4.51", "up to 4.54"); None if no known version has it."""
    changes = _library()["fields"].get(name)
    if not changes:
        return None
    first, last = changes[0], changes[-1]
    return f"removed in {last[0]}" if len(last) == 1 else f"since {first[0]}"


@cache
def late_defaults(minor: Minor) -> Mapping[str, Any]:
    """Return 5.x's defaults, which generate() fills in if nothing else sets a field (_get_default_generation_params); {} before."""
    return _at(_library()["late_defaults"], minor)


def cache_implementations(minor: Minor) -> tuple[str, ...]:
    """Return the values that cache_implementation may have; () before 4.45, which does not check it."""
    names: list[str] = []
    for since, value in _library()["cache_implementations"]:
        if as_minor(since) <= minor:
            names = value
    return tuple(names)


def _at(history: dict[str, list[list[Any]]], minor: Minor) -> dict[str, Any]:
    now: dict[str, Any] = {}
    for name, changes in history.items():
        current = [change for change in changes if as_minor(change[0]) <= minor]
        if current and len(current[-1]) == 2:
            now[name] = current[-1][1]
    return now


def as_minor(version: str) -> Minor:
    """Return (major, minor) of a version that this package itself names."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
