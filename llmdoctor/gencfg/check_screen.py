"""The screen of `gencfg check`: its verdict, the table of the engines, and the findings, the worst first."""

from __future__ import annotations

from llmdoctor.core.document import Block, Cell, Headline, Note, Table, Tone
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Verdict
from llmdoctor.core.text import plural
from llmdoctor.gencfg.checked import CheckedModel
from llmdoctor.gencfg.engines.table import REFERENCE, engines
from llmdoctor.gencfg.limits import limits_of
from llmdoctor.gencfg.screen import name_tokens
from llmdoctor.gencfg.types import Effective, Resolution


def check_verdict(models: list[CheckedModel], without: tuple[str, ...]) -> Verdict:
    """Return the first line: counts, what was not judged, and the release that the answer is for."""
    if not models:
        return Verdict("Nothing to check: no model directory here", "undecided")
    findings = [finding for model in models for finding in model.findings]
    counts = [plural(sum(each.severity is severity for each in findings), noun) for severity, noun in _NOUNS]
    where = models[0].name if len(models) == 1 else f"{len(models)} {'models' if any(model.is_file for model in models) else 'directories'}"
    serious = any(each.severity is not Severity.INFO for each in findings)
    limits = [f"without {', '.join(without)}, which the files set"] if without else []
    for model in (model for model in models if model.is_file):
        limits += [] if model.answer is None else limits_of(model.answer)
    limits += _without_call(models)
    limits += [doubt for model in models for version in model.versions.values() for doubt in version.doubts]
    added = f" ({'; '.join(dict.fromkeys(limits))})" if limits else ""
    rules = {_released(model) if not model.is_file else _words(model) for model in models if model.called}
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


def _words(model: CheckedModel) -> str:
    """Return the engine and version that the answer about a file is for."""
    return next(f"{engines()[name].title} {_version(name, effective)}" for name, effective in model.verdicts.items())


def _pinned(model: CheckedModel, engine: str) -> str:
    chosen = model.versions.get(engine)
    return f" ({chosen.place})" if chosen is not None and chosen.basis == "pinned" else ""


def _version(name: str, effective: Effective) -> str:
    return effective.transformers.removeprefix(f"{name} ")


_NOUNS = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))


def check_document(models: list[CheckedModel]) -> tuple[Block, ...]:
    """Return the screen: a table of the engines and the findings of one model, or the findings of each model that has some."""
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
