"""`mask test`: does anything leak? The static rules over the inputs, then the model itself, run on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.document import Block, Cell, Grid, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.selection import Selection
from llmdoctor.mask import architectures, releases, verdicts
from llmdoctor.mask.accounting import account
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.drawing import MOST, leaking
from llmdoctor.mask.findings import BUDGET, examine
from llmdoctor.mask.forward_inputs import backends_of, forward_inputs, read_config
from llmdoctor.mask.functions import names_function
from llmdoctor.mask.input_findings import of_placeholders
from llmdoctor.mask.joining import BUILD, joined, of_exceptions, of_refusals
from llmdoctor.mask.options import MaskTestOptions
from llmdoctor.mask.plan import plan
from llmdoctor.mask.results import MaskTestResult, MeasurementResult
from llmdoctor.mask.sources import inputs_of, with_decoder
from llmdoctor.mask.types import GPT_FAST, SHORT, BackendPlan, ForwardInputs
from llmdoctor.modeldir.directory import ModelDir, read_model_dir

if TYPE_CHECKING:
    from llmdoctor.mask.live.differential import FailedTest, Measurement

# The inputs if the user gives none: padding at either side, and two packed documents.
SUITE: tuple[dict[str, str | None], ...] = (
    {"lengths": "5,8", "pad": "left"},
    {"lengths": "5,8", "pad": "right"},
    {"packed": "3,5"},
)
_DESCRIBING = ("shape", "lengths", "packed", "input_ids", "messages", "mask", "phase")
_HOW = "gradients of real tokens' logits with respect to tokens they must not see (exactly 0.0 if the mask holds), and each row against itself alone"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TestedModel:
    """A model directory, or (`directory` None) a function that builds a model. `arch` is None if no plan can be made."""

    __test__ = False

    name: str
    directory: ModelDir | None
    arch: Architecture | None
    config: dict[str, Any]

    @property
    def kind(self) -> str:
        """Return "model" or "function"."""
        return "function" if self.directory is None else "model"


@dataclass(slots=True, eq=False, repr=False)
class TestRun:
    """What was found over one or more sets of inputs."""

    __test__ = False

    findings: list[Finding] = field(default_factory=list)
    measurements: list[tuple[str, Measurement]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    drawn: list[Grid] = field(default_factory=list)
    inputs: list[ForwardInputs] = field(default_factory=list)
    read: Inputs = field(default_factory=Inputs)
    not_run: int = 0
    built: bool = False  # whether the model was built under any backend


def test_report(options: MaskTestOptions) -> Report:
    """Return the findings of every MSK rule over the inputs that `options` describe, or over a small suite if they describe none.

    Raises QuestionError if the model, the inputs or an option cannot be understood.
    """
    model = _tested_model(options.model)
    for name in ("backend", "weights"):
        if model.directory is None and getattr(options, name):
            raise QuestionError(f"--{name} with {options.model}: the model is tested as its function builds it, leave the option out")
    backends = backends_of(options)
    if GPT_FAST in backends:
        raise QuestionError("--backend gpt-fast: there is nothing to test, gpt-fast has one causal mask for everything")
    own = any(getattr(options, name) is not None for name in _DESCRIBING)
    run = TestRun()
    for each in [options] if own else [replace(options, **changes) for changes in SUITE]:  # type: ignore[arg-type]
        _add(run, model, each, backends, own=own)
    kept = _chosen(_unique(run.findings), options)
    left_out = tuple({(one.what, one.reason): one for one in run.skipped}.values())
    result: MaskTestResult = {
        "subjects": [{"path": options.model, "kind": model.kind, "findings": list(range(len(kept)))}],
        "tests": [_result(words, one) for words, one in run.measurements],
        "inputs": run.read.result(),
    }
    nothing = not options.static and not run.measurements and not kept
    why = left_out[0].reason if left_out and (run.not_run or not run.built) else None
    release = "" if model.arch is None else releases.doubt(model.arch.model_type)
    verdict = verdicts.of_test(
        kept, len(run.measurements), run.not_run, why, run.inputs if own else [], static=options.static, release=release
    )
    return Report(
        command="mask test",
        subject={"path": options.model, "backends": list(backends)},
        result=dict(result),
        findings=tuple(kept),
        skipped=left_out,
        document=_document(run, kept),
        verdict=verdict,
        nothing=nothing and not run.not_run,
        unanswered=not kept and (bool(release) if options.static else run.not_run > 0),
    )


def _tested_model(name: str) -> TestedModel:
    if names_function(name):
        return TestedModel(name, None, None, {})
    directory = read_model_dir(name)
    config = read_config(directory)
    try:
        return TestedModel(name, directory, architectures.read(config), config)
    except QuestionError:
        return TestedModel(name, directory, None, config)


def _add(run: TestRun, model: TestedModel, options: MaskTestOptions, backends: tuple[str, ...], *, own: bool) -> None:
    """Add what one set of inputs shows; over the suite (not `own`) most errors become warnings."""
    inputs = inputs_of(model.directory, options)[0] if model.directory is not None else forward_inputs(options)
    inputs = with_decoder(inputs, model.arch, model.config)
    run.inputs.append(inputs)
    run.read = account(inputs, model.arch, options)
    plans = _plans(model.arch, inputs, backends, options) if model.arch is not None else []
    static = _static(model, inputs, plans, options)
    measured: list[Measurement] = []
    failed: list[FailedTest] = []
    missed: list[tuple[str, str]] = []
    if not options.static:
        from llmdoctor.mask.live import measure_model

        source = model.name if model.directory is None else model.directory.path
        measured, failed, missed = measure_model(
            source, inputs, backends, is_function=model.directory is None, weights=options.weights, arch=model.arch
        )
        run.skipped += [
            *(Skipped(what, why) for what, why in missed),
            *(Skipped(one.backend, f"{one.test}: {one.error}") for one in failed),
        ]
        run.not_run += len(failed)
        run.built |= len(missed) < len(backends)
    run.measurements += [(inputs.description, one) for one in measured]
    run.drawn += leaking(plans, inputs, static)
    found = joined(static, measured, model.arch)
    found += of_exceptions(failed if own else [one for one in failed if one.plainly and one.test == BUILD], found)
    if options.backend:
        found += of_refusals(missed, found)
    run.findings += found if own else [_milder(one) for one in found]


def _plans(arch: Architecture, inputs: ForwardInputs, backends: tuple[str, ...], options: MaskTestOptions) -> list[BackendPlan]:
    plans = [plan(arch, inputs, backend, arch.dtype) for backend in backends]
    return [each for each in plans if each.error is None or options.backend or not each.error.startswith("ValueError")]


def _static(model: TestedModel, inputs: ForwardInputs, plans: list[BackendPlan], options: MaskTestOptions) -> list[Finding]:
    if model.arch is None:
        return list(of_placeholders(inputs, model.config, complete=options.messages is not None))
    budget = BUDGET if options.budget is None else options.budget
    found = examine(model.arch, inputs, plans, config=model.config, budget=budget)
    found += of_placeholders(inputs, model.config, complete=options.messages is not None)
    return [one for one in found if one.code != "MSK020" or options.backend]


def _milder(one: Finding) -> Finding:
    """A finding of the suite describes such inputs; only what is wrong with the model itself is an error."""
    of_model = one.code in ("MSK003", "MSK010", "MSK019", "MSK020")
    return one if of_model or one.severity is not Severity.ERROR else replace(one, severity=Severity.WARNING)


def _unique(findings: Sequence[Finding]) -> list[Finding]:
    seen: dict[tuple[str, str], Finding] = {}
    for one in findings:
        seen.setdefault((one.code, one.message), one)
    return list(seen.values())


def _chosen(findings: Sequence[Finding], options: MaskTestOptions) -> list[Finding]:
    return list(Selection(select=tuple(options.select), ignore=tuple(options.ignore)).keep(findings))


def _result(words: str, one: Measurement) -> MeasurementResult:
    return {
        "test": one.name, "backend": one.backend, "inputs": words, "row": one.row, "span": list(one.span), "measured": one.value,
        "threshold": one.threshold, "passed": one.passed,
    }  # fmt: skip


def _document(run: TestRun, findings: Sequence[Finding]) -> tuple[Block, ...]:
    measured = [_table(run.measurements), Note("How", _HOW, "dim")] if run.measurements else []
    ignored = verdicts.ignored_text(run.read)
    library = releases.of_run() if run.measurements else releases.of_plan()
    notes = [*([Note("Ignored", ignored, "dim")] if ignored else []), Note("Library", library, "dim")]
    return (*findings, *measured, *(run.drawn[:MOST] if findings else ()), *notes)


def _table(measurements: Sequence[tuple[str, Measurement]]) -> Table:
    """Return one row per input and test, one column per backend, each with the worst that was measured."""
    backends = list(dict.fromkeys(one.backend for _, one in measurements))
    worst: dict[tuple[str, str], dict[str, Measurement]] = {}
    for words, one in measurements:
        held = worst.setdefault((words, one.name), {}).get(one.backend)
        if held is None or not one.value <= held.value:
            worst[words, one.name][one.backend] = one
    rows: list[tuple[str | Cell, ...]] = []
    last = ""
    for (words, name), each in worst.items():
        if words != last:
            rows.append((Cell(words, "dim"), *[""] * len(backends)))
            last = words
        rows.append((f"  {name}", *(_cell(each.get(backend)) for backend in backends)))
    return Table(("measured, in red what is too much", *(SHORT.get(backend, backend) for backend in backends)), tuple(rows))


def _cell(one: Measurement | None) -> Cell:
    if one is None:
        return Cell("-", "dim")
    value = "NaN" if np.isnan(one.value) else f"{one.value:.2g}"
    return Cell(value if one.passed else f"{value} > {one.threshold:g}", "plain" if one.passed else "bad")
