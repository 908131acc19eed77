"""What a person reads of recorded outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmdoctor.core.document import Block, Cell, Code, Headline, Note, Table, Tone
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.cause import FEW, Why
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.runaway.marks import Marks
from llmdoctor.gencfg.runaway.tally import Looped, Passed, Tally
from llmdoctor.gencfg.screen import name_tokens
from llmdoctor.requests.sequences import Ended

ENDS: tuple[Ended, ...] = ("eos", "stop", "length", "other", "unknown")
_SHOWN = 3
_EARLY = 2  # units: hardly an answer


def document_of(evidence: Evidence, why: Why | None) -> tuple[Block, ...]:
    """The verdict, the counts, what was inferred, the cause, the fix, the next command."""
    tally = evidence.tally
    if not tally.sequences:
        return (Headline(f"NOTHING TO CHECK: no sequence in {evidence.reading.shown_name}", "warn"),)
    blocks: list[Block] = [_verdict(tally), Table(("", "", ""), tuple(_rows(tally, evidence.examined, evidence.reading.word)))]
    blocks += [Note("INFERRED", text, "dim") for text in evidence.inferred]
    blocks += [Note("NOTE", text, "dim") for text in _notes(tally, evidence.marks)]
    if why is not None:
        where = "" if why.location is None else f"\nat {why.location}"
        blocks.append(Note("CAUSE", why.text + where))
        blocks += [Code("FIX", why.fix)] if why.fix else []
        blocks += [Code("NEXT", why.next)] if why.next else []
    return tuple(blocks)


def _verdict(tally: Tally) -> Headline:
    total, ran = tally.sequences, tally.ended["length"]
    if tally.passing:
        names = ", ".join(entry.mark.text or f"id {entry.mark.id}" for entry in tally.by_passed()[:2])
        stopped = all(entry.stopped == entry.count for entry in tally.by_passed())
        return Headline(f"{tally.passing:,} OF {total:,} SEQUENCES PASSED {names} AND WENT ON", "warn" if stopped else "bad")
    looping = sum(entry.count - entry.stopped for entry in tally.by_loop())
    if ran > FEW * total or (ran and ran == total):
        loops = f", {looping:,} of them in a loop" if looping else ""
        return Headline(f"{ran:,} OF {total:,} SEQUENCES ENDED BY LENGTH{loops}", "bad" if ran >= (1 - FEW) * total else "warn")
    if looping:
        return Headline(f"{looping:,} OF {total:,} SEQUENCES RUN OUT IN A LOOP", "bad")
    if tally.ended["unknown"] == total:
        return Headline(f"NO RUNAWAY SEEN, but nothing here says how {total:,} sequences ended", "warn")
    stopped_count = tally.ended["eos"] + tally.ended["stop"]
    return Headline(f"NO RUNAWAY: {stopped_count:,} of {total:,} sequences stopped", "good")


def _rows(tally: Tally, examined: Examined | None, word: str) -> Iterator[tuple[str | Cell, ...]]:
    for name in ENDS:
        if count := tally.ended[name]:
            label = {"unknown": "end not known", "other": "ended otherwise"}.get(name, f"ended by {name}")
            yield (label, f"{count:,}", _about(name, tally))
    for entry in tally.by_passed()[:_SHOWN]:
        at = f"at {entry.unit} {entry.positions.median():,}" + (" (median)" if entry.count > 1 else "")
        yield (Cell("passed", _tone(entry)), f"{entry.count:,}", f"{entry.mark.name} {at}{_examples(entry.examples, word)}")
    if any(entry.stopped < entry.count for entry in tally.by_passed()):
        unit = tally.unit
        share = f"{tally.wasted[unit]:,} of {tally.units[unit]:,} {unit}s stand behind a terminator"
        yield ("wasted", f"{tally.wasted_share:.0%}", share)
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
    if tally.fronted:
        yield f"{plural(tally.fronted, 'record')} begin with padding or a chat prompt: looked at, and counted, behind it"
    if tally.passing and any(entry.positions.median() <= _EARLY for entry in tally.by_passed()):
        yield "a terminator so early may stand in a prompt that the record holds: record the output alone, or keep prompt_ids beside it"
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
