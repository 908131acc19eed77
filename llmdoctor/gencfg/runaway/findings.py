"""GEN014 to GEN016: the findings that the counts of a file lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.text import plural
from llmdoctor.gencfg.runaway.cause import LikelyCause
from llmdoctor.gencfg.runaway.counts import OutputCounts, PassedMark
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.runaway.rules import LENGTH, LOOP, PASSED

_RARE = 0.01  # of the sequences: below it a loop, or a token that is known only by its text, is no error
_SOME, _MOST = 0.1, 0.9  # of the sequences ended by length: from here on a warning, an error


def findings_of(evidence: Evidence, cause: LikelyCause | None) -> tuple[Finding, ...]:
    """Return a finding per passed terminator, one for the loops, one for what ended by length.

    The first one carries the likely cause and its fix, which are those of the whole file.
    """
    found = [*_passed(evidence), *_loops(evidence), *_length(evidence)]
    if found and cause is not None:
        where = "" if cause.location is None else f" ({cause.location})"
        found[0] = replace(found[0], cause=cause.text + where, fix=cause.fix or found[0].fix)
    return tuple(found)


def _passed(evidence: Evidence) -> Iterator[Finding]:
    """Yield GEN014: a warning if all of them stopped in the end, or if a few texts hold a token that neither the user nor a file named."""
    counts = evidence.counts
    for entry in counts.by_passed():
        rare = entry.mark.source == "well-known" and entry.count < _RARE * counts.sequences
        yield PASSED.at(
            _place(evidence, entry.examples[0][0]),
            _words(entry, counts),
            severity=Severity.WARNING if rare or entry.stopped == entry.count else None,
            sequences=entry.count,
            median_position=entry.positions.median(),
            wasted=entry.wasted,
            unit=entry.unit,
        )


def _words(entry: PassedMark, counts: OutputCounts) -> str:
    where = f"{entry.unit} {entry.positions.median():,} (median)"
    return f"{entry.count:,} of {plural(counts.sequences, 'sequence')} produced {entry.mark.name} and went on, at {where}"


def _loops(evidence: Evidence) -> Iterator[Finding]:
    """Yield GEN015: a warning if all of them stopped in the end, or if they are less than one in a hundred."""
    counts = evidence.counts
    loops = counts.by_loop()
    if not loops:
        return
    running = sum(loop.count - loop.stopped for loop in loops)
    top = loops[0]
    yield LOOP.at(
        _place(evidence, top.examples[0][0]),
        f"{counts.looping:,} of {plural(counts.sequences, 'sequence')} end in a loop; the most frequent one repeats {plural(top.period, top.unit)} "
        f"from {top.unit} {top.starts.median():,} on (median)",
        severity=None if running >= max(_RARE * counts.sequences, 1) else Severity.WARNING,
        sequences=counts.looping,
        stopped=counts.looping - running,
        periods={str(loop.period): loop.count for loop in loops[:20]},
    )


def _length(evidence: Evidence) -> Iterator[Finding]:
    """Yield GEN016: an error from nine in ten on, a warning from one in ten on and if it was only inferred."""
    counts, inferred = evidence.counts, evidence.inferred_lengths is not None
    share = counts.ended["length"] / counts.sequences if counts.sequences else 0.0
    if share < _SOME:
        return
    yield LENGTH.at(
        _place(evidence, counts.first_length),
        f"{counts.ended['length']:,} of {plural(counts.sequences, 'sequence')} ended because they reached their limit of tokens",
        severity=None if share >= _MOST and not inferred else Severity.WARNING,
        sequences=counts.ended["length"],
        share=share,
        limit=counts.limit,
        inferred=inferred,
    )


def _place(evidence: Evidence, line: int | None) -> Location:
    return Location(evidence.log.shown_name, line=line)
