"""`gencfg check`: rules over model directories; no model is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.selection import Selection
from llmdoctor.gencfg.calls import default_version
from llmdoctor.gencfg.check_screen import check_document, check_verdict
from llmdoctor.gencfg.checked import CheckedModel
from llmdoctor.gencfg.directory_findings import directory_findings, findings_without_call
from llmdoctor.gencfg.engines.table import REFERENCE, engines, version_for
from llmdoctor.gencfg.examined import examine_directory
from llmdoctor.gencfg.options import GencfgCheckOptions, GencfgOptions, is_served
from llmdoctor.gencfg.turns import terminator_of
from llmdoctor.modeldir.directory import ModelDir, is_model_dir, read_model_dir
from llmdoctor.modeldir.generating import no_generation
from llmdoctor.modeldir.template import TemplateWorker

if TYPE_CHECKING:
    from llmdoctor.gencfg.results import CheckedModelResult, GencfgCheckResult


def check_report(options: GencfgCheckOptions) -> Report:
    """Return the findings of every GEN and DIR rule over every directory; for a folder without a model, its subfolders are checked.

    Raises QuestionError if a path or a version cannot be understood.
    """
    with TemplateWorker() as worker:
        worker.start()
        names, skipped = _expand(options.paths)
        checked = (_keep(_check(name, worker, options), options) for name in names)
        models = [model if len(names) == 1 else model.light() for model in checked]
    findings = tuple(finding for model in models for finding in model.findings)
    result: GencfgCheckResult = {"subjects": list(_entries(models))}
    return Report(
        "gencfg check",
        subject={"paths": list(options.paths), "transformers": _one_release(models) or options.transformers or default_version()},
        result=dict(result),
        findings=findings,
        skipped=tuple(skipped),
        verdict=check_verdict(models, options.without),
        document=check_document(models),
        nothing=not models,
    )


def _one_release(models: list[CheckedModel]) -> str | None:
    """Return the release of transformers that every answer is for; None if there are several or none."""
    found = {model.versions[REFERENCE].version for model in models if REFERENCE in model.versions}
    return found.pop() if len(found) == 1 else None


def _check(name: str, worker: TemplateWorker, options: GencfgCheckOptions) -> CheckedModel:
    if is_served(name):
        return _check_file(name, options.without)
    return check_directory(read_model_dir(name), worker, options.transformers, options.without)


def _check_file(name: str, without: tuple[str, ...]) -> CheckedModel:
    """Return the findings about a GGUF file, a Modelfile, or the command line of a server, under the engine that it belongs to."""
    from llmdoctor.gencfg.served import resolve_served
    from llmdoctor.gencfg.served_findings import served_findings

    answer = resolve_served(GencfgOptions(model=name, without=without))
    kind = "gguf" if name.endswith(".gguf") else "modelfile" if answer.engine == "ollama" else "server"
    return CheckedModel(
        name=name,
        kind=kind,
        findings=tuple(served_findings(answer)),
        answer=answer,
        verdicts={answer.engine: answer.effective},
        terminator=answer.terminator,
    )


def check_directory(directory: ModelDir, worker: TemplateWorker, version: str | None = None, without: tuple[str, ...] = ()) -> CheckedModel:
    """Return the findings of every GEN and DIR rule over one model directory; `worker` renders its chat template."""
    name = directory.shown_name
    terminator, template_problems = terminator_of(directory, worker)
    problems = (*directory.problems(), *template_problems)
    if directory.config is None and directory.generation_config is None:
        return CheckedModel(name=name, kind="tokenizer", findings=problems)
    if directory.config is not None and not isinstance(directory.config.value, dict):
        return CheckedModel(name=name, kind="model", findings=problems, no_call="config.json holds no JSON object")
    chosen = version_for(engines()[REFERENCE], version, directory.path).chosen
    version = chosen.version
    examined = examine_directory(directory, terminator, version, lines=False, without=without)
    if examined.answer.effective.error is not None or examined.answer.effective.stop.never_stops:
        examined = examine_directory(directory, terminator, version, lines=True, without=without)
    kind = "adapter" if directory.adapter else "model"
    silent = no_generation(directory)
    if silent is not None:
        return CheckedModel(name=name, kind=kind, findings=(*problems, *findings_without_call(examined)), no_call=silent.reason)
    return CheckedModel(
        name=name,
        kind=kind,
        findings=(*problems, *directory_findings(examined)),
        answer=examined.answer,
        verdicts=examined.by_engine,
        terminator=examined.terminator,
        versions={REFERENCE: chosen, **examined.versions},
    )


def _expand(paths: tuple[str, ...]) -> tuple[list[str], list[Skipped]]:
    """Return the directories to read; a subfolder without model files is skipped by name."""
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


def _keep(model: CheckedModel, options: GencfgCheckOptions) -> CheckedModel:
    return replace(model, findings=Selection(select=options.select, ignore=options.ignore).keep(model.findings))


def _entries(models: list[CheckedModel]) -> Iterator[CheckedModelResult]:
    start = 0
    for model in models:
        end = start + len(model.findings)
        entry: CheckedModelResult = {"path": model.name, "kind": model.kind, "findings": list(range(start, end))}
        yield {**entry, **model.more}  # type: ignore[typeddict-item]
        start = end
