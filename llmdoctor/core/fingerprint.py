"""The fingerprint of a finding, which stays the same from one run to the next while lines above it change."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence

from llmdoctor.core.finding import Finding

# "config.json:7", "line 7", "lines 7 to 9", "cell 3, line 7": lines that a message names move with every edit above them.
_LINES = re.compile(r"(\.[a-z]{1,8}):\d+\b|\b(?:cell \d+, )?lines? \d+(?: to \d+)?\b")


def fingerprints(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return 64 hexadecimal digits for each finding, all different.

    They are made from the code, the file, the pointer and the message without line numbers. In program text the function and the source line
    (`scope` and `source` of the evidence) replace the pointer, so that a further finding in another function, or of another line, is the new one.
    Equal findings are counted in their order, so that a further one leaves the fingerprints of the others unchanged.
    """
    seen: Counter[str] = Counter()
    out = []
    for finding in findings:
        key = _key(finding)
        out.append(hashlib.sha256(json.dumps([key, seen[key]]).encode("ascii")).hexdigest())
        seen[key] += 1
    return tuple(out)


def _key(finding: Finding) -> str:
    place = finding.location
    where: tuple[str | None, ...] = (None, None) if place is None else (place.file, place.pointer)
    if place is not None and {"scope", "source"} <= finding.evidence.keys():
        where = (place.file, str(finding.evidence["scope"]), str(finding.evidence["source"]))
    return json.dumps([finding.code, *where, _LINES.sub(r"\1", finding.message)])
