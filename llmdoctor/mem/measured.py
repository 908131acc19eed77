"""Reads the records of `mem measure` and sets them beside the predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.components import by_component
from llmdoctor.mem.predict import predict
from llmdoctor.mem.types import Comparison, MeasuredRow

SCHEMA = "llmdoctor.mem/1"
HELD = ("params", "master_params", "optimizer_state", "grad_accum", "grads", "buckets")


def read_measured(path: str) -> tuple[dict[str, Any], ...]:
    """Return the records of a file that `mem measure` wrote, one per line.

    Raises QuestionError, with the line, for anything else.
    """
    from llmdoctor.files.opening import Refusal, read_bytes

    data = read_bytes(path, 256 * 2**20)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    records = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise QuestionError(f"{path}:{number}: expected a JSON object of `mem measure`, one a line") from None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise QuestionError(f"{path}:{number}: not a record of `mem measure` (schema {SCHEMA})")
        records.append(record)
    if not records:
        raise QuestionError(f"{path}: no records in it")
    return tuple(records)


def compare_measured(comparison: Comparison, records: Sequence[dict[str, Any]]) -> tuple[MeasuredRow, ...]:
    """Return each measured phase beside the prediction of the strategy with the same name.

    Peaks are compared only if they were measured on a device with an allocator. Raises QuestionError if no record belongs to a strategy.
    """
    rows: list[MeasuredRow] = []
    for estimate in comparison.estimates:
        exact = None
        for record in records:
            if (
                record.get("kind") != "phase"
                or record.get("rank", 0) != comparison.options.rank
                or not _of(record, estimate.strategy.name, len(comparison.estimates))
            ):
                continue
            if record.get("device") == "cpu" and exact is None:
                exact = predict(replace(estimate.job, exact=True))
            rows += _rows(estimate.strategy.name, exact if record.get("device") == "cpu" else estimate.prediction, record)
    if not rows:
        known = ", ".join(sorted({str(record.get("strategy")) for record in records}))
        raise QuestionError(
            f"--measured: no record of {', '.join(estimate.strategy.name for estimate in comparison.estimates)}; the file has {known}"
        )
    return tuple(rows)


def _of(record: dict[str, Any], name: str, strategies: int) -> bool:
    """Return whether a record belongs to a strategy: by its name, or because it is a user's own run and there is only one strategy."""
    return record.get("strategy") == name or (record.get("strategy") is None and strategies == 1)


def _rows(name: str, prediction: Any, record: dict[str, Any]) -> list[MeasuredRow]:
    phase, out = str(record.get("phase")), []
    if phase == "between steps":
        out.append(("steady", prediction.steady.total, record.get("allocated_bytes")))
        predicted = by_component(prediction.steady)
        measured = record["components"] if isinstance(record.get("components"), dict) else {}
        out += [(f"steady {key}", predicted[key], size) for key, size in measured.items() if key in predicted and key in HELD]
    elif phase in prediction.phases:
        out.append((f"{phase} peak", prediction.phases[phase].total, record.get("peak_bytes")))
    elif phase == "peak":
        out.append(("peak", prediction.peak.total, record.get("peak_bytes")))
    rows = []
    for what, predicted_bytes, value in out:
        if isinstance(value, int) and not isinstance(value, bool) and (value > 0 or predicted_bytes > 0):
            error = predicted_bytes / value - 1 if value else float("inf")
            rows.append(MeasuredRow(name, what, predicted_bytes, value, error))
    return rows
