"""What a person is told of a whole tree: the counts, what was looked at, the worst findings in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llmdoctor.check.subjects import Subject
from llmdoctor.core.document import Block, Fold, Headline, Note, Tone
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.text import plural

_SHOWN = 40  # findings that a person is shown in full
_TONES: dict[Severity, Tone] = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}


def entries(subjects: list[Subject]) -> Iterator[dict[str, Any]]:
    """The subjects as a report's result has them, with the numbers of their findings."""
    start = 0
    for subject in subjects:
        end = start + len(subject.findings)
        yield {"path": subject.path, "kind": subject.kind, "findings": list(range(start, end)), **subject.more}
        start = end


def document(paths: list[str], subjects: list[Subject], old: int, notes: bool = False) -> tuple[Block, ...]:
    """The screen; `old` findings are known from the baseline; notes are shown in full only where they count (`notes`)."""
    if not subjects:
        return (Headline("NOTHING TO CHECK: no model directory, training configuration, request or Python here", "warn"),)
    findings = [each for subject in subjects for each in subject.findings]
    counts = [plural(sum(each.severity is severity for each in findings), name) for severity, name in _WORDS]
    worst = max((each.severity for each in findings), key=lambda severity: severity.rank, default=None)
    kinds = Counter(subject.kind for subject in subjects)
    looked = ", ".join(plural(count, _NOUNS.get(kind, kind)) for kind, count in sorted(kinds.items()))
    blocks: list[Block] = [
        Headline(
            f"{_asked(paths)}{', '.join(counts)}", "good" if worst is None else _TONES[worst] if worst is not Severity.INFO else "good"
        ),
        Note("LOOKED AT", looked, "dim"),
    ]
    if old:
        blocks.append(Note("BASELINE", f"{plural(old, 'finding')} known and not told", "dim"))
    serious = [each for each in findings if notes or each.severity is not Severity.INFO]
    for finding in sorted(serious, key=lambda each: -each.severity.rank)[:_SHOWN]:
        blocks.append(_told(finding))
    if len(serious) > _SHOWN:
        blocks.append(Fold("", instead=(Note("MORE", f"{len(serious) - _SHOWN} findings not shown: --format json has them all", "dim"),)))
    left = len(findings) - len(serious)
    if left:
        blocks.append(Fold("", instead=(Note("NOTES", f"{plural(left, 'note')} not shown: --fail-on info shows them", "dim"),)))
    if serious:
        blocks.append(Note("NEXT", f"llmdoctor rule {serious[0].code}"))
    return tuple(blocks)


def _asked(paths: list[str]) -> str:
    """What was asked about, as far as it reads well: pre-commit names every file of a commit."""
    return "" if paths == ["."] else f"{', '.join(paths)}: " if len(paths) <= 3 else f"{len(paths)} paths: "


_NOUNS = {
    "training arguments": "file of training arguments",
    "model": "model directory",
    "adapter": "adapter directory",
    "tokenizer": "tokenizer directory",
    "python": "Python file",
}
_WORDS = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))


def _told(finding: Finding) -> Note:
    place = finding.location
    message = finding.message if place is None else finding.message.removeprefix(f"{place.file}: ")
    lines = [f"{place}: {message}" if place else message]
    lines += [f"fix: {finding.fix}"] if finding.fix else []
    return Note(finding.code, "\n".join(lines), _TONES[finding.severity])
