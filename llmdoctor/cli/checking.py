"""`llmdoctor check`: walks a tree, gives each thing in it to the job whose rules fit, and adds up what they find."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core import baseline
from llmdoctor.core.diagnostic import Diagnostic, Severity
from llmdoctor.core.document import Block, Note, Tone, Verdict
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.settings import Settings
from llmdoctor.core.text import plural
from llmdoctor.modeldir.tree import Folder, Walk

CODE = (".py", ".ipynb")
SETTINGS = (".json", ".yaml", ".yml")
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
    """What a walk has found, by the job that checks it: paths of model directories, of code, and of settings and request files."""

    models: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def check_report(paths: list[str], settings: Settings, accepted: str | None, version: str | None) -> Report:
    """Every static rule over everything in `paths`; findings in the baseline file `accepted` are counted, not told.

    Raises QuestionError where a path or the baseline is not there.
    """
    known = Counter[str]() if accepted is None else baseline.read(accepted)
    found = _find(paths, settings)
    subjects, skipped = _check(found, version or settings.transformers)
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if settings.wants(each.code, _file(each) or subject.path))
    new, old = baseline.split((each for subject in subjects for each in subject.findings), known, settings.root)
    told = set(map(id, new))
    for subject in subjects:
        subject.findings = tuple(each for each in subject.findings if id(each) in told)
    return Report(
        "check",
        subject={"paths": paths, "settings": settings.source, "baseline": accepted},
        result={"subjects": list(_entries(subjects)), "in_baseline": old},
        findings=tuple(each for subject in subjects for each in subject.findings),
        skipped=(*found.skipped, *skipped),
        document=_document(paths, subjects, old, found.skipped + skipped),
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
        elif name.endswith(SETTINGS) and name not in _MODEL_FILES:
            found.settings.append(path)


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
        code = [check_code(chunk) for chunk in chunks]
        return _put_together(list(_models(found.models, version)), list(_settings(found.settings)), code)
    with ProcessPoolExecutor(min(len(chunks), os.cpu_count() or 1)) as pool:
        running = pool.map(check_code, chunks)
        models, settings = list(_models(found.models, version)), list(_settings(found.settings))
        return _put_together(models, settings, list(running))


def _put_together(
    models: list[Subject], settings: list[Subject], code: list[tuple[list[Subject], list[Skipped]]]
) -> tuple[list[Subject], list[Skipped]]:
    subjects = [*models, *settings, *(subject for chunk, _ in code for subject in chunk)]
    return subjects, [skipped for _, chunk in code for skipped in chunk]


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


def _settings(paths: list[str]) -> Iterator[Subject]:
    return iter(())


def check_code(paths: list[str]) -> tuple[list[Subject], list[Skipped]]:
    """Python files and notebooks, in a worker process."""
    return [], []


# --- what is said of it --------------------------------------------------------------------------------------------------------------


def _entries(subjects: list[Subject]) -> Iterator[dict[str, Any]]:
    start = 0
    for subject in subjects:
        end = start + len(subject.findings)
        yield {"path": subject.path, "kind": subject.kind, "findings": list(range(start, end)), **subject.more}
        start = end


def _file(finding: Diagnostic) -> str | None:
    return None if finding.location is None else finding.location.file


def _document(paths: list[str], subjects: list[Subject], old: int, skipped: Iterable[Skipped]) -> tuple[Block, ...]:
    if not subjects:
        return (Verdict("NOTHING TO CHECK: no model directory, no settings that are known here, no Python", "warn"),)
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
        blocks.append(Note("MORE", f"{len(serious) - _SHOWN} findings not shown: --format json has them all", "dim"))
    notes = len(findings) - len(serious)
    if notes:
        blocks.append(Note("NOTES", f"{plural(notes, 'note')} not shown: --format json has them", "dim"))
    if serious:
        blocks.append(Note("NEXT", f"llmdoctor rule {serious[0].code}"))
    return tuple(blocks)


_WORDS = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))


def _told(finding: Diagnostic) -> Note:
    lines = [f"{finding.location}: {finding.message}" if finding.location else finding.message]
    lines += [f"fix: {finding.fix}"] if finding.fix else []
    return Note(finding.code, "\n".join(lines), _TONES[finding.severity])
