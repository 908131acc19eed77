"""`gencfg runaway`: how the recorded outputs in a file ended, as a report."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural
from llmdoctor.files.opening import shown_path
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.cause import LikelyCause, likely_cause
from llmdoctor.gencfg.runaway.counts import LoopGroup, OutputCounts, PassedMark
from llmdoctor.gencfg.runaway.end_marks import SAMPLE, EndMarks, infer
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.runaway.findings import findings_of
from llmdoctor.gencfg.runaway.model_marks import marks_of
from llmdoctor.gencfg.runaway.observe import Observer
from llmdoctor.gencfg.runaway.options import RunawayOptions
from llmdoctor.gencfg.runaway.results import LoopResult, PassedTerminatorResult, RunawayModelResult, RunawayResult
from llmdoctor.gencfg.runaway.screen import document_of
from llmdoctor.gencfg.runaway.verdict import verdict_of
from llmdoctor.requests.output_files import read_outputs
from llmdoctor.requests.record_log import RecordLog
from llmdoctor.requests.sequences import Columns, OutputSequence

_TICK = 256
_MUCH = 2**24  # bytes and characters of sequences that are kept to infer a terminator from


def runaway_report(options: RunawayOptions) -> Report:
    """Read the outputs once and return how they ended. Raises QuestionError if the file, the model or an option cannot be used."""
    path = options.path
    examined = _examine(options.model)
    marks = marks_of(options.terminators, examined)
    log = RecordLog("standard input" if path == "-" else shown_path(path), Columns(options.ids, options.text))
    counts, marks = _count(path, log, marks, options.max_new_tokens)
    _refuse_unusable(log, counts)
    evidence = Evidence(path=path, log=log, marks=marks, counts=counts, examined=examined, inferred_lengths=counts.infer_length())
    cause = likely_cause(evidence)
    verdict = verdict_of(evidence)
    findings = findings_of(evidence, cause)
    return Report(
        "gencfg runaway",
        subject={"path": path, "model": options.model, "terminators": list(options.terminators), "max_new_tokens": options.max_new_tokens},
        result=_result(evidence, cause),
        findings=findings,
        skipped=tuple(_skipped(log)),
        document=document_of(evidence, cause, findings),
        verdict=verdict,
        nothing=not counts.sequences,
        unanswered=bool(verdict.status == "undecided" and counts.sequences and (log.unread or log.cut_off)),
    )


def _examine(model: str | None) -> Examined | None:
    if model is None:
        return None
    from llmdoctor.gencfg.examined import examine

    return examine(model)


def _count(path: str, log: RecordLog, marks: EndMarks, limit: int | None) -> tuple[OutputCounts, EndMarks]:
    """Read the sequences once. The first ones are kept until the terminator and the padding have been inferred from them."""
    counts, progress = OutputCounts(limit), Progress()
    sequences = read_outputs(path, log)
    try:
        sample = _sample(sequences)
        marks = infer(marks, sample)
        observe, add = Observer(marks, limit).observe, counts.add
        for sequence in chain(sample, sequences):
            add(sequence, observe(sequence))
            if counts.sequences % _TICK == 0 and (spent := progress.due()):
                share = f", {min(log.position / log.size, 1.0):.0%} of the file" if log.size else ""
                progress.say(f"{counts.sequences:,} sequences{share}, {counts.sequences / spent:,.0f} a second")
    finally:
        progress.close()
    return counts, marks


def _sample(sequences: Iterator[OutputSequence]) -> list[OutputSequence]:
    """Return the first sequences: SAMPLE of them, fewer if they are long."""
    sample: list[OutputSequence] = []
    size = 0
    for sequence in islice(sequences, SAMPLE):
        sample.append(sequence)
        size += len(sequence.ids or "") + len(sequence.text or "") + len(sequence.raw or "")
        if size > _MUCH:
            break
    return sample


def _refuse_unusable(log: RecordLog, counts: OutputCounts) -> None:
    """Raise QuestionError if there are records and none of them holds a sequence that can be read."""
    if counts.sequences or not (log.skipped or (log.size and log.column_names)):
        return
    where = log.shown_name if not log.first_skipped else f"{log.shown_name}:{log.first_skipped[0][0]}"
    if not log.column_names:
        raise QuestionError(f"{where}: no outputs in it: {log.first_skipped[0][1]}")
    found = ", ".join(log.column_names[:12]) + (", ..." if len(log.column_names) > 12 else "")
    wanted = log.columns
    named = " and ".join(f"{option} {name}" for option, name in (("--ids", wanted.ids), ("--text", wanted.text)) if name is not None)
    if named:
        raise QuestionError(f"{where}: {named}: no such column with outputs, found {found}")
    raise QuestionError(f"{where}: no column with outputs is known, found {found}: name it with --ids COLUMN or --text COLUMN")


def _skipped(log: RecordLog) -> Iterator[Skipped]:
    for line, reason in log.first_skipped:
        yield Skipped(f"{log.shown_name}:{line}", reason)
    rest = log.skipped - len(log.first_skipped)
    if rest:
        yield Skipped(log.shown_name, f"{plural(rest, 'more record')} of {log.records:,}")


def _result(evidence: Evidence, cause: LikelyCause | None) -> RunawayResult:
    counts, log = evidence.counts, evidence.log
    ended = counts.ended
    return {
        "sequences": counts.sequences,
        "ended_by": {
            "eos": ended["eos"],
            "stop": ended["stop"],
            "length": ended["length"],
            "other": ended["other"],
            "unknown": ended["unknown"],
        },
        "passed_terminators": [_passed(entry) for entry in counts.by_passed()],
        "loops": [_loop(entry) for entry in counts.by_loop()],
        "cause": None if cause is None else cause.text,
        "limit": counts.limit,
        "tokens": counts.units["token"],
        "characters": counts.units["character"],
        "wasted": {"tokens": counts.wasted["token"], "characters": counts.wasted["character"], "share": counts.wasted_share},
        "terminators": [{"token": mark.text, "id": mark.id, "source": mark.source} for mark in evidence.marks.marks],
        "inferred": evidence.inferred,
        "model": None if evidence.examined is None else _model(evidence.examined),
        "engines": sorted(counts.engines),
        "empty": counts.empty,
        "padded": counts.padded,
        "padding_assumed": counts.padding_assumed,
        "fronted": counts.fronted,
        "with_ids": counts.with_ids,
        "format": log.format,
        "records": log.records,
        "skipped": log.skipped,
        "failed": log.failed,
    }


def _passed(entry: PassedMark) -> PassedTerminatorResult:
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


def _loop(entry: LoopGroup) -> LoopResult:
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


def _model(examined: Examined) -> RunawayModelResult:
    end = examined.terminator
    return {
        "path": examined.directory.shown_name,
        "engines": {
            name: {"eos_token_id": list(effective.stop.eos_token_id), "never_stops": effective.stop.never_stops}
            for name, effective in examined.by_engine.items()
        },
        "terminator": None if end is None else {"token": end.token, "id": end.id},
    }
