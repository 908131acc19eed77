"""`gencfg check`: rules over model directories, nothing loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.document import Block, Cell, Fold, Headline, Note, Table, Tone
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural
from llmdoctor.gencfg.directory_rules import Examined, judge
from llmdoctor.gencfg.options import Answer, Side, default_version, model_call, refuse_modelless
from llmdoctor.gencfg.resolve import resolve
from llmdoctor.gencfg.show import engine_line, name_tokens
from llmdoctor.gencfg.terminator import Messages, Terminator, find_terminator
from llmdoctor.gencfg.types import Effective
from llmdoctor.gencfg.vllm import effective_vllm
from llmdoctor.modeldir.directory import ModelDir, is_model_dir, read_model_dir
from llmdoctor.modeldir.template import TEMPLATE_RULES, Rendering, TemplateWorker, template_problem


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Subject:
    """One directory with its findings; `examined` is None where there is no model to make a call with."""

    directory: ModelDir
    kind: str
    findings: tuple[Finding, ...]
    examined: Examined | None


def check_report(paths: list[str], select: list[str], ignore: list[str], version: str | None) -> Report:
    """Every GEN and DIR rule over every directory in `paths`; a folder without a model of its own stands for its subfolders."""
    with TemplateWorker() as worker:
        worker.start()
        names, skipped = _expand(paths)
        subjects = [_keep(_subject(read_model_dir(name), worker, version or default_version()), select, ignore) for name in names]
    findings = [finding for subject in subjects for finding in subject.findings]
    return Report(
        "gencfg check",
        subject={"paths": paths, "transformers": version or default_version()},
        result={"subjects": list(_subjects(subjects))},
        findings=tuple(findings),
        skipped=tuple(skipped),
        document=_document(subjects),
        nothing=not subjects,
        told=True,
    )


def _expand(paths: list[str]) -> tuple[list[str], list[Skipped]]:
    """The directories to read; what is no model directory among a folder's subfolders is skipped by name."""
    names: list[str] = []
    skipped: list[Skipped] = []
    for path in paths:
        if not os.path.isdir(path) or is_model_dir(path):
            names.append(path)
            continue
        inside = _subfolders(path)
        if not inside:
            skipped.append(Skipped(path, "no config.json or tokenizer files in it, and no subfolders"))
        names += [entry for entry in inside if is_model_dir(entry)]
        skipped += [Skipped(entry, "no model files in it") for entry in inside if not is_model_dir(entry)]
    return list(dict.fromkeys(names)), skipped


