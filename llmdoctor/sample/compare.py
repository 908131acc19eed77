"""`sample compare`: log-probabilities of the same tokens from a trainer and from an engine: do they agree, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.sample.comparing import Agreement, DisagreementCause, Divergence, agreement, compare_sides, find_causes
from llmdoctor.sample.logprobs import Side, read_side
from llmdoctor.sample.options import SampleCompareOptions
from llmdoctor.sample.results import ComparisonResult, DisagreementCauseResult, SampleCompareResult, VersusResult
from llmdoctor.sample.rules import SIDES
from llmdoctor.sample.types import Doubles, Flags

_RUN = 4  # exact zeros in a row, on both sides, are padding
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PairedSides:
    """The values of both sides, sequence by sequence; NaN for a token that does not count on one of them.

    `notes` say what was left out, `padding` whether one side alone has padding that counts.
    """

    trainer: tuple[Doubles, ...]
    engine: tuple[Doubles, ...]
    notes: tuple[str, ...]
    padding: DisagreementCause | None


def compare_report(options: SampleCompareOptions) -> Report:
    """Return the comparison of two sides. Raises QuestionError."""
    return compared_as("sample compare", options)


def compared_as(command: str, options: SampleCompareOptions) -> Report:
    """Return the comparison as a report of `command`: "sample replay" for its former option --versus."""
    trainer, engine = read_side(options.trainer, "trainer"), read_side(options.engine, "engine")
    if options.trainer == options.engine and trainer.name == engine.name:
        raise QuestionError(
            f"{options.trainer}: holds one side only ({trainer.name or 'one list'}): expected a second file, or a dump with both"
        )
    paired = pair_sides(trainer, engine)
    t, e, index, _ = _joined(paired)
    if not len(t):
        raise QuestionError(
            f"{options.engine}: no token has a log-probability on both sides: {_invalid(trainer, engine) or 'nothing is left'}"
        )
    found = compare_sides(t, e, index)
    causes = find_causes(paired.trainer, paired.engine, options.temperature)
    if paired.padding is not None:
        causes = tuple(sorted((paired.padding, *causes), key=lambda cause: -cause.explains))
    decision = agreement(found, causes)
    causes = () if decision == "agree" else causes
    findings = _findings(options, found, decision, causes)
    return Report(
        command,
        {"trainer": options.trainer, "engine": options.engine, "tokens": found.tokens, "sequences": len(paired.trainer)},
        _result(found, decision, causes, paired, (trainer, engine)),
        findings,
        document=_document(found, causes, findings, paired, (trainer, engine)),
        verdict=_verdict(found, decision),
        differs=decision == "disagree",
        unanswered=decision == "undecided" and command == "sample compare",
    )


def pair_sides(trainer: Side, engine: Side) -> PairedSides:
    """Return both sides token by token, without what a mask or padding leaves out. Raises QuestionError if the lengths differ."""
    t, e = list(trainer.sequences), list(engine.sequences)
    if len(t) != len(e) and sum(map(len, t)) == sum(map(len, e)):
        t, e = [np.concatenate(t)], [np.concatenate(e)]
    if len(t) != len(e):
        raise QuestionError(f"{engine.path}: {len(e)} sequences against {len(t)} in {trainer.path}: expected the same on both sides")
    for number, (left, right) in enumerate(zip(t, e, strict=True)):
        if len(left) != len(right):
            raise QuestionError(
                f"{engine.path}: sequence {number} has {len(right)} log-probabilities, {trainer.path} {len(left)}: expected one per token on both sides"
            )
    notes = []
    masks = trainer.masks or engine.masks
    if masks is not None and [len(mask) for mask in masks] == [len(row) for row in t]:
        left_out = sum(int((~mask).sum()) for mask in masks)
        t, e = _without(t, [~mask for mask in masks]), _without(e, [~mask for mask in masks])
        notes.append(f"{plural(left_out, 'token')} left out by the mask")
    both = [_runs((left == 0) & (right == 0)) for left, right in zip(t, e, strict=True)]
    if masks is None and any(run.any() for run in both):
        notes.append(f"{plural(sum(int(run.sum()) for run in both), 'token')} of padding left out: runs of exact zeros on both sides")
        t, e = _without(t, both), _without(e, both)
    t, e, padding = _one_sided(t, e) if masks is None else (t, e, None)
    return PairedSides(tuple(t), tuple(e), tuple(notes), padding)


def _without(rows: Sequence[Doubles], masks: Sequence[Flags]) -> list[Doubles]:
    return [np.where(mask, np.nan, row) for row, mask in zip(rows, masks, strict=True)]


def _runs(flags: Flags) -> Flags:
    """The places that lie in a run of _RUN or more."""
    found = np.zeros(len(flags), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    for start, stop in edges.reshape(-1, 2):
        if stop - start >= _RUN:
            found[start:stop] = True
    return found


def _one_sided(t: list[Doubles], e: list[Doubles]) -> tuple[list[Doubles], list[Doubles], DisagreementCause | None]:
    """Padding that one side alone marks by zeros: left out if the rest agrees much better without it."""
    for name, rows, others in (("engine", e, t), ("trainer", t, e)):
        runs = [_runs(row == 0) & (other != 0) for row, other in zip(rows, others, strict=True)]
        count = sum(int(run.sum()) for run in runs)
        if not count:
            continue
        left = _away(_without(t, runs), _without(e, runs))
        total = _away(t, e)
        if total > 0.02 and left < 0.3 * total:
            other = "trainer" if name == "engine" else "engine"
            evidence = f"{plural(count, 'token')} in runs of exact zeros on the {name}'s side alone; without them the mean difference is {left:.4f}"
            fix = f"Padding is counted on the {other}'s side: apply the response mask before the comparison and in the loss."
            return t, e, DisagreementCause("padding counted", 1 - left / total, evidence, fix)
    return t, e, None


def _away(t: Sequence[Doubles], e: Sequence[Doubles]) -> float:
    away = np.abs(np.concatenate(list(t)) - np.concatenate(list(e)))
    away = away[np.isfinite(away)]
    return float(away.mean()) if len(away) else 0.0


def _joined(paired: PairedSides) -> tuple[Doubles, Doubles, np.ndarray, np.ndarray]:
    """Both sides' finite values, the sequence of each token, and its index among all tokens."""
    t, e = np.concatenate(paired.trainer), np.concatenate(paired.engine)
    index = np.repeat(np.arange(len(paired.trainer)), [len(row) for row in paired.trainer])
    good = np.isfinite(t) & np.isfinite(e)
    return t[good], e[good], index[good], np.flatnonzero(good)


