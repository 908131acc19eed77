"""The screen of `check`: how many findings there are, and what was checked. The renderer places the findings below."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from llmdoctor.check.subjects import Subject
from llmdoctor.core.document import Block, Note
from llmdoctor.core.finding import Severity
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural

_NOUNS = {
    "training arguments": "file of training arguments",
    "model": "model directory",
    "adapter": "adapter directory",
    "tokenizer": "tokenizer directory",
    "python": "Python file",
}
_SHOWN = 8  # releases on the screen
_WORDS = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))


def subject_entries(subjects: Sequence[Subject]) -> Iterator[dict[str, Any]]:
    """Yield `result.subjects`, each with the indices of its findings."""
    start = 0
    for subject in subjects:
        end = start + len(subject.findings)
        yield {"path": subject.path, "kind": subject.kind, "findings": list(range(start, end)), **_versions(subject), **subject.more}
        start = end


def _versions(subject: Subject) -> dict[str, Any]:
    return {"versions": [one.result() for one in subject.versions]} if subject.versions else {}


def verdict(paths: Sequence[str], subjects: Sequence[Subject], unread: int) -> Verdict:
    """Return the number of findings of each severity, and how many files could not be checked (`unread`)."""
    limit = f"; {plural(unread, 'file')} could not be checked" if unread else ""
    limit += "".join(f"; {clause}" for clause in _undecided(subjects))
    if not subjects:
        return Verdict(
            f"{_prefix(paths)}Nothing to check: no model directory, training configuration, request or Python file{limit}.", "undecided"
        )
    findings = [each for subject in subjects for each in subject.findings]
    counts = [plural(sum(each.severity is severity for each in findings), name) for severity, name in _WORDS]
    serious = any(each.severity is not Severity.INFO for each in findings)
    return Verdict(f"{_prefix(paths)}{', '.join(counts)}{limit}.", "problem" if serious else "ok")


def document(subjects: Sequence[Subject], old: int) -> tuple[Block, ...]:
    """Return the blocks below the verdict; `old` findings are accepted by the baseline."""
    if not subjects:
        return ()
    kinds = Counter(subject.kind for subject in subjects)
    looked = ", ".join(plural(count, _NOUNS.get(kind, kind)) for kind, count in sorted(kinds.items()))
    blocks: list[Block] = [Note("Checked", looked, "dim")]
    blocks += _releases(subjects)
    if old:
        blocks.append(Note("Baseline", f"{plural(old, 'finding')} accepted and not shown", "dim"))
    findings = [each for subject in subjects for each in subject.findings]
    findings.sort(key=lambda each: -each.severity.rank)
    blocks += findings
    if findings:
        blocks.append(Note("Next", f"llmdoctor rule {findings[0].code} explains the rule"))
    return tuple(blocks)


def with_baseline(report: Report, path: str) -> tuple[Block, ...]:
    """Return the document of a report whose findings were written to the baseline `path`; the next step is to use it."""
    written = Note("Baseline", f"{plural(len(report.findings), 'finding')} written to {path}, accepted from now on")
    kept = [block for block in report.document if not (isinstance(block, Note) and block.label == "Next")]
    return (written, *kept, Note("Next", f"llmdoctor check --baseline {shlex.quote(path)} reports only what is new"))


def _undecided(subjects: Sequence[Subject]) -> list[str]:
    """Return a clause for each library whose pins contradict each other, or whose release is not known."""
    return list(dict.fromkeys(doubt for subject in subjects for one in subject.versions for doubt in one.doubts))


def _releases(subjects: Sequence[Subject]) -> list[Block]:
    """Return the note on the releases that the findings are for: those of transformers and DeepSpeed, and of other libraries if they are pinned."""
    found = (
        one for subject in subjects for one in subject.versions if one.library in ("transformers", "deepspeed") or one.basis == "pinned"
    )
    lines = list(dict.fromkeys(f"{one.title} {one.version}, {one.how}" for one in found))
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [Note("Rules", "\n".join([*lines[:_SHOWN], *more]), "dim")] if lines else []


def _prefix(paths: Sequence[str]) -> str:
    """Return what was asked about, in short: pre-commit names every file of a commit."""
    return "" if tuple(paths) == (".",) else f"{', '.join(paths)}: " if len(paths) <= 3 else f"{len(paths)} paths: "
