"""The findings at the call sites of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.text import plural
from llmdoctor.gencfg.findings import call_findings
from llmdoctor.gencfg.runaway.rules import PASSED
from llmdoctor.gencfg.trace.counts import CallSite


def site_findings(site: CallSite, *, caught: bool) -> Iterator[Finding]:
    """Yield what is wrong at one call site: a call that cannot stop or raises, and calls that can stop but ran past a terminator.

    An exception that the program has `caught` is a warning.
    """
    if site.bad is not None:
        for finding in call_findings(site.bad):
            severity = Severity.WARNING if caught and site.bad.effective.error is not None else finding.severity
            yield replace(finding, message=f"{site.source}: {finding.message}", severity=severity)
    elif site.passing is not None and (cause := site.cause()) is not None:
        passed = sum(site.passed.values())
        yield PASSED.at(
            cause.location,
            f"{site.source}: {passed} of {plural(site.sequences, 'sequence')} ran past a terminator: {cause.brief}",
            cause=cause.text,
            fix=cause.fix,
            # Turns of a conversation that one generate() writes look so too, and stop in the end.
            severity=Severity.WARNING if site.stopped == site.sequences else None,
            passed=dict(site.passed),
            median_position=site.median_position(),
            wasted_tokens=site.wasted,
        )
