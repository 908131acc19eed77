"""`mem measure MODEL`: real steps with random weights, set beside the prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmdoctor.attach.records import Record
from llmdoctor.core.document import Bar, Bars, Block, Cell, Note, Table
from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.report import Report, Verdict
from llmdoctor.mem.cases import run_case, write_records
from llmdoctor.mem.compare import measured_result
from llmdoctor.mem.components import Unit
from llmdoctor.mem.findings import mispredicted
from llmdoctor.mem.measured import compare_measured
from llmdoctor.mem.options import MeasureOptions
from llmdoctor.mem.predictor import compare_strategies
from llmdoctor.mem.results import MeasuredStrategyResult, MeasureResult
from llmdoctor.mem.screen import column_names
from llmdoctor.mem.types import Comparison, MeasuredRow

NEAR = 0.02  # of the measured value


def measure_report(options: MeasureOptions) -> Report:
    """Run real steps of every strategy and report what they held; a step that runs out of memory is a result.

    Raises QuestionError if a case cannot be run or its process is killed.
    """
    if options.steps < 2:
        raise QuestionError(f"--steps {options.steps}: expected at least 2, because the first step has no optimizer state yet")
    if installed_version("torch") is None or installed_version("transformers") is None:
        raise MissingExtra("mem measure", "torch with transformers", "live")
    comparison, _ = compare_strategies(options)
    for estimate in comparison.estimates:
        if estimate.strategy.engine is not None and installed_version("deepspeed") is None:
            raise MissingExtra(f"--strategy {estimate.strategy.name}", "deepspeed", "deepspeed")
    records = [record for estimate in comparison.estimates for record in run_case(options, estimate.strategy, options.steps)]
    if options.output is not None:
        write_records(options.output, records)
    rows = _rows(comparison, records)
    result: MeasureResult = {
        "strategies": [_strategy_result(estimate.strategy.name, records) for estimate in comparison.estimates],
        "beside": [measured_result(row) for row in rows],
    }
    findings = tuple(mispredicted(rows))
    return Report(
        "mem measure",
        subject={"path": options.model, "steps": options.steps, "world_size": options.world_size or 1, "output": options.output},
        result={**result},
        findings=findings,
        document=(*_document(comparison, records, rows), *findings, *_next(options)),
        verdict=_verdict(records, rows),
    )


def _rows(comparison: Comparison, records: Sequence[Record]) -> tuple[MeasuredRow, ...]:
    wanted = [record for record in records if record["kind"] == "phase" and record["step"] > 1]
    return compare_measured(comparison, wanted) if wanted else ()


def _strategy_result(name: str, records: Sequence[Record]) -> MeasuredStrategyResult:
    mine = [record for record in records if record["strategy"] == name]
    failed = next((record for record in mine if record["kind"] == "failed"), None)
    return {"name": name, "phases": [record for record in mine if record["kind"] == "phase"], "failed": failed}


def _device(records: Sequence[Record]) -> str:
    return next((str(record["device"]) for record in records if record["kind"] == "phase"), "no device")


def _failed(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["kind"] == "failed"]


def _verdict(records: Sequence[Record], rows: Sequence[MeasuredRow]) -> Verdict:
    failed, device = _failed(records), _device(records)
    if failed:
        return Verdict(f"{len(failed)} of the strategies did not finish on {device}: {_outcome(failed[0])}.", "problem")
    if not rows:
        return Verdict(f"Measured on {device}.")
    worst = max(abs(row.error) for row in rows)
    peaks = "" if device != "cpu" else "; without a GPU the peaks are not measured"
    return Verdict(
        f"Measured on {device}: the prediction is off by at most {100 * worst:.2f}%{peaks}.", "ok" if worst <= NEAR else "problem"
    )


def _outcome(record: Record) -> str:
    return "out of memory" if record["outcome"] == "out_of_memory" else str(record["outcome"])


def _document(comparison: Comparison, records: Sequence[Record], rows: Sequence[MeasuredRow]) -> Iterator[Block]:
    names = dict(zip((estimate.strategy.name for estimate in comparison.estimates), column_names(comparison.estimates), strict=True))
    for record in _failed(records):
        where = f"{names[record['strategy']]}, step {record['step']}, {record['phase']}"
        yield Note("Error", f"{where}: {_outcome(record)}: {record['message']}", "bad")
    if rows:
        yield _picture(rows, names)
    if any(name != short for name, short in names.items()):
        yield Note("Columns", "\n".join(f"{short} = {name}" for name, short in names.items()), "dim")
    if _device(records) == "cpu":
        counted = "a CPU has no allocator that counts: what is held between steps was counted tensor by tensor, peaks were not measured"
        yield Note("Limits", counted, "dim")


def _picture(rows: Sequence[MeasuredRow], names: Mapping[str, str]) -> Bars:
    gb = Unit(max(row.measured for row in rows))
    cells = tuple((names[row.strategy], row.what, gb(row.predicted), gb(row.measured), Cell(f"{100 * row.error:+.2f}%")) for row in rows)
    table = Table((gb.title, "", "predicted", "measured", "error"), cells)
    bars = tuple(
        Bar(f"{names[row.strategy]}: {row.what}", (row.predicted / gb.size, row.measured / gb.size), f"{100 * row.error:+.2f}%")
        for row in rows
    )
    return Bars("Predicted and measured", gb.name, ("predicted", "measured"), bars, stacked=False, digits=3, instead=(table,))


def _next(options: MeasureOptions) -> tuple[Note, ...]:
    if options.output is None:
        return ()
    strategies = " ".join(f"--strategy {text}" for text in options.strategy)
    return (Note("Next", f"llmdoctor mem compare {options.model} {strategies} --measured {options.output}"),)
