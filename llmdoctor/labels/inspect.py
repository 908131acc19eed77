"""`labels inspect`: token by token, what is a training target."""

from __future__ import annotations

from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.labels.built import Setup, set_up, the_end_ids
from llmdoctor.labels.counts import Counts, count, count_thoughts, tokens_of
from llmdoctor.labels.ends import Ends
from llmdoctor.labels.findings import findings_of, raised
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.results import LabelsInspectResult, RowResult, TrainerErrorResult
from llmdoctor.labels.rows import read_rows
from llmdoctor.labels.screen import input_notes, sequence_blocks
from llmdoctor.labels.talks import count_talks, holds_talk
from llmdoctor.labels.types import Row, Sequence, TrainerError
from llmdoctor.labels.verdict import verdict_of
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.template import TemplateWorker

MOST_ROWS = 2000  # dataset rows of one inspection; `labels audit` counts any number


def inspect_report(options: LabelsOptions) -> Report:
    """Return the labels of each sequence that a trainer makes of a dataset.

    Raises QuestionError if the tokenizer, the rows or the settings cannot be read, or a setting is not known.
    """
    with TemplateWorker() as worker:
        worker.start()
        setup = set_up(options, worker)
        rows = _rows(options, setup)
        try:
            sequences = setup.build(rows)
        except TrainerError as error:
            return _refused(setup, error)
        return _report(setup, rows, _chosen(options, sequences))


def _rows(options: LabelsOptions, setup: Setup) -> list[Row]:
    first = (options.row or 0) // MOST_ROWS * MOST_ROWS  # packing joins neighbours, so the row comes with its block
    rows: list[Row] = []
    total = 0
    for row in read_rows(options.data):
        total = row.number + 1
        if row.number >= first + MOST_ROWS:
            setup.limits.append(f"only the rows {first:,} to {first + MOST_ROWS - 1:,} were used; labels audit reads all")
            break
        if row.number >= first:
            rows.append(row)
    if not total:
        raise QuestionError(f"{options.data}: the file holds no row")
    if options.row is not None and options.row >= first + len(rows):
        raise QuestionError(f"--row {options.row}: {options.data} has {plural(total, 'row')}, counted from 0")
    if first and len(rows) < MOST_ROWS:
        setup.limits.append(f"only the rows from {first:,} on were used; labels audit reads all")
    return rows


def _chosen(options: LabelsOptions, sequences: list[Sequence]) -> list[Sequence]:
    """Return the sequences that hold the row that was asked for; all without --row."""
    return sequences if options.row is None else [one for one in sequences if options.row in one.rows]


def vocabulary_of(directory: ModelDir) -> int | None:
    """Return vocab_size of config.json, also of its text_config; None if it is unknown."""
    value = directory.config.value if directory.config is not None else None
    for holder in (value, value.get("text_config") if isinstance(value, dict) else None):
        size = holder.get("vocab_size") if isinstance(holder, dict) else None
        if isinstance(size, int) and not isinstance(size, bool):
            return size
    return None


def _report(setup: Setup, rows: list[Row], sequences: list[Sequence]) -> Report:
    counts = Counts(
        rows=len(rows), kept=len(rows) if setup.options.row is not None else len({row for one in sequences for row in one.rows})
    )
    tokens = tokens_of(setup.chat, the_end_ids(setup), vocabulary_of(setup.directory), scored=setup.trainer.scores_last)
    ends = [count(counts, sequence, tokens) for sequence in sequences]
    shown = {number for one in sequences for number in one.rows}
    used = rows if setup.options.row is None else [row for row in rows if row.number in shown]
    counts.talks = any(map(holds_talk, used[:1]))
    count_thoughts(counts, used, sequences, setup.chat)
    count_talks(counts, used, sequences, setup.chat, renders_roles=setup.trainer.renders_roles)
    findings = findings_of(setup, counts)
    tables = sequence_blocks(setup, sequences)
    result: LabelsInspectResult = {
        "trainer": setup.trainer.name,
        "version": setup.version_text,
        "rows": [_row_result(setup, one, end) for one, end in zip(sequences, ends, strict=True)],
        "error": None,
        "inputs": setup.inputs.result(),
        "limits": setup.limits,
    }
    document = (*tables, *findings, *input_notes(setup.inputs, []))
    return Report("labels inspect", subject_of(setup), dict(result), findings, document=document, verdict=verdict_of(setup, counts))


def _row_result(setup: Setup, sequence: Sequence, ends: Ends) -> RowResult:
    encoder, roles = setup.chat.encoder, sequence.roles or [""] * len(sequence.ids)
    return {
        "row": sequence.rows[0] if sequence.rows else 0,
        "tokens": [
            {"id": token, "text": encoder.text_of(token), "label": label, "role": role, "from": source}
            for token, label, role, source in zip(sequence.ids, sequence.labels, roles, sequence.sources, strict=True)
        ],
        "trained": sequence.trained,
        "masked": len(sequence.ids) - sequence.trained,
        "truncated": sequence.truncated,
        "end_trained": ends.all_trained,
        "end_token": setup.chat.end_text if setup.chat.template is not None else encoder.names["eos_token"],
    }


def subject_of(setup: Setup) -> dict[str, Any]:
    """Return what a report is about."""
    return {
        "path": setup.options.model,
        "data": setup.options.data,
        "trainer": setup.trainer.name,
        "version": setup.stated or setup.version_text,
        "config": setup.options.config,
    }


def error_result(error: TrainerError) -> TrainerErrorResult:
    """Return an exception of the trainer for a program."""
    return {"type": error.kind, "message": error.message, "place": error.place}


def _refused(setup: Setup, error: TrainerError) -> Report:
    finding = raised(setup, error)
    result: LabelsInspectResult = {
        "trainer": setup.trainer.name,
        "version": setup.version_text,
        "rows": [],
        "error": error_result(error),
        "inputs": setup.inputs.result(),
        "limits": setup.limits,
    }
    limits = f" ({'; '.join(setup.limits)})" if setup.limits else ""
    verdict = Verdict(f"{setup.who} raises {error.kind}: {error.message}{limits}", "problem")
    return Report("labels inspect", subject_of(setup), dict(result), (finding,), document=(finding,), verdict=verdict)
