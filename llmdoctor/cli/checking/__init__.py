"""`llmdoctor check`: walks a tree, gives each thing in it to the job whose rules fit, and adds up what they find."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import typer

from llmdoctor.cli.checking.code import beside
from llmdoctor.cli.checking.find import find
from llmdoctor.cli.checking.screen import document, entries
from llmdoctor.cli.checking.subjects import Checker
from llmdoctor.cli.fixing import diff, mend, with_fixable
from llmdoctor.cli.main import INTERRUPTED
from llmdoctor.cli.output import FOUND, NOTHING, REFUSED, Color, FailOn, answer, complain, write_file
from llmdoctor.core import baseline
from llmdoctor.core.diagnostic import Diagnostic
from llmdoctor.core.document import Table, Verdict
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.core.settings import Settings, load_settings


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Do:
    """What `check` is to do besides finding: `diff` and `show_settings` do it instead. With `allow_nothing` nothing to check is no failure."""

    fix: bool = False
    unsafe_fixes: bool = False
    diff: bool = False
    show_settings: bool = False
    allow_nothing: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Options:
    """What the command line says."""

    paths: list[str]
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    baseline: str | None
    write_baseline: str | None
    do: Do


def run_check(options: Options, formats: list[str] | None, fail_on: FailOn | None, color: Color) -> NoReturn:
    """The command: settings from pyproject.toml, over them the command line's, and the baseline to read or to write."""
    do, written = options.do, options.write_baseline
    try:
        _refuse_idle(options, formats)
        settings = _settings(options)
        accepted = _accepted(options, settings)
    except QuestionError as error:
        refused = error
        answer(lambda: _raise(refused), "check", formats, fail_on, color)
    fail_on = fail_on or (FailOn(settings.fail_on) if settings.fail_on is not None else None)

    def check() -> Report:
        return check_report(options.paths, settings, accepted, notes=fail_on is FailOn.INFO)

    def build() -> Report:
        report = with_fixable(mend(check, do.unsafe_fixes) if do.fix else check())
        if written is not None:
            write_file(Path(written), baseline.text(report.findings, os.path.dirname(written)))
        return replace(report, nothing=report.nothing and not do.allow_nothing)

    if do.show_settings:
        answer(lambda: settings_report(settings, accepted, fail_on), "check", formats, None, color)
    if do.diff:
        _print_diff(check, do.unsafe_fixes)
    answer(build, "check", formats, FailOn.NEVER if written is not None else fail_on, color)


def _raise(error: QuestionError) -> NoReturn:
    raise error


def _refuse_idle(options: Options, formats: list[str] | None) -> None:
    """Raise QuestionError for an option that would do nothing beside the others."""
    do = options.do
    if do.unsafe_fixes and not (do.fix or do.diff):
        raise QuestionError("--unsafe-fixes does nothing without --fix or --diff")
    if do.diff and formats:
        raise QuestionError("--diff writes a patch and takes no --format")
    if do.diff and (do.fix or options.write_baseline is not None):
        raise QuestionError("--diff writes nothing: it does not go with --fix or --write-baseline")
    if options.baseline is not None and options.write_baseline is not None:
        raise QuestionError("--write-baseline writes down all that is found: it does not go with --baseline")


def _settings(options: Options) -> Settings:
    """The settings where one stands, if what is asked about lies there, else those nearest to it; over them the command line's."""
    from llmdoctor.cli.catalogue import code_prefixes

    places = [os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path) or ".") for path in options.paths]
    here = os.getcwd()
    settings = Settings()
    if all(place == here or place.startswith(here + os.sep) for place in places):
        settings = load_settings(here)
    if settings.source is None:
        settings = load_settings(os.path.commonpath(places))
    where = f"{settings.source}: [tool.llmdoctor]"
    if settings.transformers is not None:
        from llmdoctor.gencfg.versions import parse

        parse(settings.transformers)
    return replace(
        settings,
        select=code_prefixes(options.select, "--select") or code_prefixes(settings.select, f"{where} select"),
        ignore=(*code_prefixes(settings.ignore, f"{where} ignore"), *code_prefixes(options.ignore, "--ignore")),
        per_path={glob: code_prefixes(codes, f"{where} per-path-ignores.{glob}") for glob, codes in settings.per_path.items()},
    )


def _accepted(options: Options, settings: Settings) -> str | None:
    """The baseline to read: none where one is written."""
    if options.baseline is not None or options.write_baseline is not None or settings.baseline is None:
        return options.baseline
    return os.path.join(settings.root, settings.baseline)


def _print_diff(check: Callable[[], Report], unsafe: bool) -> NoReturn:
    """The patch and exit 1, or nothing and exit 0; 3 where there was nothing to check."""
    try:
        report = check()
        patch, skipped = diff(report, unsafe)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    for one in skipped:
        complain(f"{one.what}: {one.reason}")
    sys.stdout.write(patch)
    raise typer.Exit(FOUND if patch else NOTHING if report.nothing else 0)


def settings_report(settings: Settings, accepted: str | None, fail_on: FailOn | None) -> Report:
    """What a check here would go by, and where each setting is from."""
    from llmdoctor.gencfg.question import default_version

    values: dict[str, Any] = {
        "select": list(settings.select),
        "ignore": list(settings.ignore),
        "exclude": list(settings.exclude),
        "fail-on": "error" if fail_on is None else fail_on.value,
        "baseline": accepted,
        "transformers": settings.transformers or default_version(),
        "gpu-memory": settings.gpu_memory,
        "per-path-ignores": {glob: list(codes) for glob, codes in settings.per_path.items()},
    }
    rows = tuple((name, json.dumps(value)) for name, value in values.items())
    where = settings.source or "no pyproject.toml with [tool.llmdoctor] here or above: the defaults"
    return Report(
        "check",
        subject={"settings": settings.source},
        result={"subjects": [], "settings": values},
        document=(Verdict(f"SETTINGS: {where}"), Table(("setting", "value"), rows)),
    )


def check_report(paths: list[str], settings: Settings, accepted: str | None, notes: bool = False) -> Report:
    """Every static rule over everything in `paths`; findings in the baseline file `accepted` are counted, not told; `notes` are shown to a person.

    Raises QuestionError where a path or the baseline is not there.
    """
    known = frozenset[str]() if accepted is None else baseline.read(accepted)
    found = find(paths, settings)
    checker = Checker(found, settings)
    others, code = beside(found.code, checker.subjects)
    checker.launched(code.configs)
    subjects = [*others, *code.subjects]
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if settings.wants(each.code, _file(each) or subject.path))
    every = [each for subject in subjects for each in subject.findings]
    told = set(map(id, baseline.unknown(every, known, os.path.dirname(accepted or ""))))
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if id(each) in told)
    old = len(every) - len(told)
    return Report(
        "check",
        subject={"paths": paths, "settings": settings.source, "baseline": accepted},
        result={"subjects": list(entries(subjects)), "in_baseline": old},
        findings=tuple(each for subject in subjects for each in subject.findings),
        skipped=(*found.skipped, *checker.skipped, *code.skipped),
        document=document(paths, subjects, old, notes),
        nothing=not subjects,
        told=True,
    )


def _file(finding: Diagnostic) -> str | None:
    return None if finding.location is None else finding.location.file
