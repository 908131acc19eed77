"""What a person reads of recorded outputs, below the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmdoctor.core.document import Block, Cell, Code, Note, Table, Tone
from llmdoctor.core.finding import Finding
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.cause import LikelyCause
from llmdoctor.gencfg.runaway.counts import LoopGroup, OutputCounts, PassedMark
from llmdoctor.gencfg.runaway.end_marks import EndMarks
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.screen import name_tokens
from llmdoctor.requests.sequences import Ended

ENDS: tuple[Ended, ...] = ("eos", "stop", "length", "other", "unknown")
_LABELS = {
    "eos": "ended at eos",
    "stop": "ended at a stop",
    "length": "ended at the limit",
    "other": "ended otherwise",
    "unknown": "end unknown",
}
_SHOWN = 3
_EARLY = 2  # units: hardly an answer


def document_of(evidence: Evidence, cause: LikelyCause | None, findings: Sequence[Finding]) -> tuple[Block, ...]:
    """Return the counts, the findings with their cause and fix, what was assumed, and the next command."""
    counts = evidence.counts
    if not counts.sequences:
        return ()
    blocks: list[Block] = [Table(("", "", ""), tuple(_rows(counts, evidence.examined, evidence.log.unit))), *findings]
    blocks += [Note("Assumed", text, "dim") for text in evidence.inferred]
    blocks += [Note("Note", text, "dim") for text in _notes(counts, evidence.marks)]
    if cause is not None and cause.next:
        blocks.append(Code("Next", cause.next))
    return tuple(blocks)


def _rows(counts: OutputCounts, examined: Examined | None, unit: str) -> Iterator[tuple[str | Cell, ...]]:
    for name in ENDS:
        if count := counts.ended[name]:
            yield (_LABELS[name], f"{count:,}", _about(name, counts))
    for entry in counts.by_passed()[:_SHOWN]:
        at = f"at {entry.unit} {entry.positions.median():,}" + (" (median)" if entry.count > 1 else "")
        yield (Cell("passed", _tone(entry)), f"{entry.count:,}", f"{entry.mark.name} {at}{_examples(entry.examples, unit)}")
    if any(entry.stopped < entry.count for entry in counts.by_passed()):
        share = f"{counts.wasted[counts.unit]:,} of {counts.units[counts.unit]:,} {counts.unit}s are after a terminator"
        yield ("wasted", f"{counts.wasted_share:.0%}", share)
    for loop in counts.by_loop()[:_SHOWN]:
        yield (Cell("loop", "bad" if loop.stopped < loop.count else "warn"), f"{loop.count:,}", _loop_words(loop, unit))
    if len(counts.loops) > _SHOWN:
        more = counts.by_loop()[_SHOWN:]
        yield ("", f"{sum(loop.count for loop in more):,}", f"with {len(more)} other periods")
    if examined is not None:
        yield ("the model", "", _stops(examined))


def _tone(entry: PassedMark) -> Tone:
    return "warn" if entry.stopped == entry.count else "bad"


def _about(name: str, counts: OutputCounts) -> str:
    if name == "length" and counts.limit:
        return f"limit {counts.limit:,} tokens"
    if name in ("eos", "stop") and counts.stops.median():
        median = " (median)" if counts.stops.counts.total() > 1 else ""
        return f"after {counts.stops.median():,} tokens{median}"
    return ""


def _loop_words(loop: LoopGroup, unit: str) -> str:
    median = " (median)" if loop.count > 1 else ""
    words = f"{plural(loop.period, loop.unit)} long, from {loop.unit} {loop.starts.median():,} on, {loop.repeats.median():,} times{median}"
    repeated = loop.unit_text if loop.unit_text is not None else list(loop.unit_ids or ())
    return f"{words}{_examples(loop.examples, unit)}: {shown(repeated, 48)}"


def _examples(examples: list[Any], unit: str) -> str:
    numbers = ", ".join(str(example[0]) for example in examples[:_SHOWN])
    return f", {unit if len(examples) == 1 else unit + 's'} {numbers}"


def _stops(examined: Examined) -> str:
    effective, stop = examined.answer.effective, examined.answer.effective.stop
    if effective.error is not None:
        return f"raises {effective.error.type}"
    if stop.never_stops:
        return f"never stops: {stop.because}"
    source = effective.fields["eos_token_id"].origin.source if stop.eos_token_id else ""
    return f"stops at {name_tokens(examined.answer, stop.eos_token_id) or 'a stop string'}  {source}".rstrip()


def _notes(counts: OutputCounts, marks: EndMarks) -> Iterator[str]:
    if counts.fronted:
        yield f"{plural(counts.fronted, 'record')} begin with padding or a chat prompt, which was left out of the counts."
    if counts.passing and any(entry.positions.median() <= _EARLY for entry in counts.by_passed()):
        yield "A terminator so early may belong to a prompt that the record holds: record the output alone, or keep prompt_ids beside it."
    if counts.with_ids and not marks.by_id:
        yield "No id of a terminator is known, so none was searched for in token ids: name one with --terminator, or give --model DIR."
    if counts.with_ids < counts.sequences and not marks.by_text:
        yield "No text of a terminator is known, so none was searched for in texts: name one with --terminator, or give --model DIR."
    if counts.padding_assumed:
        yield "--model DIR gives the padding token; a finish reason in the records says whether the call stopped."
    if not counts.ended["unknown"]:
        return
    if counts.with_ids and not counts.limit and not counts.reported:
        yield "Without a finish reason or a limit the end of a sequence is unknown: --max-new-tokens N gives the limit."
    if not counts.with_ids and not counts.reported:
        yield "Texts alone do not tell how they ended: record finish reasons or token ids, or run the command under llmdoctor gencfg trace."
