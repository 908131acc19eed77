"""What `mem measure` wrote, set beside what is predicted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.components import by_component
from llmdoctor.mem.options import Answer
from llmdoctor.mem.predict import predict

SCHEMA = "llmdoctor.mem/1"
HELD = ("params", "master_params", "optimizer_state", "grad_accum", "grads", "buckets")


@dataclass(frozen=True, slots=True)
class Beside:
    """One number of one strategy: predicted, measured, the signed error of the prediction."""

    strategy: str
    what: str
    predicted: int
    measured: int
    error: float


def read_measured(path: str) -> tuple[dict[str, Any], ...]:
    """The records of a file of `mem measure`, one a line.

    Raises QuestionError, with the line, for what is none.
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


def set_beside(answer: Answer, records: Sequence[dict[str, Any]]) -> tuple[Beside, ...]:
    """Each measured phase beside the strategy of the same name; peaks only where they were measured on a device with an allocator.

    Raises QuestionError where no record is of a strategy that was asked about.
    """
    rows: list[Beside] = []
    for case in answer.cases:
        exact = None
        for record in records:
            if (
                record.get("kind") != "phase"
                or record.get("rank", 0) != answer.asked.rank
                or not _of(record, case.strategy.name, len(answer.cases))
            ):
                continue
            if record.get("device") == "cpu" and exact is None:
                exact = predict(replace(case.job, exact=True))
            rows += _rows(case.strategy.name, exact if record.get("device") == "cpu" else case.prediction, record)
    if not rows:
        known = ", ".join(sorted({str(record.get("strategy")) for record in records}))
        raise QuestionError(f"--measured: no record of {', '.join(case.strategy.name for case in answer.cases)}; the file has {known}")
    return tuple(rows)


def _of(record: dict[str, Any], name: str, asked: int) -> bool:
    """Whether a record is of a strategy: by its name, or of a user's own run where one strategy alone was asked about."""
    return record.get("strategy") == name or (record.get("strategy") is None and asked == 1)


def _rows(name: str, prediction: Any, record: dict[str, Any]) -> list[Beside]:
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
            rows.append(Beside(name, what, predicted_bytes, value, error))
    return rows
