"""What all renderers share: the order in which a report is read, and the parts of a finding."""

from __future__ import annotations

from llmdoctor.core.document import Block, Headline
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report, Status

_STARTS: dict[Status, tuple[str, ...]] = {
    "bound": ("bound", "at least", "at most"),
    "undecided": ("undecided",),
    "refused": ("refused", "not answered"),
}


def blocks(report: Report) -> tuple[Block, ...]:
    """Return the blocks below the verdict, in reading order.

    A finding that `document` holds keeps its place; the others follow the document, the most severe first. A headline that repeats the verdict
    is left out.
    """
    verdict = report.verdict.text
    document = [block for block in report.document if not (isinstance(block, Headline) and block.text == verdict)]
    return (*document, *unplaced(report))


def unplaced(report: Report) -> tuple[Finding, ...]:
    """Return the findings that the document does not hold, the most severe first."""
    placed = {id(block) for block in report.document if isinstance(block, Finding)}
    left = [finding for finding in report.findings if id(finding) not in placed]
    return tuple(sorted(left, key=lambda finding: -finding.severity.rank))


def sentence(report: Report) -> str:
    """Return the verdict as a person reads it. A bound, an undecided verdict and a refusal begin with that word: the status alone is a colour."""
    verdict = report.verdict
    start = verdict.text.lower()
    if report.error is not None or start.startswith(_STARTS.get(verdict.status, ("",))):
        return verdict.text
    return f"{verdict.status.capitalize()}: {verdict.text}"


def message_of(finding: Finding, report: Report) -> str:
    """Return the finding's message; "" if the verdict is the same sentence, which a person has then just read."""
    return "" if finding.message == report.verdict.text else finding.message


def place_of(finding: Finding) -> str:
    """Return "file:line:column (pointer)" with what is known of it; "" without a location."""
    place = finding.location
    if place is None:
        return ""
    where = ":".join(str(part) for part in (place.file, place.line, place.column if place.line is not None else None) if part is not None)
    return f"{where} ({place.pointer})" if place.pointer else where


def parts(finding: Finding, place: bool = True) -> tuple[tuple[str, str], ...]:
    """Return what follows the message as (label, text): At, Cause and Fix, those that the finding has. Without `place`, At is left out."""
    known = (("At", place_of(finding) if place else ""), ("Cause", finding.cause or ""), ("Fix", finding.fix or ""))
    return tuple((label, text) for label, text in known if text)
