"""`mem compare`: what each strategy holds, why they differ, what fits; as a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.report import Report
from llmdoctor.mem.components import by_component, context_of, host_parts, parts_of
from llmdoctor.mem.explain import Reason, explain
from llmdoctor.mem.fit import Fit, fit, read_size
from llmdoctor.mem.ledger import Moment
from llmdoctor.mem.measured import read_measured, set_beside
from llmdoctor.mem.options import Answer, Asked, Case, ask
from llmdoctor.mem.predict import PHASES
from llmdoctor.mem.rules import findings_of
from llmdoctor.mem.screen import document

RESERVED = (0.77, 1.29)  # what the reserved bytes of 71 measured runs were, as a ratio to the simulated allocator's


def compare_report(asked: Asked, measured: str | None = None) -> Report:
    """Predict, explain, set beside what was measured."""
    memory = None if asked.gpu_memory is None else read_size(asked.gpu_memory)
    answer, predictor = ask(asked)
    fits = tuple(fit(case, predictor, memory) for case in answer.cases) if memory is not None else ()
    beside = set_beside(answer, read_measured(measured)) if measured is not None else ()
    reasons = reasons_of(answer)
    result: dict[str, Any] = {
        "model": model_of(answer),
        "strategies": [strategy_of(case, fits[number] if fits else None) for number, case in enumerate(answer.cases)],
        "explanation": [explanation_of(reason, answer) for reason in reasons],
    }
    if measured is not None:
        result["measured"] = [vars_of(row) for row in beside]
    return Report(
        "mem compare",
        subject=subject_of(answer),
        result=result,
        findings=findings_of(answer, fits, memory, beside),
        skipped=answer.skipped,
        document=document(answer, reasons, fits, memory, beside),
        told=True,
    )


def reasons_of(answer: Answer) -> tuple[Reason, ...]:
    """Each other strategy against the first; a single one by itself."""
    first, *others = answer.cases
    if not others:
        return explain(first, None)
    return tuple(reason for case in others for reason in explain(case, first))


def subject_of(answer: Answer) -> dict[str, Any]:
    """Which model and which batch."""
    asked, workload = answer.asked, answer.cases[0].workload
    return {
        "path": asked.model,
        "batch": workload.batch,
        "seq_len": workload.seq_len,
        "image": asked.image,
        "attention": asked.attention or workload.attention,
        "world_size": max(case.strategy.world_size for case in answer.cases),
        "rank": asked.rank,
        "stage": asked.stage,
        "trainable": list(asked.trainable),
    }


def model_of(answer: Answer) -> dict[str, Any]:
    """The model's counts, as the first strategy has them."""
    case = answer.cases[0]
    return {
        "params": case.prediction.parameters,
        "trainable": case.prediction.trainable,
        "with_gradient": case.prediction.reached,
        "traced": case.traced,
    }


def strategy_of(case: Case, verdict: Fit | None) -> dict[str, Any]:
    """The contract's object of one strategy."""
    prediction = case.prediction
    peak, each = prediction.peak, max(1, prediction.parameters)
    reserved = prediction.reserved
    return {
        "name": case.strategy.name,
        "settings": case.strategy.plain(),
        "batch": case.workload.batch,
        "components": {**by_component(peak), "context": context_of(case.strategy)},
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
        "phases": phases_of(prediction.start, prediction.phases, prediction.steady),
        "fits": None if verdict is None else verdict.fits,
        "fit": None if verdict is None else _fit(verdict),
    }


def _fit(verdict: Fit) -> dict[str, Any]:
    changes = [{"change": text, "needs_bytes": size} for text, size in verdict.changes]
    return {"needs_bytes": verdict.needs, "largest_batch": verdict.largest_batch, "changes": changes}


def phases_of(start: Moment, phases: Mapping[str, Moment], steady: Moment) -> dict[str, Any]:
    """Every phase's largest moment by component."""
    moments = {"start": start, **{name: phases[name] for name in PHASES if name in phases}, "between_steps": steady}
    return {name: {"total": moment.total, **by_component(moment)} for name, moment in moments.items()}


def explanation_of(reason: Reason, answer: Answer) -> dict[str, Any]:
    """One entry of the contract's explanation."""
    parameters = max(1, answer.cases[0].prediction.parameters)
    return {
        "component": reason.component,
        "bytes": reason.size,
        "bytes_per_param": round(reason.size / parameters, 3),
        "because": reason.because,
        "setting": reason.setting,
        "remove": reason.remove,
        "strategy": reason.case,
        "than": reason.than,
    }


def vars_of(row: Any) -> dict[str, Any]:
    """A frozen slotted row as plain values."""
    return {name: getattr(row, name) for name in type(row).__slots__}
