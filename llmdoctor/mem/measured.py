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
PICKLE = b"\x80"
HELD = ("params", "master_params", "optimizer_state", "grad_accum", "grads", "buckets")


def read_measured(path: str) -> tuple[dict[str, Any], ...]:
    """Return the records of a file that `mem measure` wrote, one per line; of a snapshot, or of a log of DeepSpeed, a record of its peak.

    Raises QuestionError, with the line, for anything else.
    """
    from llmdoctor.files.opening import Refusal, read_bytes

    data = read_bytes(path, 256 * 2**20)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    if data.startswith(PICKLE):
        return (_of_snapshot(path),)
    text = data.decode("utf-8", "replace")
    if not text.lstrip().startswith("{"):
        return (_of_log(path, text),)
    records = []
    for number, line in enumerate(text.splitlines(), 1):
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


def _record(device: str, peak: int) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": "phase", "strategy": None, "device": device, "phase": "peak", "peak_bytes": peak}


def _of_snapshot(path: str) -> dict[str, Any]:
    """Return the peak of the device that holds most. Raises QuestionError if the snapshot has no history, or ends before the step did."""
    from llmdoctor.mem.snapshot import held_before, held_of, out_of_memory, peak_of, read_snapshot

    snapshot = read_snapshot(path)
    held = max(held_of(snapshot), key=lambda one: one.reserved, default=None)
    if held is None or not (peak := peak_of(snapshot, held.device, held_before(snapshot, held))).by_site:
        raise QuestionError(f"--measured {path}: the snapshot has no recorded history (_record_memory_history), so it shows no peak")
    if out_of_memory(snapshot, held.device) is not None:
        raise QuestionError(
            f"--measured {path}: the step ended out of memory, so its peak is not known: llmdoctor mem measure --snapshot {path}"
        )
    return _record(f"cuda:{held.device}", peak.bytes)


def _of_log(path: str, text: str) -> dict[str, Any]:
    """Return the largest Max_MA of DeepSpeed's see_memory_usage. Raises QuestionError for a log without one."""
    from llmdoctor.mem.oom_message import messages_of, usages_of

    if messages_of(text):
        raise QuestionError(f"--measured {path}: the step ended out of memory, so its peak is not known: llmdoctor mem oom {path}")
    usages = usages_of(text)
    if not usages:
        raise QuestionError(f"{path}:1: expected a record of `mem measure`, a memory snapshot, or a log with DeepSpeed's see_memory_usage")
    return _record("cuda:0", max(usage.max_allocated for usage in usages))


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