def _invalid(trainer: Side, engine: Side) -> str:
    texts = [
        f"{side.path}: {', '.join(f'{count} {kind}' for kind, count in side.invalid.items())}" for side in (trainer, engine) if side.invalid
    ]
    return "; ".join(texts)


def _verdict(found: Divergence, decision: Agreement) -> Verdict:
    ratio = f"mean ratio {found.mean_ratio:.4g} +- {found.standard_error:.2g} (1 expected), {plural(found.tokens, 'token')}"
    if decision == "agree":
        return Verdict(f"The two sides agree up to rounding: {ratio}.", "ok")
    if decision == "undecided":
        text = f"Undecided: the differences ({found.mean_abs:.3f} nats on average) may be precision alone: {ratio}."
        return Verdict(text, "undecided")
    return Verdict(f"The two sides disagree: {ratio}.", "problem")


def _worst(paired: PairedSides) -> list[tuple[int, float, float]]:
    """The tokens that differ most: index among all tokens, trainer, engine."""
    t, e, _, places = _joined(paired)
    order = np.argsort(-np.abs(t - e), kind="stable")[:_SHOWN]
    return [(int(places[at]), float(t[at]), float(e[at])) for at in order]


def _findings(
    options: SampleCompareOptions, found: Divergence, decision: Agreement, causes: Sequence[DisagreementCause]
) -> tuple[Finding, ...]:
    if decision != "disagree":
        return ()
    message = f"trainer and engine disagree about {plural(found.tokens, 'token')}: mean ratio {found.mean_ratio:.4g}"
    best = causes[0] if causes else None
    return (
        SIDES.at(
            Location(options.engine),
            message,
            cause=None if best is None else f"{best.name} (explains {best.explains:.0%} of the difference): {best.evidence}",
            fix=None if best is None else best.fix,
            mean_ratio=found.mean_ratio,
            standard_error=found.standard_error,
            mean_abs=found.mean_abs,
            tokens=list(best.tokens) if best is not None else [],
        ),
    )