def _subfolders(path: str) -> list[str]:
    try:
        return sorted(os.path.normpath(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        raise QuestionError(f"{path}: the directory cannot be read: {error.strerror or error}") from None


def _subject(directory: ModelDir, worker: TemplateWorker, version: str) -> Subject:
    terminator, template_problems = _terminator(directory, worker)
    problems = (*directory.problems(), *template_problems)
    if directory.config is None and directory.generation_config is None:
        return Subject(directory, "tokenizer", problems, None)
    if directory.config is not None and not isinstance(directory.config.value, dict):
        return Subject(directory, "model", problems, None)  # no call can be made of it, and the DIR finding says why
    examined = _examine(directory, terminator, version, lines=False)
    if examined.answer.effective.error is not None or examined.answer.effective.stop.never_stops:
        examined = _examine(directory, terminator, version, lines=True)
    return Subject(directory, "adapter" if directory.adapter else "model", (*problems, *judge(examined)), examined)


def examine(name: str, version: str | None = None) -> Examined:
    """What a plain generate() of one model comes to, and what ends an answer, as gencfg check looks at it.

    Raises QuestionError where there is no model to make a call of.
    """
    directory = read_model_dir(name)
    refuse_modelless(directory)
    with TemplateWorker() as worker:
        worker.start()
        terminator, _ = _terminator(directory, worker)
    return _examine(directory, terminator, version or default_version(), lines=True)


def _examine(directory: ModelDir, terminator: Terminator | None, version: str, *, lines: bool) -> Examined:
    call = model_call(directory, lines=lines)
    eos = directory.tokenizer.special("eos_token")
    answer = Answer(Side(directory.shown_name, transformers=version), directory.tokenizer, call, resolve(call, version))
    return Examined(directory, answer, effective_vllm(call, tokenizer_eos=None if eos is None else eos.id, max_model_len=None), terminator)


def _terminator(directory: ModelDir, worker: TemplateWorker) -> tuple[Terminator | None, tuple[Finding, ...]]:
    """What ends an answer, and what is wrong with the template (DIR008 its syntax, DIR009 its hunger)."""
    template = directory.chat_template
    if template is None:
        return None, ()
    failures: dict[str, Rendering] = {}

    def render(messages: Messages) -> str | None:
        rendering = worker.render(template, messages)
        if rendering.error in TEMPLATE_RULES:
            failures[rendering.error] = rendering
        return rendering.text

    terminator = find_terminator(render, directory.tokenizer.special_ids(), directory.tokenizer.id_of)
    return terminator, tuple(template_problem(template, failure) for failure in failures.values())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Checked:
    """One model directory's kind and findings, and `more` of its entry in a report: what transformers and vLLM would do, and the terminator."""

    kind: str
    findings: tuple[Finding, ...]
    more: dict[str, Any]


def check_directory(directory: ModelDir, worker: TemplateWorker, version: str | None = None) -> Checked:
    """Every GEN and DIR rule over one model directory, for a command that checks more than those."""
    subject = _subject(directory, worker, version or default_version())
    return Checked(subject.kind, subject.findings, _more(subject))


def _keep(subject: Subject, select: list[str], ignore: list[str]) -> Subject:
    def wanted(code: str) -> bool:
        return (not select or code.startswith(tuple(select))) and not code.startswith(tuple(ignore) or ("\0",))

    return Subject(
        subject.directory, subject.kind, tuple(finding for finding in subject.findings if wanted(finding.code)), subject.examined
    )


def _subjects(subjects: list[Subject]) -> Iterator[dict[str, Any]]:
    start = 0
    for subject in subjects:
        end = start + len(subject.findings)
        yield {"path": subject.directory.shown_name, "kind": subject.kind, "findings": list(range(start, end)), **_more(subject)}
        start = end


def _more(subject: Subject) -> dict[str, Any]:
    if subject.examined is None:
        return {}
    end = subject.examined.terminator
    return {
        "verdicts": {"transformers": _verdict(subject.examined.answer.effective), "vllm": _verdict(subject.examined.vllm)},
        "terminator": None if end is None else {"token": end.token, "id": end.id, "reason": end.reason},
    }


def _verdict(effective: Effective) -> dict[str, Any]:
    return {
        "version": effective.transformers,
        "eos_token_id": list(effective.stop.eos_token_id),
        "never_stops": effective.stop.never_stops,
        "error": None if effective.error is None else effective.error.type,
    }


def _document(subjects: list[Subject]) -> tuple[Block, ...]:
    findings = [finding for subject in subjects for finding in subject.findings]
    errors, warnings, notes = (sum(finding.severity is severity for finding in findings) for severity in _ORDER)
    where = subjects[0].directory.shown_name if len(subjects) == 1 else f"{len(subjects)} directories"
    if not subjects:
        return (Headline("NOTHING TO CHECK: no model directory here", "warn"),)
    counts = [plural(errors, "error"), plural(warnings, "warning"), plural(notes, "note")]
    tone: Tone = "bad" if errors else "warn" if warnings else "good"
    blocks: list[Block] = [Headline(f"{where}: {', '.join(counts)}", tone)]
    if len(subjects) == 1:
        return (*blocks, *_single(subjects[0]))
    worth = [subject for subject in subjects if any(finding.severity is not Severity.INFO for finding in subject.findings)]
    for subject in worth:
        blocks.append(Headline(subject.directory.shown_name, "bad" if _has_error(subject) else "warn"))
        blocks += _told(tuple(finding for finding in subject.findings if finding.severity is not Severity.INFO))
    if notes:
        blocks.append(
            Fold("", instead=(Note("NOTES", f"{plural(notes, 'note')} not shown: check one directory alone, or use --format json", "dim"),))
        )
    return tuple(blocks)


_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def _has_error(subject: Subject) -> bool:
    return any(finding.severity is Severity.ERROR for finding in subject.findings)


def _single(subject: Subject) -> list[Block]:
    if subject.examined is None:
        return _told(subject.findings)
    examined = subject.examined
    rows: list[tuple[str | Cell, ...]] = [
        (name, *_stops(examined.answer, effective), effective.transformers if effective is examined.vllm else engine_line(effective, ""))
        for name, effective in (("transformers", examined.answer.effective), ("vLLM", examined.vllm))
    ]
    end = examined.terminator
    if end is not None:
        rows.append(("a turn ends with", f"{'' if end.id is None else end.id} {end.token or 'no special token'}".strip(), "chat template"))
    return [Table(("", "", ""), tuple(rows)), *_told(subject.findings)]


def _stops(answer: Answer, effective: Effective) -> tuple[Cell]:
    if effective.error is not None:
        return (Cell(f"raises {effective.error.type}", "bad"),)
    if effective.stop.never_stops:
        return (Cell("never stops", "bad"),)
    return (Cell(f"stops at {name_tokens(answer, effective.stop.eos_token_id)}"),)


def _told(findings: tuple[Finding, ...]) -> list[Block]:
    """The findings as paragraphs, the worst first."""
    tones = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}
    blocks: list[Block] = []
    for finding in sorted(findings, key=lambda finding: -finding.severity.rank):
        lines = [f"{finding.severity.value}: {finding.message}"]
        lines += [f"at {finding.location}"] if finding.location else []
        lines += [f"cause: {finding.cause}"] if finding.cause else []
        lines += [f"fix: {finding.fix}"] if finding.fix else []
        blocks.append(Note(finding.code, "\n".join(lines), tones[finding.severity]))  # type: ignore[arg-type]
    return blocks
