"""A baseline: the findings that a team knows and has decided to live with, by what was found and not by its line."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from llmdoctor.core.diagnostic import Diagnostic
from llmdoctor.core.errors import QuestionError

SCHEMA = "llmdoctor.baseline/1"
_LINE = re.compile(r"(?<=[\w)\]]):\d+")


def key(finding: Diagnostic, root: str) -> str:
    """What a finding is known by: its rule, its file below `root`, its JSON pointer, its words without line numbers."""
    place = finding.location
    file = "" if place is None else Path(os.path.relpath(place.file, root)).as_posix()
    pointer = "" if place is None else place.pointer or ""
    text = "\0".join((finding.code, file, pointer, _LINE.sub("", finding.message)))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:24]


def split(findings: Iterable[Diagnostic], known: Counter[str], root: str) -> tuple[list[Diagnostic], int]:
    """The findings that are not in the baseline, and how many are; one that the baseline has twice may come twice."""
    left, new, old = Counter(known), [], 0
    for finding in findings:
        name = key(finding, root)
        if left[name] > 0:
            left[name] -= 1
            old += 1
        else:
            new.append(finding)
    return new, old


def read(path: str) -> Counter[str]:
    """The keys in a baseline file, with their counts. Raises QuestionError where it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise QuestionError(f"--baseline {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"--baseline {path}: no baseline: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("findings"), list):
        raise QuestionError(
            f'--baseline {path}: no baseline, expected {{"schema": "{SCHEMA}", "findings": [...]}} as --write-baseline writes it'
        )
    return Counter(str(entry.get("key")) for entry in content["findings"] if isinstance(entry, dict))


def text(findings: Iterable[Diagnostic], root: str) -> str:
    """A baseline file of `findings`: sorted, a finding a line, so that a review can read what is accepted."""
    lines = sorted(
        json.dumps(
            {"key": key(finding, root), "code": finding.code, "at": _at(finding, root), "message": finding.message}, ensure_ascii=True
        )
        for finding in findings
    )
    body = ",\n    ".join(lines)
    return (
        f'{{\n  "schema": "{SCHEMA}",\n  "findings": [\n    {body}\n  ]\n}}\n'
        if lines
        else f'{{\n  "schema": "{SCHEMA}",\n  "findings": []\n}}\n'
    )


def _at(finding: Diagnostic, root: str) -> str | None:
    return None if finding.location is None else Path(os.path.relpath(finding.location.file, root)).as_posix()
