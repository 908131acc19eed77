"""`mem compare`: what each strategy holds, why the strategies differ, and what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmdoctor.core.report import Report, ReportError, refusal
from llmdoctor.mem.advice import changes_of
from llmdoctor.mem.capacity import fits, largest_batch, need_of, read_size
from llmdoctor.mem.components import by_component, context_of, host_parts, parts_of
from llmdoctor.mem.explain import Reason, explain
from llmdoctor.mem.findings import findings_of
from llmdoctor.mem.keys import UnmodelledSetting
from llmdoctor.mem.ledger import Moment
from llmdoctor.mem.measured import compare_measured, read_measured
from llmdoctor.mem.options import MemCompareOptions
from llmdoctor.mem.predict import PHASES
from llmdoctor.mem.predictor import Predictor, compare_strategies
from llmdoctor.mem.results import (
    ExplanationResult,
    MeasuredResult,
    MemCompareResult,
    MemoryFitResult,
    ModelResult,
    SettingChangeResult,
    StrategyResult,
)
from llmdoctor.mem.screen import Shown, document
from llmdoctor.mem.types import Change, Comparison, Estimate, MeasuredRow, MemoryFit
from llmdoctor.mem.verdict import verdict_of

RESERVED = (0.77, 1.29)  # the reserved bytes of 71 measured runs, as a ratio to those of the simulated allocator


def compare_report(options: MemCompareOptions) -> Report:
    """Predict every strategy, explain the differences, and set them beside what was measured.

    A setting that is not modelled is an error in the report, which lists what was read until then. Raises QuestionError if a file, a strategy
    or an option cannot be understood.
    """
    try:
        return _report(options)
    except UnmodelledSetting as error:
        result = {"inputs": error.inputs.result()}
        return refusal("mem compare", ReportError(error.kind, str(error)), {"path": options.model}, result)


def _report(options: MemCompareOptions) -> Report:
    memory = None if options.gpu_memory is None else read_size(options.gpu_memory)
    records = () if options.measured is None else read_measured(options.measured)
    comparison, predictor = compare_strategies(options)
    rows = compare_measured(comparison, records) if records else ()
    found = tuple(fit_of(estimate, predictor, memory) for estimate in comparison.estimates) if memory is not None else ()
    reasons = reasons_of(comparison)
    findings = findings_of(comparison, found, memory, rows)
    verdict = verdict_of(comparison, found, memory)
    shown = Shown(
        comparison=comparison,
        reasons=reasons,
        fits=found,
        memory=memory,
        measured=rows,
        changes=advice(comparison, predictor, found),
        findings=findings,
    )
    return Report(
        "mem compare",
        subject=subject_of(comparison),
        result={**_result(comparison, reasons, found, rows if records else None)},
        findings=findings,
        skipped=comparison.skipped,
        document=document(shown),
        verdict=verdict,
        # --static asks for the bound; without torch, and with --gpu-memory, a number or a decision was asked for.
        unanswered=verdict.status == "bound" and not options.static and (memory is not None or not predictor.live),
    )


def fit_of(estimate: Estimate, predictor: Predictor, memory: int) -> MemoryFit:
    """Return whether `estimate` fits into `memory` bytes, the largest batch that does, and the changes that help if it does not."""
    answer = fits(estimate, memory)
    changes = () if answer else changes_of(estimate, predictor, memory)
    return MemoryFit(need_of(estimate).safe, answer, largest_batch(estimate, predictor, memory), changes)


def advice(comparison: Comparison, predictor: Predictor, found: Sequence[MemoryFit]) -> tuple[Change, ...]:
    """Return the changes that lower the largest peak; none if each strategy has its own in `found`."""
    if found:
        return ()
    return changes_of(max(comparison.estimates, key=lambda estimate: estimate.prediction.peak.total), predictor, None)


def reasons_of(comparison: Comparison) -> tuple[Reason, ...]:
    """Return the reasons of each further strategy against the first one, or those of a single strategy."""
    first, *others = comparison.estimates
    if not others:
        return explain(first, None)
    return tuple(reason for estimate in others for reason in explain(estimate, first))


def subject_of(comparison: Comparison) -> dict[str, Any]:
    """Return which model and which batch the answer is about."""
    options, workload = comparison.options, comparison.estimates[0].workload
    return {
        "path": options.model,
        "batch": workload.batch,
        "seq_len": workload.seq_len,
        "image": options.image,
        "attention": options.attn or workload.attention,
        "world_size": max(estimate.strategy.world_size for estimate in comparison.estimates),
        "rank": options.rank,
        "stage": options.stage,
        "trainable": list(options.trainable),
    }


def _result(
    comparison: Comparison, reasons: Sequence[Reason], found: Sequence[MemoryFit], rows: Sequence[MeasuredRow] | None
) -> MemCompareResult:
    fit_results = found or (None,) * len(comparison.estimates)
    result: MemCompareResult = {
        "inputs": comparison.inputs.result(),
        "model": model_result(comparison.estimates[0]),
        "strategies": [strategy_result(estimate, fit) for estimate, fit in zip(comparison.estimates, fit_results, strict=True)],
        "versions": [release.result() for release in comparison.releases],
        "explanation": [_explanation_result(reason, comparison) for reason in reasons],
    }
    if rows is not None:
        result["measured"] = [measured_result(row) for row in rows]
    return result


def model_result(estimate: Estimate) -> ModelResult:
    """Return the model's counts as `estimate` trains it."""
    prediction = estimate.prediction
    return {
        "params": prediction.parameters,
        "trainable": prediction.trainable,
        "with_gradient": prediction.reached,
        "traced": estimate.traced,
    }


