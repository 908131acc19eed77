"""`llmdoctor check`: walks a tree, gives each thing in it to the job whose rules fit, and adds up what they find."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import typer

from llmdoctor.cli.output import REFUSED, Color, FailOn, answer, complain, write_file
from llmdoctor.core import baseline
from llmdoctor.core.diagnostic import Diagnostic, Severity
from llmdoctor.core.document import Block, Fold, Note, Tone, Verdict
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.settings import Settings, load_settings
from llmdoctor.core.text import plural
from llmdoctor.modeldir.tree import Folder, Walk

CODE = (".py", ".ipynb")
_MODEL_FILES = frozenset({"generation_config.json", "tokenizer_config.json", "adapter_config.json", "model.safetensors.index.json"})
_MODEL_MARKS = (b'"model_type"', b'"architectures"')
_HEAD = 2**16
_CHUNK = 64  # Python files a worker takes at a time
_SHOWN = 40  # findings that a person is shown in full
_TONES: dict[Severity, Tone] = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}


@dataclass(slots=True)
class Subject:
    """One thing that was checked; `more` is what else its job says of it in a report."""

    path: str
    kind: str
    findings: tuple[Diagnostic, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What a walk has found, by the job that checks it: paths of model directories and of code."""

    models: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


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
    found = _find(paths, settings)
    subjects, skipped = _check(found, settings.transformers)
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
        result={"subjects": list(_entries(subjects)), "in_baseline": old},
        findings=tuple(each for subject in subjects for each in subject.findings),
        skipped=(*found.skipped, *skipped),
        document=_document(paths, subjects, old),
        nothing=not subjects,
        told=True,
    )


# --- what is there -------------------------------------------------------------------------------------------------------------------


def _find(paths: list[str], settings: Settings) -> Found:
    found = Found()
    for path in paths:
        if os.path.isdir(path):
            walk = Walk(path, settings.exclude, settings.root)
            for folder in walk.folders():
                _sort(folder, found)
            found.skipped += walk.skipped
        elif os.path.exists(path):
            _sort(Folder(os.path.dirname(path), (os.path.basename(path),)), found)
        else:
            raise QuestionError(f"{path}: no such file or directory")
    return found


def _sort(folder: Folder, found: Found) -> None:
    names = frozenset(folder.files)
    if names & _MODEL_FILES or ("config.json" in names and _is_model(os.path.join(folder.path, "config.json"))):
        found.models.append(folder.path or ".")
    for name in folder.files:
        path = os.path.normpath(os.path.join(folder.path, name))
        if name.endswith(CODE):
            found.code.append(path)


def _is_model(path: str) -> bool:
    """Whether a config.json is a model's: many programs have one."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return any(mark in head for mark in _MODEL_MARKS)


# --- what is wrong with it -----------------------------------------------------------------------------------------------------------


def _check(found: Found, version: str | None) -> tuple[list[Subject], list[Skipped]]:
    """Code goes to as many processes as there are cores while this one looks at the rest."""
    chunks = [found.code[start : start + _CHUNK] for start in range(0, len(found.code), _CHUNK)]
    if len(chunks) <= 1:
        return _put_together(list(_models(found.models, version)), [check_code(chunk) for chunk in chunks])
    with ProcessPoolExecutor(min(len(chunks), os.cpu_count() or 1)) as pool:
        running = pool.map(check_code, chunks)
        return _put_together(list(_models(found.models, version)), list(running))


def _put_together(models: list[Subject], code: list[tuple[list[Subject], list[Skipped]]]) -> tuple[list[Subject], list[Skipped]]:
    return [*models, *(subject for chunk, _ in code for subject in chunk)], [skipped for _, chunk in code for skipped in chunk]


def _models(paths: list[str], version: str | None) -> Iterator[Subject]:
    if not paths:
        return
    from llmdoctor.gencfg.check import check_directory
    from llmdoctor.modeldir.template import TemplateWorker

    with TemplateWorker() as worker:
        worker.start()
        for path in paths:
            checked = check_directory(path, worker, version)
            yield Subject(path, checked.kind, checked.findings, checked.more)


def check_code(paths: list[str]) -> tuple[list[Subject], list[Skipped]]:
    """Python files and notebooks, in a worker process."""
    from llmdoctor.callsites.check import check_file

    subjects, skipped = [], []
    for path in paths:
        try:
            subjects.append(Subject(path, "notebook" if path.endswith(".ipynb") else "python", check_file(path)))
        except QuestionError as error:
            skipped.append(Skipped(path, str(error)))
    return subjects, skipped


# --- what is said of it --------------------------------------------------------------------------------------------------------------


def _entries(subjects: list[Subject]) -> Iterator[dict[str, Any]]:
    start = 0
    for subject in subjects:
        end = start + len(subject.findings)
        yield {"path": subject.path, "kind": subject.kind, "findings": list(range(start, end)), **subject.more}
        start = end


def _file(finding: Diagnostic) -> str | None:
    return None if finding.location is None else finding.location.file


def _document(paths: list[str], subjects: list[Subject], old: int) -> tuple[Block, ...]:
    if not subjects:
        return (Verdict("NOTHING TO CHECK: no model directory and no Python here", "warn"),)
    findings = [each for subject in subjects for each in subject.findings]
    counts = [plural(sum(each.severity is severity for each in findings), name) for severity, name in _WORDS]
    worst = max((each.severity for each in findings), key=lambda severity: severity.rank, default=None)
    kinds = Counter(subject.kind for subject in subjects)
    looked = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    blocks: list[Block] = [
        Verdict(
            f"{', '.join(paths)}: {', '.join(counts)}", "good" if worst is None else _TONES[worst] if worst is not Severity.INFO else "good"
        ),
        Note("LOOKED AT", looked, "dim"),
    ]
    if old:
        blocks.append(Note("BASELINE", f"{plural(old, 'finding')} known and not told", "dim"))
    serious = [each for each in findings if each.severity is not Severity.INFO]
    for finding in sorted(serious, key=lambda each: -each.severity.rank)[:_SHOWN]:
        blocks.append(_told(finding))
    if len(serious) > _SHOWN:
        blocks.append(Fold("", instead=(Note("MORE", f"{len(serious) - _SHOWN} findings not shown: --format json has them all", "dim"),)))
    notes = len(findings) - len(serious)
    if notes:
        blocks.append(Fold("", instead=(Note("NOTES", f"{plural(notes, 'note')} not shown: --format json has them", "dim"),)))
    if serious:
        blocks.append(Note("NEXT", f"llmdoctor rule {serious[0].code}"))
    return tuple(blocks)


_WORDS = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))


def _told(finding: Diagnostic) -> Note:
    lines = [f"{finding.location}: {finding.message}" if finding.location else finding.message]
    lines += [f"fix: {finding.fix}"] if finding.fix else []
    return Note(finding.code, "\n".join(lines), _TONES[finding.severity])
