"""What findings about a model directory share: a place in a file, the verdict of each engine, and the doubt that own code raises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.types import Effective


def place(file: JsonFile | None, pointer: str) -> Location | None:
    """Return the place of a JSON pointer in `file`; None without a file."""
    return None if file is None else Location(file.shown_name, pointer or None, file.line(pointer) if pointer else None)


def verdicts(examined: Examined) -> dict[str, Any]:
    """Return what the plain call does under each engine, by its name, as evidence."""

    def words(effective: Effective) -> str:
        if effective.error is not None:
            return f"raises {effective.error.type}"
        return "never stops" if effective.stop.never_stops else f"stops at {named_ids(effective.stop.eos_token_id)}"

    return {name: words(effective) for name, effective in examined.by_engine.items()}


def named_ids(ids: tuple[int, ...]) -> str:
    """Return ids in order, as words."""
    return ", ".join(map(str, sorted(set(ids)))) or "nothing"


def own_code(examined: Examined, finding: Finding) -> Finding:
    """Return a finding as at most a warning if the directory brings its own code: its chat() may supply ids that generate() is not given."""
    if not examined.directory.remote_code:
        return finding
    why = "the directory brings its own code (auto_map), whose chat() may pass stop ids of its own: a warning only"
    lowered = min(finding.severity, Severity.WARNING, key=lambda severity: severity.rank)
    return replace(finding, severity=lowered, cause=f"{finding.cause}; {why}" if finding.cause else why)
