"""`llmdoctor check`: walks a tree, gives each thing in it to the job whose rules apply, and collects the findings."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llmdoctor.callsites.check import LIMIT
from llmdoctor.check.code import beside
from llmdoctor.check.fixing import apply_fixes, count_fixable
from llmdoctor.check.inventory import take_inventory
from llmdoctor.check.options import CheckOptions
from llmdoctor.check.results import CheckResult
from llmdoctor.check.screen import document, subject_entries, verdict, with_baseline
from llmdoctor.check.settings import accepted_baseline, read_settings
from llmdoctor.check.subjects import Checker, Subject
from llmdoctor.core import baseline
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Location
from llmdoctor.core.report import Report
from llmdoctor.files.jsonfile import read_json_file
from llmdoctor.files.opening import reading_instead
from llmdoctor.files.project import ProjectSettings
from llmdoctor.files.writing import write_file


def check_report(options: CheckOptions, settings: ProjectSettings | None = None) -> Report:
    """Return the findings of every static rule in `options.paths`.

    `settings` are those of the project, which are read if they are not given. With `options.fix` the files are changed first, and the report
    is about what is left. Raises QuestionError if a path or the baseline does not exist, or the options contradict each other.
    """
    options.refuse_contradictions()
    if options.stdin_filename is not None:
        return _unsaved(options, options.stdin_filename, settings)
    known = settings if settings is not None else read_settings(options)

    def run() -> Report:
        return check_once(options, known)

    report = apply_fixes(run, options) if options.fix else run()
    report = count_fixable(report)
    if options.write_baseline is not None:
        write_file(Path(options.write_baseline), baseline.text(report.findings, os.path.dirname(options.write_baseline)))
        report = replace(report, document=with_baseline(report, options.write_baseline))
    return replace(report, nothing=report.nothing and not options.allow_nothing)


def _unsaved(options: CheckOptions, name: str, settings: ProjectSettings | None) -> Report:
    """Return the report on the file `name` with the content of standard input; what lies beside it is read from the disk.

    Raises QuestionError if `name` is a folder, standard input is closed, or its content is larger than the largest file that is checked.
    """
    if os.path.isdir(name) or sys.stdin is None:
        reason = "standard input is closed" if sys.stdin is None else "is a folder, expected the name of a file"
        raise QuestionError(f"--stdin-filename {name}: {reason}")
    data = sys.stdin.buffer.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise QuestionError(f"--stdin-filename {name}: standard input has more than {LIMIT} bytes, at most so many are read")
    one = replace(options, paths=(name,), stdin_filename=None)
    with reading_instead({name: data}):
        return check_report(one, settings if settings is not None else read_settings(one))


def check_once(options: CheckOptions, settings: ProjectSettings) -> Report:
    """Return the report of one pass over the tree, in which nothing is changed."""
    accepted = accepted_baseline(options, settings)
    known = frozenset[str]() if accepted is None else _fingerprints(accepted)
    found = take_inventory(options.paths, settings)
    checker = Checker(found, settings)
    others, code = beside(found.code, checker.subjects)
    checker.add_launched(code.configs)
    subjects = [*others, *code.subjects]
    old = _select(subjects, settings, known, os.path.dirname(accepted or ""))
    unread = (*checker.skipped, *code.skipped)
    result: CheckResult = {"subjects": list(subject_entries(subjects)), "in_baseline": old}
    return Report(
        "check",
        subject={"paths": list(options.paths), "settings": settings.source, "baseline": accepted},
        result=result,
        findings=tuple(each for subject in subjects for each in subject.findings),
        skipped=(*found.skipped, *unread),
        verdict=verdict(options.paths, subjects, len(unread)),
        document=document(subjects, old),
        nothing=not subjects,
    )


def _select(subjects: Sequence[Subject], settings: ProjectSettings, known: frozenset[str], folder: str) -> int:
    """Remove from `subjects` the findings that are not selected, and those that are `known` from the baseline; return how many of these."""
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if settings.wants(each.code, _file(each.location) or subject.path))
    every = [each for subject in subjects for each in subject.findings]
    new = set(map(id, baseline.unknown(every, known, folder)))
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if id(each) in new)
    return len(every) - len(new)


def _fingerprints(path: str) -> frozenset[str]:
    """Return the fingerprints in the baseline file `path`. Raises QuestionError if it cannot be read or is not a baseline."""
    file = read_json_file(path)
    if file.value is None and file.problems:
        raise QuestionError(f"--baseline {path}: {file.problems[0].message}")
    return baseline.known_in(file.value, path)


def _file(place: Location | None) -> str | None:
    return None if place is None else place.file
