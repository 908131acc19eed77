"""The entry of an engine by its name and version."""

from __future__ import annotations

import re
from dataclasses import replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import is_version
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.older_tables import OLDER
from llmdoctor.sample.tables import ENGINES, NEWEST

ENTRIES = (*NEWEST, *OLDER)  # of one engine the newest version first


def find_engine(name: str) -> SamplingEngine | None:
    """Return the entry of NAME (the newest) or of NAME@VERSION; None if no such engine is known."""
    name, _, version = name.partition("@")
    wanted = _numbers(version)
    found = next((engine for engine in ENTRIES if engine.name == name and (not wanted or engine.since <= wanted)), None)
    if found is None or not version:
        return found
    return replace(found, wanted=version, known=_is_known(found, version))


def _is_known(engine: SamplingEngine, version: str) -> bool:
    """Whether a version is one that was read, or lies between the first and the last of them."""
    if not engine.read or not _numbers(version):
        return version == engine.version.split(" (")[0]
    return _numbers(engine.read[0]) <= _numbers(version) <= (*_numbers(engine.read[-1]), 2**31)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def known_engine(name: str) -> SamplingEngine:
    """Return the entry of NAME or NAME@VERSION. Raises QuestionError if no such engine is known, or for what is not a version."""
    found = find_engine(name)
    _, at, version = name.partition("@")
    if found is None:
        raise QuestionError(f"engine {name[:40]!r}: expected one of {', '.join(ENGINES)}, or one of them with a version (vllm@0.7)")
    if at and not found.known and not is_version(version):
        raise QuestionError(f"engine {name[:40]!r}: not a version after @; expected one such as {found.version.split(' (')[0]}")
    return found
