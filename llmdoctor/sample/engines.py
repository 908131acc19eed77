"""`sample engines`: the same numbers through each engine's own order of stages, and where two of them part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmdoctor.core.document import Bar, Bars, Block, Cell, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.known_engines import known_engine
from llmdoctor.sample.layering import config_field, file_defaults
from llmdoctor.sample.logits import parse_logits
from llmdoctor.sample.options import EnginesOptions
from llmdoctor.sample.results import EngineResult, EnginesResult
from llmdoctor.sample.stages import Stage, refusal, run
from llmdoctor.sample.tables import NEWEST
from llmdoctor.sample.types import Doubles, Floats, SamplingParams, TokenContext

SAME = 1e-6  # total variation below which two engines' distributions are the same
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one engine makes of the numbers: the settings it used, its stages and distribution [V], or its refusal (then [0]).

    `key` is its name, or NAME@VERSION beside another version of it.
    """

    key: str
    engine: SamplingEngine
    settings: SamplingParams
    stages: tuple[Stage, ...]
    probs: Doubles
    error: str | None


@dataclass(frozen=True, slots=True)
class Parting:
    """The first difference of two engines' distributions: the stage that differs, the tokens that only one keeps, their total variation."""

    left: str
    right: str
    stage: str
    only_left: tuple[int, ...]
    only_right: tuple[int, ...]
    variation: float


def engines_report(options: EnginesOptions) -> Report:
    """Return one step's logits through every engine, or through those that are named. Raises QuestionError."""
    settings, context, step = options.settings, options.context, options.step
    recorded = parse_logits(options.logits or "")
    if not 0 <= step < recorded.steps:
        raise QuestionError(f"{recorded.path}: --step {step}: expected 0 to {recorded.steps - 1}")
    row = recorded.rows(step, step + 1)[0]
    check_tokens((*context.prompt, *context.output, *(settings.logit_bias or ())), len(row))
    directory = None if options.model is None else read_model_dir(options.model)
    chosen = [known_engine(name) for name in options.engines] or list(NEWEST)
    drawn = [draw(engine, full(engine, settings, directory, options.defaults), row, context, key=_key(engine, chosen)) for engine in chosen]
    partings = tuple(_partings(drawn, len(row)))
    subject = {"logits": recorded.path, "step": step, "vocab": len(row), "settings": settings.named(), "model": options.model}
    verdict = _verdict(drawn, partings)
    return Report("sample engines", subject, _result(drawn, partings), document=_document(drawn, partings, directory), verdict=verdict)


def _key(engine: SamplingEngine, chosen: Sequence[SamplingEngine]) -> str:
    """The name of an engine in the result: with its version if another version of it is there too."""
    alone = sum(other.name == engine.name for other in chosen) == 1
    return engine.name if alone else f"{engine.name}@{engine.release}"


def check_tokens(tokens: Sequence[int], vocab: int) -> None:
    """Raises QuestionError where an id lies outside the vocabulary."""
    for token in tokens:
        if not 0 <= token < vocab:
            raise QuestionError(f"token {token} lies outside the logits' vocabulary, expected 0 to {vocab - 1}")


def full(engine: SamplingEngine, settings: SamplingParams, directory: ModelDir | None, defaults: bool) -> SamplingParams:
    """`settings` with what the engine adds: the model's generation_config.json where it reads one, its own defaults where asked for."""
    added: dict[str, Any] = {}
    if defaults:
        added |= {name: value for name, value in engine.defaults.items() if getattr(settings, name) is None}
        if "do_sample" in engine.defaults and not settings.named():
            added["do_sample"] = engine.defaults["do_sample"]
    if directory is not None and engine.model_files != "none":
        added |= {name: value for name, value in file_defaults(directory).items() if getattr(settings, name, None) is None}
        if engine.model_files == "generation_config" and config_field(directory, "do_sample") is False and not settings.named():
            added["do_sample"] = False
    return replace(settings, **added)