def _document(
    found: Divergence,
    causes: Sequence[DisagreementCause],
    findings: Sequence[Finding],
    paired: PairedSides,
    sides: tuple[Side, Side],
) -> tuple[Block, ...]:
    blocks: list[Block] = [*findings]
    if causes:
        best, *others = causes
        if not findings:
            blocks += [Note("Cause", f"perhaps {best.name}: {best.evidence}"), Code("Fix", best.fix)]
        blocks += [Note("Also", f"{cause.name} (would explain {cause.explains:.0%}): {cause.evidence}", "dim") for cause in others[:2]]
    blocks.append(Note("Evidence", evidence_of(found)))
    blocks.append(Note("Training", training_of(found)))
    blocks += [Note("Note", note) for note in paired.notes]
    invalid = _invalid(*sides)
    if invalid:
        blocks.append(Note("Skipped", f"values that are not log-probabilities: {invalid}", "warn"))
    rows = tuple((str(at), f"{t:.4f}", f"{e:.4f}", f"{t - e:+.4f}", _ratio(t - e)) for at, t, e in _worst(paired))
    return (*blocks, Table(("token", "trainer", "engine", "difference", "ratio"), rows))


def _ratio(delta: float) -> str:
    return f"{math.exp(min(50.0, max(-50.0, delta))):.4g}"


def evidence_of(found: Divergence) -> str:
    """Return the differences in words."""
    pearson = "-" if found.pearson is None else f"{found.pearson:.4f}"
    return (
        f"{plural(found.tokens, 'token')}: |difference| mean {found.mean_abs:.4f}, max {found.max_abs:.4f} nats, correlation {pearson}, "
        f"ratio mean {found.mean_ratio:.4g}, max {found.max_ratio:.4g}"
    )


def training_of(found: Divergence) -> str:
    """Return what the differences mean for a policy ratio, in words."""
    return (
        f"{found.clipped:.1%} of the ratios lie outside PPO's clip range of 0.2; KL k1 {found.k1:.4f}, k3 {found.k3:.4f} (gap {found.gap:.4f}); "
        f"effective sample size {found.effective:,.0f} of {found.tokens:,}; mean of ratios truncated at 2: {found.truncated_mean:.4f}; "
        f"perplexity ratio {found.ppl_ratio:.4g}, sum {found.nats:.1f} nats"
    )


def versus_result(found: Divergence | None) -> VersusResult | None:
    """Return a comparison for a program, as `sample replay` has it."""
    return None if found is None else _versus(found)


def _versus(found: Divergence) -> VersusResult:
    return {
        "tokens": found.tokens,
        "mean_abs": found.mean_abs,
        "max_abs": found.max_abs,
        "pearson": found.pearson,
        "mean_ratio": found.mean_ratio,
        "standard_error": found.standard_error if math.isfinite(found.standard_error) else None,
        "k1": found.k1,
        "k3": found.k3,
        "gap": found.gap,
        "nats": found.nats,
        "ppl_ratio": found.ppl_ratio,
    }


def _cause(one: DisagreementCause) -> DisagreementCauseResult:
    return {"name": one.name, "explains": one.explains, "evidence": one.evidence, "fix": one.fix, "tokens": list(one.tokens)}


def _result(
    found: Divergence,
    decision: Agreement,
    causes: Sequence[DisagreementCause],
    paired: PairedSides,
    sides: tuple[Side, Side],
) -> SampleCompareResult:
    versus = _versus(found)
    error = versus["standard_error"]
    comparison: ComparisonResult = {"mean": found.mean_ratio, "standard_error": error, "max": found.max_ratio}
    names = {"trainer": sides[0].name or "the list", "engine": sides[1].name or "the list"}
    return {
        "verdict": decision,
        "tokens": found.tokens,
        "sequences": len(paired.trainer),
        "ratio": comparison,
        "k1": found.k1,
        "k3": found.k3,
        "causes": [
            {"name": one.name, "explains": one.explains, "evidence": one.evidence, "fix": one.fix, "tokens": list(one.tokens)}
            for one in causes
        ],
        "training": {
            "outside_clip": found.clipped,
            "effective_sample_size": found.effective,
            "truncated_mean_ratio": found.truncated_mean,
        },
        "invalid": {side.path: dict(side.invalid) for side in sides if side.invalid},
        "notes": list(paired.notes),
        "versus": versus,
        "inputs": Inputs(used=names).result(),
    }
