"""`gencfg check`: rules over model directories; no model is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmdoctor.configs.versions import LibraryVersion
from llmdoctor.core.document import Block, Cell, Headline, Note, Table, Tone
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Skipped, Verdict
from llmdoctor.core.selection import Selection
from llmdoctor.core.text import plural
from llmdoctor.gencfg.calls import default_version
from llmdoctor.gencfg.directory_findings import directory_findings, findings_without_call
from llmdoctor.gencfg.engines.table import REFERENCE, engines, version_for
from llmdoctor.gencfg.examined import examine_directory
from llmdoctor.gencfg.inputs import inputs_of
from llmdoctor.gencfg.limits import limits_of
from llmdoctor.gencfg.options import GencfgCheckOptions, GencfgOptions, is_served
from llmdoctor.gencfg.screen import name_tokens
from llmdoctor.gencfg.terminator import Terminator
from llmdoctor.gencfg.turns import terminator_of
from llmdoctor.gencfg.types import Effective, Resolution
from llmdoctor.modeldir.directory import ModelDir, is_model_dir, read_model_dir
from llmdoctor.modeldir.generating import no_generation
from llmdoctor.modeldir.template import TemplateWorker

if TYPE_CHECKING:
    from llmdoctor.gencfg.results import CheckedModelResult, EngineVerdictResult, GencfgCheckResult, TerminatorResult


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CheckedModel:
    """One directory or file with its findings.

    `answer` is its plain call; None if there is none, and `no_call` is then the reason. `verdicts` are the calls under each engine by name,
    and `terminator` is what ends a turn by the chat template. `versions` are the releases that the answers are for, by engine.
    """

    name: str
    kind: str
    findings: tuple[Finding, ...]
    answer: Resolution | None = None
    no_call: str = "no config.json and no generation_config.json"
    verdicts: Mapping[str, Effective] = field(default_factory=dict)
    terminator: Terminator | None = None
    versions: Mapping[str, LibraryVersion] = field(default_factory=dict)
    summary: dict[str, Any] | None = None

    @property
    def called(self) -> bool:
        """Whether there is a model to call."""
        return self.answer is not None or self.summary is not None

    def light(self) -> CheckedModel:
        """Return what a report of many models needs of this one: without its answer, which holds a provenance for each field and engine."""
        return self if self.answer is None or _is_file(self) else replace(self, answer=None, verdicts={}, summary=self.more)

    @property
    def more(self) -> dict[str, Any]:
        """What its entry in a report holds beside path, kind and findings: what each engine does and the terminator, or why there is no call."""
        if self.summary is not None:
            return self.summary
        if self.answer is None:
            return {"no_call": self.no_call}
        end = self.terminator
        return {
            "verdicts": {name: _verdict(effective) for name, effective in self.verdicts.items()},
            "terminator": None if end is None else _terminator(end),
            "inputs": inputs_of(self.answer).result(),
            "versions": [version.result() for version in self.versions.values()],
        }


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
        verdict=_check_verdict(models, options.without),
        document=_document(models),
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


def _terminator(end: Terminator) -> TerminatorResult:
    return {
        "token": end.token,
        "id": end.id,
        "reason": end.reason,
        "tool": None if end.tool is None else end.tool.id,
        "inside": sorted(end.inside),
    }


def _verdict(effective: Effective) -> EngineVerdictResult:
    return {
        "version": effective.transformers,
        "eos_token_id": list(effective.stop.eos_token_id),
        "never_stops": effective.stop.never_stops,
        "error": None if effective.error is None else effective.error.type,
    }


def _check_verdict(models: list[CheckedModel], without: tuple[str, ...]) -> Verdict:
    if not models:
        return Verdict("Nothing to check: no model directory here", "undecided")
    findings = [finding for model in models for finding in model.findings]
    counts = [plural(sum(each.severity is severity for each in findings), noun) for severity, noun in _NOUNS]
    where = models[0].name if len(models) == 1 else f"{len(models)} {'models' if any(map(_is_file, models)) else 'directories'}"
    serious = any(each.severity is not Severity.INFO for each in findings)
    limits = [f"without {', '.join(without)}, which the files set"] if without else []
    for model in filter(_is_file, models):
        limits += [] if model.answer is None else limits_of(model.answer)
    limits += _without_call(models)
    limits += [doubt for model in models for version in model.versions.values() for doubt in version.doubts]
    added = f" ({'; '.join(dict.fromkeys(limits))})" if limits else ""
    rules = {_released(model) if not _is_file(model) else _words(model) for model in models if model.called}
    if not rules:
        return Verdict(f"{where}: {', '.join(counts)}{added}", "problem" if serious else "ok")
    return Verdict(f"{where}: {', '.join(counts)}{added}, under {' and '.join(sorted(rules))}", "problem" if serious else "ok")


def _without_call(models: list[CheckedModel]) -> list[str]:
    """Return the clause about the directories that no rule of generation was applied to."""
    silent = [model for model in models if not model.called]
    if not silent:
        return []
    if len(models) == 1:
        return [f"no rule about generate() applies: {silent[0].no_call}"]
    named = "; ".join(f"{model.name}, because {model.no_call}" for model in silent[:3])
    more = f"; and {len(silent) - 3} more" if len(silent) > 3 else ""
    return [f"no rule about generate() applies to {named}{more}"]


def _released(model: CheckedModel) -> str:
    """Return the release of transformers that the answer about a directory is for, and what pins it."""
    chosen = model.versions[REFERENCE]
    by = f", which {chosen.place} pins" if chosen.basis == "pinned" and not chosen.conflict else ""
    return f"transformers {chosen.version}{by}"


def _is_file(model: CheckedModel) -> bool:
    return model.kind in ("gguf", "modelfile", "server")


def _words(model: CheckedModel) -> str:
    """Return the engine and version that the answer about a file is for."""
    return next(f"{engines()[name].title} {_version(name, effective)}" for name, effective in model.verdicts.items())


def _pinned(model: CheckedModel, engine: str) -> str:
    chosen = model.versions.get(engine)
    return f" ({chosen.place})" if chosen is not None and chosen.basis == "pinned" else ""


def _version(name: str, effective: Effective) -> str:
    return effective.transformers.removeprefix(f"{name} ")


_NOUNS = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))


def _document(models: list[CheckedModel]) -> tuple[Block, ...]:
    if len(models) == 1:
        return (*_single(models[0]), *_worst_first(models[0].findings), *_next(models[0]))
    blocks: list[Block] = []
    for model in models:
        if model.findings:
            worst = max((finding.severity for finding in model.findings), key=lambda severity: severity.rank)
            blocks += [Headline(model.name, _TONES[worst]), *_worst_first(model.findings)]
    return tuple(blocks)


_TONES: dict[Severity, Tone] = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "plain"}


def _worst_first(findings: tuple[Finding, ...]) -> list[Finding]:
    return sorted(findings, key=lambda finding: -finding.severity.rank)


def _single(model: CheckedModel) -> list[Block]:
    """Return the table of a model checked alone: the ids at which each engine stops, and the end of a turn."""
    answer, end = model.answer, model.terminator
    if answer is None:
        return []
    table = engines()
    rows: list[tuple[str | Cell, ...]] = [
        (table[name].title, _stops(answer, effective), _version(name, effective) + _pinned(model, name))
        for name, effective in model.verdicts.items()
    ]
    if end is not None:
        token = end.token or ("no special token" if end.plain else "what is not known")
        rows.append(("a turn ends with", token if end.id is None else f"{end.id} {token}", "chat template"))
    return [Table(("", "", ""), tuple(rows))]


def _next(model: CheckedModel) -> list[Block]:
    """Return the next command if the files stop where a turn ends: what is left is whether the model was trained to end there."""
    end = model.terminator
    stops = any(
        effective.error is None and end is not None and end.ends_at(effective.stop.eos_token_id) for effective in model.verdicts.values()
    )
    serious = any(finding.severity is not Severity.INFO for finding in model.findings)
    if end is None or end.id is None or serious or not stops or model.kind not in ("model", "adapter"):
        return []
    command = f"llmdoctor labels audit {model.name} DATA --trainer TRAINER"
    return [Note("Next", f"if answers still do not end: {command}\nis {end.token} a training target?", "dim")]


def _stops(answer: Resolution, effective: Effective) -> Cell:
    if effective.error is not None:
        return Cell(f"raises {effective.error.type}", "bad")
    if effective.stop.never_stops:
        return Cell("never stops", "bad")
    if effective.stop.unknown is not None:
        return Cell("unknown: no tokenizer here", "warn")
    return Cell(f"stops at {name_tokens(answer, effective.stop.eos_token_id)}")
