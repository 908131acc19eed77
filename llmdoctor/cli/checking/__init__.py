"""`llmdoctor check`: walks a tree, gives each thing in it to the job whose rules fit, and adds up what they find."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import typer

from llmdoctor.cli.checking.code import beside
from llmdoctor.cli.checking.find import find
from llmdoctor.cli.checking.screen import document, entries
from llmdoctor.cli.checking.subjects import Checker
from llmdoctor.cli.output import REFUSED, Color, FailOn, answer, complain, write_file
from llmdoctor.core import baseline
from llmdoctor.core.diagnostic import Diagnostic
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.core.settings import Settings, load_settings


def run_check(
    paths: list[str],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    baselines: tuple[str | None, str | None],
    formats: list[str] | None,
    fail_on: FailOn | None,
    color: Color,
) -> NoReturn:
    """The command: settings from pyproject.toml, over them the command line's, and the baseline to read or to write."""
    accepted, written = baselines
    try:
        start = paths[0] if os.path.isdir(paths[0]) else os.path.dirname(paths[0])
        settings = load_settings(start)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    settings = replace(settings, select=select or settings.select, ignore=(*settings.ignore, *ignore))
    if accepted is None and written is None and settings.baseline is not None:
        accepted = os.path.join(settings.root, settings.baseline)

    def build() -> Report:
        report = check_report(paths, settings, accepted)
        if written is not None:
            write_file(Path(written), baseline.text(report.findings))
        return report

    default = None if settings.fail_on is None else FailOn(settings.fail_on)
    answer(build, "check", formats, FailOn.NEVER if written is not None else fail_on or default, color)


def check_report(paths: list[str], settings: Settings, accepted: str | None) -> Report:
    """Every static rule over everything in `paths`; findings in the baseline file `accepted` are counted, not told.

    Raises QuestionError where a path or the baseline is not there.
    """
    known = frozenset[str]() if accepted is None else baseline.read(accepted)
    found = find(paths, settings)
    checker = Checker(found, settings)
    others, code, skipped = beside(found.code, checker.subjects)
    subjects = [*others, *code]
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if settings.wants(each.code, _file(each) or subject.path))
    every = [each for subject in subjects for each in subject.findings]
    told = set(map(id, baseline.unknown(every, known)))
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if id(each) in told)
    old = len(every) - len(told)
    return Report(
        "check",
        subject={"paths": paths, "settings": settings.source, "baseline": accepted},
        result={"subjects": list(entries(subjects)), "in_baseline": old},
        findings=tuple(each for subject in subjects for each in subject.findings),
        skipped=(*found.skipped, *checker.skipped, *skipped),
        document=document(paths, subjects, old),
        nothing=not subjects,
        told=True,
    )


def _file(finding: Diagnostic) -> str | None:
    return None if finding.location is None else finding.location.file
