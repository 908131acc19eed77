"""GEN014 to GEN016: what the counts of a file come to as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.rule import Rule
from llmdoctor.gencfg.runaway.cause import Why
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.runaway.rules import LENGTH, LOOP, PASSED
from llmdoctor.gencfg.runaway.tally import Passed, Tally

_RARE = 0.01  # of the sequences: below it a loop, or a token that only its text tells, is no error
_SOME, _MOST = 0.1, 0.9  # of the sequences ended by length: from here on a warning, an error


def findings_of(evidence: Evidence, why: Why | None) -> tuple[Finding, ...]:
    """One finding for each passed terminator, one for the loops, one for what ended by length."""
    return tuple(finding for find in (_passed, _loops, _length) for finding in find(evidence, why))


def _passed(evidence: Evidence, why: Why | None) -> Iterator[Finding]:
    """GEN014: a warning where all of them stopped in the end, and where a few texts hold a token that nobody has named."""
    tally = evidence.tally
    for entry in tally.by_passed():
        rare = entry.mark.source == "well-known" and entry.count < _RARE * tally.sequences
        severity = Severity.WARNING if rare or entry.stopped == entry.count else PASSED.severity
        found = {"sequences": entry.count, "median_position": entry.positions.median(), "wasted": entry.wasted, "unit": entry.unit}
        yield _finding(PASSED, severity, _words(entry, tally), _place(evidence, entry.examples[0][0]), found, why)


def _words(entry: Passed, tally: Tally) -> str:
    where = f"{entry.unit} {entry.positions.median():,} (median)"
    return f"{entry.count:,} of {tally.sequences:,} sequences produced {entry.mark.name} and went on, at {where}"


def _loops(evidence: Evidence, why: Why | None) -> Iterator[Finding]:
    """GEN015: a warning where all of them stopped in the end, and where they are less than one in a hundred."""
    tally = evidence.tally
    loops = tally.by_loop()
    if not loops:
        return
    running = sum(loop.count - loop.stopped for loop in loops)
    top = loops[0]
    message = (
        f"{tally.looping:,} of {tally.sequences:,} sequences run out in a loop; the most frequent repeats {top.period:,} {top.unit}s "
        f"from {top.unit} {top.starts.median():,} on (median)"
    )
    found = {
        "sequences": tally.looping,
        "stopped": tally.looping - running,
        "periods": {str(loop.period): loop.count for loop in loops[:20]},
    }
    severity = LOOP.severity if running >= max(_RARE * tally.sequences, 1) else Severity.WARNING
    yield _finding(LOOP, severity, message, _place(evidence, top.examples[0][0]), found, why)


def _length(evidence: Evidence, why: Why | None) -> Iterator[Finding]:
    """GEN016: an error from nine in ten on, a warning from one in ten on and where it was only inferred."""
    tally, inferred = evidence.tally, evidence.inferred_lengths is not None
    share = tally.ended["length"] / tally.sequences if tally.sequences else 0.0
    if share < _SOME:
        return
    severity = LENGTH.severity if share >= _MOST and not inferred else Severity.WARNING
    message = f"{tally.ended['length']:,} of {tally.sequences:,} sequences ended because they reached their limit of tokens"
    found = {"sequences": tally.ended["length"], "share": share, "limit": tally.limit, "inferred": inferred}
    yield _finding(LENGTH, severity, message, _place(evidence, tally.first_length), found, why)


def _place(evidence: Evidence, line: int | None) -> Location:
    return Location(evidence.reading.shown_name, line=line)


def _finding(rule: Rule, severity: Severity, message: str, place: Location, found: Mapping[str, object], why: Why | None) -> Finding:
    if why is None:
        return Finding(rule.code, severity, message, place, found, fix=rule.fix)
    return Finding(rule.code, severity, message, place, found, why.text, why.fix or rule.fix)
