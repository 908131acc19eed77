"""`check --fix`: the edits of findings, tried on a copy before a file is changed.

A fix is kept only if, with its edits made, its finding is gone and no finding of the tree is new. The copy is in memory: while a fix is tried,
the reader of files returns the edited text instead of the one on the disk.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmdoctor.check.options import CheckOptions
from llmdoctor.check.results import FixedPlace
from llmdoctor.core.document import Note
from llmdoctor.core.edit import Edit
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Skipped
from llmdoctor.files.jsonfile import read_optional
from llmdoctor.files.opening import reading_instead
from llmdoctor.files.rewrite import rewrite
from llmdoctor.files.writing import rewrite_file

_ROUNDS = 8  # a fix may uncover a finding that has a fix of its own
_SINGLE_TRIALS = 40  # fixes that are tried one by one after they failed together


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FixedFile:
    """A file before and after its edits."""

    path: str
    before: str
    after: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Trial:
    """Fixes that hold together: the files as they would be, the report about them, and what was left alone with the reason."""

    files: Mapping[str, FixedFile]
    report: Report
    skipped: tuple[Skipped, ...] = ()

    def changed(self) -> tuple[FixedFile, ...]:
        """Return the files whose text changes, by path."""
        return tuple(file for _, file in sorted(self.files.items()) if file.before != file.after)


def count_fixable(report: Report) -> Report:
    """Return `report` with the number of findings that --fix would try to remove."""
    fixable = [each for each in report.findings if each.edits]
    safe = sum(map(_is_safe, fixable))
    unsafe = len(fixable) - safe
    result = {**(report.result or {}), "fixable": {"safe": safe, "unsafe": unsafe}}
    said = [f"{safe} with --fix"] if safe else []
    said += [f"{unsafe} with --fix --unsafe-fixes"] if unsafe else []
    blocks = list(report.document)
    if said:
        last = bool(blocks) and isinstance(blocks[-1], Note) and blocks[-1].label == "Next"
        blocks.insert(len(blocks) - last, Note("Fixable", f"{', '.join(said)}; --diff shows the changes", "dim"))
    return replace(report, result=result, document=tuple(blocks))


def apply_fixes(run: Callable[[], Report], options: CheckOptions) -> Report:
    """Make the edits that pass their trial in the files, and return the report about what is left. `run` checks the tree once.

    Raises QuestionError if a file cannot be written or has changed since it was read; the sentence names the files that were changed before.
    """
    trial = try_fixes(run, options)
    changed = trial.changed()
    _write(changed)
    left = run() if changed else trial.report
    made: list[FixedPlace] = [
        {"file": file.path, "pointer": edit.pointer, "action": edit.action} for file in changed for edit in file.edits
    ]
    note = [Note("Fixed", "\n".join(f"{file.path}: {', '.join(edit.pointer for edit in file.edits)}" for file in changed), "good")]
    return replace(
        left,
        result={**(left.result or {}), "fixed": made},
        skipped=(*left.skipped, *trial.skipped),
        document=(*(note if changed else []), *left.document),
    )


def _write(files: Sequence[FixedFile]) -> None:
    for number, file in enumerate(files):
        try:
            rewrite_file(Path(file.path), file.before.encode("utf-8"), file.after.encode("utf-8"))
        except QuestionError as error:
            done, rest = (", ".join(other.path for other in part) for part in (files[:number], files[number + 1 :]))
            written = f". Changed before that: {done}" if done else ". No file was changed"
            raise QuestionError(f"{error}{written}{f'; not changed: {rest}' if rest else ''}") from None


def try_fixes(run: Callable[[], Report], options: CheckOptions) -> Trial:
    """Return the fixes that pass their trial, none of them written. A fix that fails is skipped with its reason."""
    trial = Trial({}, run())
    refused: dict[str, Skipped] = {}
    for _ in range(_ROUNDS):
        fixes = [each for each in _fixes(trial.report, options, refused) if _key(each) not in refused]
        if not fixes:
            break
        together = _tried(run, trial, fixes, options)
        if together is not None:
            trial = together
            continue
        for number, each in enumerate(fixes):
            alone = _tried(run, trial, [each], options) if number < _SINGLE_TRIALS else None
            if alone is None:
                why = "the finding remains or another one appears" if number < _SINGLE_TRIALS else f"{_SINGLE_TRIALS} fixes were tried"
                refused[_key(each)] = Skipped(_place(each), f"{each.code} not fixed: {why}")
            trial = alone or trial
    return replace(trial, skipped=tuple(refused.values()))


def _fixes(report: Report, options: CheckOptions, refused: dict[str, Skipped]) -> Iterator[Finding]:
    """Yield the findings whose edits may be made, the worst first; note the others in `refused`. No two of them change one place differently."""
    values: dict[tuple[str, str], str] = {}
    for finding in sorted(report.findings, key=lambda each: -each.severity.rank):
        edits = _allowed(finding, options.unsafe_fixes)
        if not edits or _key(finding) in refused:
            continue
        reason = next((reason for edit in edits if (reason := _untouchable(edit.file, options.paths))), None)
        if reason is not None:
            refused[_key(finding)] = Skipped(_place(finding), f"{finding.code} not fixed: {reason}")
            continue
        changes = {(edit.file, edit.pointer): f"{edit.action} {edit.value!r}" for edit in edits if edit.action != "last"}
        if all(values.get(place, change) == change for place, change in changes.items()):
            values |= changes
            yield finding  # else: the next round has a fix for what this round leaves


def _allowed(finding: Finding, unsafe: bool) -> tuple[Edit, ...]:
    """Return the edits of a fix if all of them may be made: a part of a fix does not remove its finding."""
    return finding.edits if unsafe or _is_safe(finding) else ()


def _is_safe(finding: Finding) -> bool:
    return all(edit.safe for edit in finding.edits)


def _untouchable(file: str, paths: Sequence[str]) -> str | None:
    """Return why `file` is not edited; None if it may be."""
    if os.path.islink(file):
        return f"{file} is a link, and other programs may use the file that it leads to"
    real = os.path.realpath(file)
    inside = any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in map(os.path.realpath, paths))
    return None if inside else f"{file} is not in {' or '.join(paths[:3])}"


def _tried(run: Callable[[], Report], trial: Trial, fixes: Sequence[Finding], options: CheckOptions) -> Trial | None:
    """Return `trial` with `fixes` made as well; None if one of their findings remains, or the tree has a new one."""
    files = dict(trial.files)
    for finding in fixes:
        for path in dict.fromkeys(edit.file for edit in finding.edits):
            file = files.get(path) or _opened(path)
            if file is None:
                return None
            after, made = rewrite(file.after, tuple(edit for edit in _allowed(finding, options.unsafe_fixes) if edit.file == path))
            files[path] = replace(file, after=after, edits=(*file.edits, *made))
    with reading_instead({file.path: file.after.encode("utf-8") for file in files.values()}):
        report = run()
    before, after_all = _counted(trial.report.findings), _counted(report.findings)
    new = after_all - before
    serious = {_kind(finding) for finding in report.findings if finding.severity is not Severity.INFO}  # a note is no fault
    if serious & new.keys() or any(after_all[place] >= before[place] for place in map(_kind, fixes)):
        return None
    return Trial(files, report)


def _opened(path: str) -> FixedFile | None:
    file = read_optional(path)
    return None if file is None or file.value is None else FixedFile(path, file.text, file.text, ())


def _counted(findings: Sequence[Finding]) -> Counter[tuple[str, str, str]]:
    return Counter(map(_kind, findings))


def _kind(finding: Finding) -> tuple[str, str, str]:
    """Return what a finding is known by in two reports: its rule, file and pointer. Lines move, and a message may quote another value."""
    place = finding.location
    return (finding.code, "", "") if place is None else (finding.code, place.file, place.pointer or "")


def _key(finding: Finding) -> str:
    return " ".join((*_kind(finding), finding.message))


def _place(finding: Finding) -> str:
    return "a finding without a place" if finding.location is None else str(finding.location)
