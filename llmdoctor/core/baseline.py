"""A baseline: the findings that a team has accepted, by their fingerprints."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.core.fingerprint import fingerprints

SCHEMA = "llmdoctor.baseline/1"


def unknown(findings: Sequence[Finding], known: frozenset[str], folder: str) -> list[Finding]:
    """Return the findings whose fingerprints are not in the baseline, which is in `folder`."""
    return [finding for finding, name in zip(findings, _names(findings, folder), strict=True) if name not in known]


def known_in(content: Any, path: str) -> frozenset[str]:
    """Return the fingerprints in `content`, the JSON of the baseline file `path`. Raises QuestionError if it is not a baseline."""
    found = content.get("findings") if isinstance(content, dict) and content.get("schema") == SCHEMA else None
    if not isinstance(found, list):
        raise QuestionError(f'--baseline {path}: not a baseline, expected {{"schema": "{SCHEMA}", ...}} as --write-baseline writes it')
    return frozenset(str(entry.get("fingerprint")) for entry in found if isinstance(entry, dict))


def text(findings: Sequence[Finding], folder: str) -> str:
    """Return a baseline file of `findings` for its `folder`: sorted, one finding per line, so that a reviewer can read what is accepted."""
    placed = [_seen_from(finding, folder) for finding in findings]
    lines = sorted(json.dumps(_entry(finding, name)) for finding, name in zip(placed, fingerprints(placed), strict=True))
    body = ",\n".join(f"    {line}" for line in lines)
    return f'{{\n  "schema": "{SCHEMA}",\n  "findings": [\n{body}\n  ]\n}}\n'


def _entry(finding: Finding, fingerprint: str) -> dict[str, str | None]:
    at = None if finding.location is None else finding.location.file
    return {"code": finding.code, "at": at, "message": finding.message, "fingerprint": fingerprint}


def _names(findings: Sequence[Finding], folder: str) -> tuple[str, ...]:
    return fingerprints([_seen_from(finding, folder) for finding in findings])


def _seen_from(finding: Finding, folder: str) -> Finding:
    """Return `finding` with its file relative to `folder`, which does not depend on the working directory."""
    place = finding.location
    if place is None:
        return finding
    file = os.path.relpath(place.file, folder or ".")
    return replace(finding, location=replace(place, file=file), message=finding.message.replace(place.file, file))
