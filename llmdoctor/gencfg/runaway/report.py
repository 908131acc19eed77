"""`gencfg runaway`: what a file of recorded outputs shows, as a report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from llmdoctor.core.document import Block, Cell, Code, Note, Table, Tone, Verdict
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.directory_rules import Examined
from llmdoctor.gencfg.runaway.cause import FEW, Evidence, Why, likely_cause
from llmdoctor.gencfg.runaway.expected import marks_of
from llmdoctor.gencfg.runaway.findings import findings_of
from llmdoctor.gencfg.runaway.judge import Judge
from llmdoctor.gencfg.runaway.marks import SAMPLE, Marks, infer
from llmdoctor.gencfg.runaway.outputs import Reading, read_rows
from llmdoctor.gencfg.runaway.progress import Progress
from llmdoctor.gencfg.runaway.rows import Columns, Ended
from llmdoctor.gencfg.runaway.tally import Looped, Passed, Tally, Unit
from llmdoctor.gencfg.show import name_tokens
from llmdoctor.modeldir.files import shown_path

_ENDS: tuple[Ended, ...] = ("eos", "stop", "length", "other", "unknown")
_SHOWN = 3
_TICK = 256


def runaway_report(
    path: str, model: str | None = None, terminators: list[str] | None = None, limit: int | None = None, columns: Columns | None = None
) -> Report:
    """Read the outputs at `path` once and say how they ended.

    `limit` is in tokens, for rows that name none. Raises QuestionError where the file, the model or an option cannot be used.
    """
    examined = _examine(model)
    marks = marks_of(terminators or [], examined)
    reading = Reading("standard input" if path == "-" else shown_path(path), columns or Columns())
    tally, marks = _count(path, reading, marks, limit)
    _refuse_unusable(reading, tally)
    lengths = tally.infer_length()
    inferred = [text for text in (marks.inferred, lengths) if text is not None]
    why = likely_cause(Evidence(tally, marks, examined, shlex.quote(path), reading.word))
    return Report(
        "gencfg runaway",
        subject={"path": path, "model": model, "terminators": terminators or [], "max_new_tokens": limit},
        result=_result(tally, marks, inferred, examined, why, reading),
        findings=findings_of(tally, reading, why, inferred_lengths=lengths is not None),
        skipped=tuple(_skipped(reading)),
        document=_document(tally, marks, inferred, examined, why, reading),
        nothing=not tally.sequences,
        told=True,
    )


def _examine(model: str | None) -> Examined | None:
    if model is None:
        return None
    from llmdoctor.gencfg.check import examine

    return examine(model)


def _count(path: str, reading: Reading, marks: Marks, limit: int | None) -> tuple[Tally, Marks]:
    """One pass over the rows; the first few are kept until they have told the terminator, where nobody names one."""
    tally, progress = Tally(limit), Progress()
    rows = read_rows(path, reading)
    try:
        sample = list(islice(rows, SAMPLE))
        marks = infer(marks, sample)
        look, add = Judge(marks, limit).look, tally.add
        for row in chain(sample, rows):
            add(row, look(row))
            if tally.sequences % _TICK == 0:
                progress.tick(tally.sequences, reading.at / reading.size if reading.size else None)
    finally:
        progress.close()
    return tally, marks


def _refuse_unusable(reading: Reading, tally: Tally) -> None:
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


def _skipped(reading: Reading) -> Iterator[Skipped]:
    for line, reason in reading.first:
        yield Skipped(f"{reading.shown_name}:{line}", reason)
    rest = reading.skipped - len(reading.first)
    if rest:
        yield Skipped(reading.shown_name, f"{plural(rest, 'more record')} of {reading.records:,}")


def _result(
    tally: Tally, marks: Marks, inferred: list[str], examined: Examined | None, why: Why | None, reading: Reading
) -> dict[str, Any]:
    return {
        "sequences": tally.sequences,
        "ended_by": {name: tally.ended[name] for name in _ENDS},
        "passed_terminators": [_passed(entry) for entry in tally.by_passed()],
        "loops": [_loop(entry) for entry in tally.by_loop()],
        "cause": None if why is None else why.text,
        "limit": tally.limit,
        "tokens": tally.units["token"],
        "characters": tally.units["character"],
        "wasted": {"tokens": tally.wasted["token"], "characters": tally.wasted["character"], "share": _wasted_share(tally)},
        "terminators": [{"token": mark.text, "id": mark.id, "source": mark.source} for mark in marks.marks],
        "inferred": inferred,
        "model": None if examined is None else _model(examined),
        "empty": tally.empty,
        "padded": tally.padded,
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


def _wasted_share(tally: Tally) -> float:
    unit: Unit = "token" if tally.units["token"] else "character"
    return tally.wasted[unit] / tally.units[unit] if tally.units[unit] else 0.0


def _document(
    tally: Tally, marks: Marks, inferred: list[str], examined: Examined | None, why: Why | None, reading: Reading
) -> tuple[Block, ...]:
    if not tally.sequences:
        return (Verdict(f"NOTHING TO CHECK: no sequence in {reading.shown_name}", "warn"),)
    blocks: list[Block] = [_verdict(tally), Table(("", "", ""), tuple(_rows(tally, examined, reading.word)))]
    blocks += [Note("INFERRED", text, "dim") for text in inferred]
    blocks += [Note("NOTE", text, "dim") for text in _notes(tally, marks)]
    if why is not None:
        where = "" if why.location is None else f"\nat {why.location}"
        blocks.append(Note("CAUSE", why.text + where))
        blocks += [Code("FIX", why.fix)] if why.fix else []
        blocks += [Code("NEXT", why.next)] if why.next else []
    return tuple(blocks)


def _verdict(tally: Tally) -> Verdict:
    total, ran = tally.sequences, tally.ended["length"]
    if tally.passing:
        names = ", ".join(entry.mark.text or f"id {entry.mark.id}" for entry in tally.by_passed()[:2])
        stopped = all(entry.stopped == entry.count for entry in tally.by_passed())
        return Verdict(f"{tally.passing:,} OF {total:,} SEQUENCES PASSED {names} AND WENT ON", "warn" if stopped else "bad")
    looping = sum(entry.count - entry.stopped for entry in tally.by_loop())
    if ran > FEW * total or (ran and ran == total):
        loops = f", {looping:,} of them in a loop" if looping else ""
        return Verdict(f"{ran:,} OF {total:,} SEQUENCES ENDED BY LENGTH{loops}", "bad" if ran >= (1 - FEW) * total else "warn")
    if looping:
        return Verdict(f"{looping:,} OF {total:,} SEQUENCES RUN OUT IN A LOOP", "bad")
    if tally.ended["unknown"] == total:
        return Verdict(f"NO RUNAWAY SEEN, but nothing here says how {total:,} sequences ended", "warn")
    stopped_count = tally.ended["eos"] + tally.ended["stop"]
    return Verdict(f"NO RUNAWAY: {stopped_count:,} of {total:,} sequences stopped", "good")


def _rows(tally: Tally, examined: Examined | None, word: str) -> Iterator[tuple[str | Cell, ...]]:
    for name in _ENDS:
        if count := tally.ended[name]:
            label = {"unknown": "end not known", "other": "ended otherwise"}.get(name, f"ended by {name}")
            yield (label, f"{count:,}", _about(name, tally))
    for entry in tally.by_passed()[:_SHOWN]:
        at = f"at {entry.unit} {entry.positions.median():,}" + (" (median)" if entry.count > 1 else "")
        yield (Cell("passed", _tone(entry)), f"{entry.count:,}", f"{entry.mark.name} {at}{_examples(entry.examples, word)}")
    if any(entry.stopped < entry.count for entry in tally.by_passed()):
        unit: Unit = "token" if tally.units["token"] else "character"
        share = f"{tally.wasted[unit]:,} of {tally.units[unit]:,} {unit}s stand behind a terminator"
        yield ("wasted", f"{_wasted_share(tally):.0%}", share)
    for loop in tally.by_loop()[:_SHOWN]:
        yield (Cell("loop", "bad" if loop.stopped < loop.count else "warn"), f"{loop.count:,}", _loop_words(loop, word))
    if len(tally.loops) > _SHOWN:
        more = tally.by_loop()[_SHOWN:]
        yield ("", f"{sum(loop.count for loop in more):,}", f"with {len(more)} other periods")
    if examined is not None:
        yield ("the model", "", _stops(examined))


def _tone(entry: Passed) -> Tone:
    return "warn" if entry.stopped == entry.count else "bad"


def _about(name: str, tally: Tally) -> str:
    if name == "length" and tally.limit:
        return f"limit {tally.limit:,} tokens"
    if name in ("eos", "stop") and tally.stops.median():
        return (
            f"after {tally.stops.median():,} tokens (median)"
            if tally.stops.counts.total() > 1
            else f"after {tally.stops.median():,} tokens"
        )
    return ""


def _loop_words(loop: Looped, word: str) -> str:
    median = " (median)" if loop.count > 1 else ""
    words = f"{plural(loop.period, loop.unit)} long, from {loop.unit} {loop.starts.median():,} on, {loop.repeats.median():,} times{median}"
    said = loop.unit_text if loop.unit_text is not None else list(loop.unit_ids or ())
    return f"{words}{_examples(loop.examples, word)}: {shown(said, 48)}"


def _examples(examples: list[Any], word: str) -> str:
    numbers = ", ".join(str(example[0]) for example in examples[:_SHOWN])
    return f", {word if len(examples) == 1 else word + 's'} {numbers}"


def _stops(examined: Examined) -> str:
    effective, stop = examined.answer.effective, examined.answer.effective.stop
    if effective.error is not None:
        return f"raises {effective.error.type}"
    if stop.never_stops:
        return f"never stops: {stop.because}"
    source = effective.fields["eos_token_id"].origin.source if stop.eos_token_id else ""
    return f"stops at {name_tokens(examined.answer, stop.eos_token_id) or 'a stop string'}  {source}".rstrip()


def _notes(tally: Tally, marks: Marks) -> Iterator[str]:
    if tally.with_ids and not marks.by_id:
        yield "no id of a terminator is known, so none can be looked for in token ids: name one with --terminator, or give --model DIR"
    if tally.with_ids < tally.sequences and not marks.by_text:
        yield "no text of a terminator is known, so none can be looked for in texts: name one with --terminator, or give --model DIR"
    if not tally.ended["unknown"]:
        return
    if tally.with_ids and not tally.limit and not tally.told:
        yield "without a finish reason or a limit a row's end is not known: --max-new-tokens N gives the limit"
    if not tally.with_ids and not tally.told:
        yield "texts alone do not tell how they ended: record finish reasons or token ids, or run the command under llmdoctor gencfg trace"
