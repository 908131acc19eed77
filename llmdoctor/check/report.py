"""`llmdoctor check`: walks a tree, gives each thing in it to the job whose rules fit, and adds up what they find."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Any

from llmdoctor.check.code import beside
from llmdoctor.check.find import find
from llmdoctor.check.screen import document, entries
from llmdoctor.check.subjects import Checker
from llmdoctor.core import baseline
from llmdoctor.core.document import Headline, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report
from llmdoctor.core.settings import Settings
from llmdoctor.files.jsonfile import read_json_file
from llmdoctor.files.project import load_settings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CheckOptions:
    """What `check` is asked for. `diff` and `show_settings` replace the report; with `allow_nothing`, nothing to check is no failure."""

    paths: tuple[str, ...] = (".",)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    baseline: str | None = None
    write_baseline: str | None = None
    fix: bool = False
    unsafe_fixes: bool = False
    diff: bool = False
    show_settings: bool = False
    allow_nothing: bool = False


def read_settings(options: CheckOptions) -> Settings:
    """The settings where one stands, if what is asked about lies there, else those nearest to it; over them the command line's."""
    from llmdoctor.rules import code_prefixes

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


def accepted_baseline(options: CheckOptions, settings: Settings) -> str | None:
    """The baseline to read: none where one is written."""
    if options.baseline is not None or options.write_baseline is not None or settings.baseline is None:
        return options.baseline
    return os.path.join(settings.root, settings.baseline)


def settings_report(settings: Settings, accepted: str | None, fail_on: str | None) -> Report:
    """What a check here would go by, and where each setting is from."""
    from llmdoctor.gencfg.calls import default_version

    values: dict[str, Any] = {
        "select": list(settings.select),
        "ignore": list(settings.ignore),
        "exclude": list(settings.exclude),
        "fail-on": fail_on or "error",
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
        document=(Headline(f"SETTINGS: {where}"), Table(("setting", "value"), rows)),
    )


def check_report(paths: list[str], settings: Settings, accepted: str | None, notes: bool = False) -> Report:
    """Every static rule over everything in `paths`; findings in the baseline file `accepted` are counted, not told; `notes` are shown to a person.

    Raises QuestionError where a path or the baseline is not there.
    """
    known = frozenset[str]() if accepted is None else _accepted(accepted)
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


def _accepted(path: str) -> frozenset[str]:
    """Return the fingerprints in the baseline file `path`. Raises QuestionError if it cannot be read or is not a baseline."""
    file = read_json_file(path)
    if file.value is None and file.problems:
        raise QuestionError(f"--baseline {path}: {file.problems[0].message}")
    return baseline.known_in(file.value, path)


def _file(finding: Finding) -> str | None:
    return None if finding.location is None else finding.location.file