def draw(engine: SamplingEngine, settings: SamplingParams, logits: Floats, before: TokenContext, *, key: str) -> Drawn:
    """One engine's stages and distribution."""
    error = refusal(engine, settings)
    if error is not None:
        return Drawn(key, engine, settings, (), probs=np.zeros(0), error=error)
    with np.errstate(all="ignore"):
        stages = run(engine, settings, logits, before)
        probs = stages[-1].row.probs(len(logits))
    if not np.isfinite(probs).all():
        return Drawn(key, engine, settings, (), probs=np.zeros(0), error="the logits overflow float32: probabilities are NaN")
    return Drawn(key, engine, settings, tuple(stages), probs=probs, error=None)


def variation(left: Doubles, right: Doubles) -> float:
    """Total variation of two distributions [V]."""
    return float(np.abs(left - right).sum() / 2)


def _partings(drawn: Sequence[Drawn], vocab: int) -> list[Parting]:
    """The first of each group of equal engines against the first of every other group."""
    found = []
    heads = [group[0] for group in grouped(drawn)]
    for index, left in enumerate(heads):
        for right in heads[index + 1 :]:
            kept_left, kept_right = left.probs > 0, right.probs > 0
            found.append(
                Parting(
                    left=left.key,
                    right=right.key,
                    stage=_stage(left, right, vocab),
                    only_left=tuple(map(int, np.flatnonzero(kept_left & ~kept_right))),
                    only_right=tuple(map(int, np.flatnonzero(kept_right & ~kept_left))),
                    variation=variation(left.probs, right.probs),
                )
            )
    return found


def grouped(drawn: Sequence[Drawn]) -> list[list[Drawn]]:
    """The engines that answer, in groups with the same distribution."""
    groups: list[list[Drawn]] = []
    for one in drawn:
        if one.error is not None:
            continue
        for group in groups:
            if variation(group[0].probs, one.probs) < SAME:
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _stage(left: Drawn, right: Drawn, vocab: int) -> str:
    for one, other in zip(left.stages[1:], right.stages[1:], strict=False):
        if one.name != other.name:
            return f"{left.key} does {one.name}, {right.key} {other.name}"
        if variation(one.row.probs(vocab), other.row.probs(vocab)) >= SAME:
            return one.name
    longer = max(left.stages, right.stages, key=len)
    return longer[min(len(left.stages), len(right.stages))].name if len(left.stages) != len(right.stages) else longer[-1].name


def _result(drawn: Sequence[Drawn], partings: Sequence[Parting]) -> EnginesResult:
    return {
        "engines": {one.key: _engine(one, drawn) for one in drawn},
        "partings": [
            {
                "left": parting.left,
                "right": parting.right,
                "stage": parting.stage,
                "only_left": list(parting.only_left),
                "only_right": list(parting.only_right),
                "total_variation": parting.variation,
            }
            for parting in partings
        ],
    }


def _engine(one: Drawn, drawn: Sequence[Drawn]) -> EngineResult:
    probs = one.probs
    return {
        "version": one.engine.wanted or one.engine.version,
        "source": one.engine.source,
        "order": list(one.engine.order),
        "settings": one.settings.named(),
        "stages": [{"name": stage.name, "support": len(stage.row.x), "mass_kept": stage.mass_kept} for stage in one.stages],
        "probs": None if one.error else probs.tolist(),
        "support": None if one.error else int(np.count_nonzero(probs)),
        "tv_to": {} if one.error else {other.key: variation(probs, other.probs) for other in drawn if not other.error and other is not one},
        "error": one.error,
    }


def _verdict(drawn: Sequence[Drawn], partings: Sequence[Parting]) -> Verdict:
    """Whether the engines that accept the settings draw from one distribution; those that refuse them are named."""
    groups = grouped(drawn)
    refused = [one.engine.label for one in drawn if one.error is not None]
    limits = [f"{', '.join(refused)} refuse the settings"] if refused and groups else []
    limits += [one.engine.doubt for one in drawn if one.engine.doubt]
    limit = f" ({'; '.join(limits)})" if limits else ""
    if not groups:
        return Verdict("No engine accepts these settings.", "problem")
    if len(groups) == 1:
        return Verdict(f"The same distribution in {_names(groups[0])}{limit}.", "ok")
    widest = max(partings, key=lambda parting: parting.variation)
    text = (
        f"{len(groups)} different distributions from the same numbers: up to {widest.variation:.3f} of the mass moves "
        f"({widest.left} against {widest.right}){limit}."
    )
    return Verdict(text, "problem")


