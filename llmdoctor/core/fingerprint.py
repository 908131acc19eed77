"""What a finding is known by from one run to the next: what was found, not the line it stands on."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence

from llmdoctor.core.diagnostic import Diagnostic

# "config.json:7", "line 7", "lines 7 to 9": lines that a message names move with every edit above them.
_LINES = re.compile(r"(\.[a-z]{1,8}):\d+\b|\blines? \d+(?: to \d+)?\b")


def fingerprints(findings: Sequence[Diagnostic]) -> tuple[str, ...]:
    """64 hexadecimal digits for each finding, all different.

    Made from the code, the file, the pointer and the message without line numbers; what is found several times over is counted in the
    order of the findings, so that one more of them leaves the others' fingerprints as they were.
    """
    seen: Counter[str] = Counter()
    out = []
    for finding in findings:
        key = _key(finding)
        out.append(hashlib.sha256(json.dumps([key, seen[key]]).encode("ascii")).hexdigest())
        seen[key] += 1
    return tuple(out)


def _key(finding: Diagnostic) -> str:
    place = finding.location
    where = (None, None) if place is None else (place.file, place.pointer)
    return json.dumps([finding.code, *where, _LINES.sub(r"\1", finding.message)])
