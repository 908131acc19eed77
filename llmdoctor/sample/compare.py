"""`sample compare`: log-probabilities of the same tokens from a trainer and from an engine: do they agree, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.sample.causes import find_causes
from llmdoctor.sample.comparing import ROUNDING, Agreement, Divergence, agreement, compare_sides
from llmdoctor.sample.logprobs import Side, read_side
from llmdoctor.sample.options import SampleCompareOptions
from llmdoctor.sample.pairing import PairedSides, pair_sides
from llmdoctor.sample.results import ComparisonResult, DisagreementCauseResult, SampleCompareResult, VersusResult
from llmdoctor.sample.rules import SIDES
from llmdoctor.sample.types import DisagreementCause

_SHOWN = 8


def compare_report(options: SampleCompareOptions) -> Report:
    """Return the comparison of two sides. Raises QuestionError."""
    return compared_as("sample compare", options)


def compared_as(command: str, options: SampleCompareOptions) -> Report:
    """Return the comparison as a report of `command`: "sample replay" for its former option --versus."""
    if options.temperature is not None and not 0 < options.temperature < math.inf:
        raise QuestionError(f"--temperature {options.temperature:g}: expected a finite number above 0")
    trainer, engine = read_side(options.trainer, "trainer"), read_side(options.engine_file, "engine")
    if options.trainer == options.engine_file and trainer.name == engine.name:
        raise QuestionError(
            f"{options.trainer}: holds one side only ({trainer.name or 'one list'}): expected a second file, or a dump with both"
        )
    paired = pair_sides(trainer, engine)
    t, e, index, _ = paired.joined()
    if not len(t):
        raise QuestionError(
            f"{options.engine_file}: no token has a log-probability on both sides: {_invalid(trainer, engine) or 'nothing is left'}"
        )
    found = compare_sides(t, e, index)
    causes = find_causes(*paired.without_padding(), options.temperature)
    if paired.padding is not None:
        causes = (paired.padding, *causes)
    decision = agreement(found, causes)
    causes = () if decision == "agree" else causes
    findings = _findings(options, found, decision, causes)
    return Report(
        command,
        {"trainer": options.trainer, "engine": options.engine_file, "tokens": found.tokens, "sequences": len(paired.trainer)},
        _result(found, decision, causes, paired, (trainer, engine)),
        findings,
        document=_document(found, causes, findings, paired, (trainer, engine)),
        verdict=_verdict(found, decision, paired.limit),
        differs=decision == "disagree",
        unanswered=decision == "undecided" and command == "sample compare",
    )


def _invalid(trainer: Side, engine: Side) -> str:
    texts = [
        f"{side.path}: {', '.join(f'{count} {kind}' for kind, count in side.invalid.items())}" for side in (trainer, engine) if side.invalid
    ]
    return "; ".join(texts)


def _verdict(found: Divergence, decision: Agreement, limit: str) -> Verdict:
    ratio = f"mean ratio {found.mean_ratio:.4g} +- {found.standard_error:.2g} (1 expected), {plural(found.tokens, 'token')}"
    ratio += f" ({limit})" if limit else ""
    if decision == "agree":
        return Verdict(f"The two sides agree up to rounding: {ratio}.", "ok")
    if decision == "undecided":
        return Verdict(f"Undecided: {_doubt(found)}: {ratio}.", "undecided")
    return Verdict(f"The two sides disagree: {ratio}.", "problem")


def _doubt(found: Divergence) -> str:
    """Why the numbers do not decide."""
    if found.mean_abs > ROUNDING:
        return f"the differences ({found.mean_abs:.3f} nats on average) may be precision alone"
    if found.max_abs > 1:
        return f"the sides agree up to rounding but for single tokens, the worst by {found.max_abs:.2f} nats"
    return f"{plural(found.doubtful, 'token')} of probability below .95: too few to show a temperature or a cut, if there is one"


def _worst(paired: PairedSides) -> list[tuple[int, float, float]]:
    """The tokens that differ most: index among all tokens, trainer, engine."""
    t, e, _, places = paired.joined()
    order = np.argsort(-np.abs(t - e), kind="stable")[:_SHOWN]
    return [(int(places[at]), float(t[at]), float(e[at])) for at in order]


def _findings(
    options: SampleCompareOptions, found: Divergence, decision: Agreement, causes: Sequence[DisagreementCause]
) -> tuple[Finding, ...]:
    if decision != "disagree":
        return ()
    message = f"trainer and engine disagree about {plural(found.tokens, 'token')}: mean ratio {found.mean_ratio:.4g}"
    named = [cause for cause in causes if cause.named]
    return (
        SIDES.at(
            Location(options.engine_file),
            message,
            cause=_cause_text(named, causes),
            fix=named[0].fix if named else None,
            mean_ratio=found.mean_ratio,
            standard_error=found.standard_error,
            mean_abs=found.mean_abs,
            tokens=[token for cause in named for token in cause.tokens],
        ),
    )


def _cause_text(named: Sequence[DisagreementCause], causes: Sequence[DisagreementCause]) -> str | None:
    """The causes that are proven; else the ones that remain possible, as such."""
    if named:
        return "; and ".join(_said(cause) for cause in named)
    if not causes:
        return None
    return f"not decided: {' or '.join(cause.name for cause in causes)} ({causes[0].evidence})"


def _said(cause: DisagreementCause) -> str:
    share = "" if cause.explains is None else f", {cause.explains:.0%} of the summed difference"
    return f"{cause.name}{share}: {cause.evidence}"


def _document(
    found: Divergence,
    causes: Sequence[DisagreementCause],
    findings: Sequence[Finding],
    paired: PairedSides,
    sides: tuple[Side, Side],
) -> tuple[Block, ...]:
    blocks: list[Block] = [*findings]
    if causes:
        possible = [] if any(cause.named for cause in causes) else causes
        blocks += [Note("Possible", f"{cause.name}: {cause.evidence}", "dim") for cause in possible[:3]]
        blocks += [Code("Fix", possible[0].fix)] if not findings and possible else []
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
    return {
        "name": one.name,
        "named": one.named,
        "explains": one.explains,
        "evidence": one.evidence,
        "fix": one.fix,
        "tokens": list(one.tokens),
    }


def _mask_names(sides: tuple[Side, Side]) -> dict[str, str]:
    names = dict.fromkeys(name for side in sides for name in side.masked_by)
    return {"mask": ", ".join(names)} if names else {}


def _unread(sides: tuple[Side, Side]) -> dict[str, str]:
    """The columns of the dumps that the comparison does not read."""
    used = {side.name for side in sides}
    return {name: "neither log-probabilities nor a mask" for side in sides for name in side.unread if name not in used}


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
        "causes": [_cause(one) for one in causes],
        "training": {
            "outside_clip": found.clipped,
            "effective_sample_size": found.effective,
            "truncated_mean_ratio": found.truncated_mean,
        },
        "invalid": {side.path: dict(side.invalid) for side in sides if side.invalid},
        "notes": list(paired.notes),
        "versus": versus,
        "inputs": Inputs(used={**names, **_mask_names(sides)}, ignored=_unread(sides)).result(),
    }