def _document(drawn: Sequence[Drawn], partings: Sequence[Parting], directory: ModelDir | None) -> tuple[Block, ...]:
    groups = grouped(drawn)
    refused = [one for one in drawn if one.error is not None]
    blocks: list[Block] = [_picture(groups)] if groups else []
    blocks += [Note("Order", f"{order}   {', '.join(names)}", "dim") for order, names in _orders(groups).items()]
    blocks += [_parting(parting) for parting in partings]
    blocks += [Note("Refused", f"{one.engine.label}: {one.error}", "warn") for one in refused]
    blocks += [
        Note("Model", f"{one.engine.name} takes {_defaults_named(directory)} from generation_config.json for what is not set", "dim")
        for one in drawn
        if directory is not None and one.engine.model_files != "none" and _defaults_named(directory)
    ][:3]
    return tuple(blocks)


def _defaults_named(directory: ModelDir) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in file_defaults(directory).items())


def _names(group: Sequence[Drawn]) -> str:
    return ", ".join(one.engine.label for one in group)


def _orders(groups: Sequence[Sequence[Drawn]]) -> dict[str, list[str]]:
    """The stages that ran, in order, and the engines that run them so."""
    orders: dict[str, list[str]] = {}
    for one in (one for group in groups for one in group):
        orders.setdefault(" > ".join(stage.name for stage in one.stages[1:]) or "softmax alone", []).append(one.engine.label)
    return orders


def _probabilities(groups: Sequence[Sequence[Drawn]]) -> Table:
    everyone = np.sum([group[0].probs for group in groups], axis=0)
    tokens = [int(token) for token in np.argsort(-everyone, kind="stable")[:_SHOWN] if everyone[token] > 0]
    rows: list[tuple[str | Cell, ...]] = []
    for group in groups:
        probs = group[0].probs
        cells = tuple(f"{probs[token]:.4f}" if probs[token] else "-" for token in tokens)
        rows.append((group[0].engine.label, f"{np.count_nonzero(probs):,}", *cells))
        rows += [("  " + one.engine.label, Cell("the same", "dim"), *("" for _ in tokens)) for one in group[1:]]
    return Table(("engine", "support", *(str(token) for token in tokens)), tuple(rows))


def _picture(groups: Sequence[Sequence[Drawn]]) -> Bars:
    """The likeliest tokens, before any stage and as each group of engines leaves them."""
    table = _probabilities(groups)
    before = groups[0][0].stages[0].row.probs(len(groups[0][0].probs))
    every = [before, *(group[0].probs for group in groups)]
    tokens = [
        int(token) for token in np.argsort(-np.max(every, axis=0), kind="stable")[: _SHOWN + 2] if max(row[token] for row in every) > 0
    ]
    bars = tuple(Bar(f"token {token}", tuple(float(row[token]) for row in every)) for token in tokens)
    parts = ("before any stage", *(_names(group) for group in groups))
    return Bars("Probability of the likeliest tokens", "", parts, bars, stacked=False, digits=4, instead=(table,))


def _parting(parting: Parting) -> Note:
    def some(name: str, tokens: Sequence[int]) -> str:
        if not tokens:
            return ""
        listed = ", ".join(map(str, tokens[:5])) + (" ..." if len(tokens) > 5 else "")
        return f"; only {name} keeps {plural(len(tokens), 'token')} ({listed})"

    text = f"{parting.left} and {parting.right} differ from {parting.stage} on: total variation {parting.variation:.4f}"
    return Note("Evidence", text + some(parting.left, parting.only_left) + some(parting.right, parting.only_right))
