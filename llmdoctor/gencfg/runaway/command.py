"""`gencfg runaway`: what a file of recorded outputs shows, as a report."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural
from llmdoctor.files.opening import shown_path
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.cause import Why, likely_cause
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.runaway.expected import marks_of
from llmdoctor.gencfg.runaway.findings import findings_of
from llmdoctor.gencfg.runaway.judge import Judge
from llmdoctor.gencfg.runaway.marks import SAMPLE, Marks, infer
from llmdoctor.gencfg.runaway.screen import ENDS, document_of
from llmdoctor.gencfg.runaway.tally import Looped, Passed, Tally
from llmdoctor.requests.output_files import read_rows
from llmdoctor.requests.record_log import RecordLog
from llmdoctor.requests.sequences import Columns, OutputSequence

_TICK = 256
_MUCH = 2**24  # bytes and characters of rows that are kept to infer a terminator from


def runaway_report(
    path: str, model: str | None = None, terminators: list[str] | None = None, limit: int | None = None, columns: Columns | None = None
) -> Report:
    """Read the outputs at `path` once and say how they ended.

    `limit` is in tokens, for rows that name none. Raises QuestionError where the file, the model or an option cannot be used.
    """
    examined = _examine(model)
    marks = marks_of(terminators or [], examined)
    reading = RecordLog("standard input" if path == "-" else shown_path(path), columns or Columns())
    tally, marks = _count(path, reading, marks, limit)
    _refuse_unusable(reading, tally)
    evidence = Evidence(path, reading, marks, tally, examined, tally.infer_length())
    why = likely_cause(evidence)
    return Report(
        "gencfg runaway",
        subject={"path": path, "model": model, "terminators": terminators or [], "max_new_tokens": limit},
        result=_result(evidence, why),
        findings=findings_of(evidence, why),
        skipped=tuple(_skipped(reading)),
        document=document_of(evidence, why),
        nothing=not tally.sequences,
        told=True,
    )


def _examine(model: str | None) -> Examined | None:
    if model is None:
        return None
    from llmdoctor.gencfg.examined import examine

    return examine(model)


def _count(path: str, reading: RecordLog, marks: Marks, limit: int | None) -> tuple[Tally, Marks]:
    """One pass over the rows; the first few are kept until they have told the terminator, where nobody names one."""
    tally, progress = Tally(limit), Progress()
    rows = read_rows(path, reading)
    try:
        sample = _sample(rows)
        marks = infer(marks, sample)
        look, add = Judge(marks, limit).look, tally.add
        for row in chain(sample, rows):
            add(row, look(row))
            if tally.sequences % _TICK == 0 and (spent := progress.due()):
                share = f", {min(reading.at / reading.size, 1.0):.0%} of the file" if reading.size else ""
                progress.say(f"{tally.sequences:,} sequences{share}, {tally.sequences / spent:,.0f} a second")
    finally:
        progress.close()
    return tally, marks


def _sample(rows: Iterator[OutputSequence]) -> list[OutputSequence]:
    """The first rows: so many, or so much."""
    sample: list[OutputSequence] = []
    size = 0
    for row in islice(rows, SAMPLE):
        sample.append(row)
        size += len(row.ids or "") + len(row.text or "") + len(row.raw or "")
        if size > _MUCH:
            break
    return sample


def _refuse_unusable(reading: RecordLog, tally: Tally) -> None:
    """Raise QuestionError where there are records and none of them holds a sequence."""
    if tally.sequences or not (reading.skipped or (reading.size and reading.names)):
        return
    where = reading.shown_name if not reading.first else f"{reading.shown_name}:{reading.first[0][0]}"
    if not reading.names:
        raise QuestionError(f"{where}: no outputs in it: {reading.first[0][1]}")
    found = ", ".join(reading.names[:12]) + (", ..." if len(reading.names) > 12 else "")
    wanted = reading.columns
    named = " and ".join(f"{option} {name}" for option, name in (("--ids", wanted.ids), ("--text", wanted.text)) if name is not None)
    if named:
        raise QuestionError(f"{where}: {named}: no such column with outputs, found {found}")
    raise QuestionError(f"{where}: no column with outputs is known, found {found}: name it with --ids COLUMN or --text COLUMN")


def _skipped(reading: RecordLog) -> Iterator[Skipped]:
    for line, reason in reading.first:
        yield Skipped(f"{reading.shown_name}:{line}", reason)
    rest = reading.skipped - len(reading.first)
    if rest:
        yield Skipped(reading.shown_name, f"{plural(rest, 'more record')} of {reading.records:,}")


def _result(evidence: Evidence, why: Why | None) -> dict[str, Any]:
    tally, reading = evidence.tally, evidence.reading
    return {
        "sequences": tally.sequences,
        "ended_by": {name: tally.ended[name] for name in ENDS},
        "passed_terminators": [_passed(entry) for entry in tally.by_passed()],
        "loops": [_loop(entry) for entry in tally.by_loop()],
        "cause": None if why is None else why.text,
        "limit": tally.limit,
        "tokens": tally.units["token"],
        "characters": tally.units["character"],
        "wasted": {"tokens": tally.wasted["token"], "characters": tally.wasted["character"], "share": tally.wasted_share},
        "terminators": [{"token": mark.text, "id": mark.id, "source": mark.source} for mark in evidence.marks.marks],
        "inferred": evidence.inferred,
        "model": None if evidence.examined is None else _model(evidence.examined),
        "empty": tally.empty,
        "padded": tally.padded,
        "fronted": tally.fronted,
        "with_ids": tally.with_ids,
        "format": reading.form,
        "records": reading.records,
        "skipped": reading.skipped,
    }


def _passed(entry: Passed) -> dict[str, Any]:
    return {
        "token": entry.mark.text,
        "id": entry.mark.id,
        "unit": entry.unit,
        "sequences": entry.count,
        "median_position": entry.positions.median(),
        "wasted": entry.wasted,
        "wasted_share": entry.wasted / entry.length if entry.length else 0.0,
        "stopped_later": entry.stopped,
        "examples": [{"line": line, "position": position} for line, position in entry.examples],
    }


def _loop(entry: Looped) -> dict[str, Any]:
    return {
        "period": entry.period,
        "unit": entry.unit,
        "sequences": entry.count,
        "median_start": entry.starts.median(),
        "median_repeats": entry.repeats.median(),
        "stopped": entry.stopped,
        "ids": None if entry.unit_ids is None else list(entry.unit_ids),
        "text": entry.unit_text,
        "examples": [{"line": line, "start": start, "repeats": repeats} for line, start, repeats in entry.examples],
    }


def _model(examined: Examined) -> dict[str, Any]:
    end, stop = examined.terminator, examined.answer.effective.stop
    return {
        "path": examined.directory.shown_name,
        "transformers": {"eos_token_id": list(stop.eos_token_id), "never_stops": stop.never_stops},
        "vllm": {"eos_token_id": list(examined.vllm.stop.eos_token_id), "never_stops": examined.vllm.stop.never_stops},
        "terminator": None if end is None else {"token": end.token, "id": end.id},
    }