def strategy_result(estimate: Estimate, fit: MemoryFit | None) -> StrategyResult:
    """Return everything that is known about one strategy."""
    prediction = estimate.prediction
    peak, each = prediction.peak, max(1, prediction.parameters)
    reserved = max(prediction.reserved, peak.total)
    return {
        "name": estimate.strategy.name,
        "settings": estimate.strategy.plain(),
        "batch": estimate.workload.batch,
        "components": {**by_component(peak), "context": context_of(estimate.strategy)},
        "optimizer_state": parts_of(peak, "optimizer_state"),
        "activations": parts_of(peak, "activations"),
        "host": host_parts(prediction.host),
        "start_bytes": prediction.start.total,
        "steady_bytes": prediction.steady.total,
        "peak_bytes": peak.total,
        "peak_phase": peak.phase,
        "bytes_per_param": round(peak.total / each, 3),
        "reserved_bytes": reserved,
        "reserved_range": [max(peak.total, int(RESERVED[0] * reserved)), int(RESERVED[1] * reserved)],
        "phases": phases_result(prediction.start, prediction.phases, prediction.steady),
        "fits": None if fit is None else fit.fits,
        "fit": None if fit is None else _fit_result(fit),
    }


def _fit_result(fit: MemoryFit) -> MemoryFitResult:
    changes: list[SettingChangeResult] = [
        {"change": change.text, "needs_bytes": change.needs, "enough": change.enough} for change in fit.changes
    ]
    return {"needs_bytes": fit.needs, "largest_batch": fit.largest_batch, "changes": changes}


def phases_result(start: Moment, phases: Mapping[str, Moment], steady: Moment) -> dict[str, dict[str, Any]]:
    """Return the largest moment of every phase by component."""
    moments = {"start": start, **{name: phases[name] for name in PHASES if name in phases}, "between_steps": steady}
    return {name: {"total": moment.total, **by_component(moment)} for name, moment in moments.items()}


def _explanation_result(reason: Reason, comparison: Comparison) -> ExplanationResult:
    parameters = max(1, comparison.estimates[0].prediction.parameters)
    return {
        "component": reason.component,
        "bytes": reason.size,
        "bytes_per_param": round(reason.size / parameters, 3),
        "because": reason.because,
        "setting": reason.setting,
        "strategy": reason.name,
        "than": reason.than,
    }


def measured_result(row: MeasuredRow) -> MeasuredResult:
    """Return a measured number beside its prediction."""
    return {"strategy": row.strategy, "what": row.what, "predicted": row.predicted, "measured": row.measured, "error": row.error}
