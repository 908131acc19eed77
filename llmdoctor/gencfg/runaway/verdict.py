"""The verdict on recorded outputs: what ran on, and every limit that could change the answer."""

from __future__ import annotations

from collections.abc import Iterator

from llmdoctor.core.report import Verdict
from llmdoctor.core.text import plural
from llmdoctor.gencfg.runaway.cause import FEW
from llmdoctor.gencfg.runaway.evidence import Evidence


def verdict_of(evidence: Evidence) -> Verdict:
    """Return what ran on; "no runaway" only if it is known how the sequences ended and all records were read.

    The status is "problem" if something ran on, "undecided" if records could not be read, if they do not contain how too many of the sequences
    ended, or if a repeated terminator may be padding, else "ok".
    """
    counts, log = evidence.counts, evidence.log
    if not counts.sequences:
        return Verdict(f"Nothing to check: no sequence in {log.shown_name}", "undecided")
    problem = _problem(evidence)
    if problem is not None:
        return Verdict(problem + "".join(f" {limit}" for limit in _unread(evidence)), "problem")
    unread, open_ends = list(_unread(evidence)), list(_open(evidence))
    total = counts.sequences
    ran = counts.ended["length"]
    if unread:
        read = f"There is no runaway in the {plural(total, 'sequence')} that could be read."
        return Verdict(" ".join([f"Undecided: {unread[0]}", read, *open_ends]), "undecided")
    decided = ran + counts.ended["unknown"] + counts.ended["other"] <= FEW * total and not counts.padding_assumed
    stopped = counts.ended["eos"] + counts.ended["stop"]
    short = f", {ran:,} ended at the limit" if ran else ""
    if decided:
        return Verdict(
            " ".join([f"No runaway: {stopped:,} of {plural(total, 'sequence')} stopped{short}{_empty(evidence)}.", *open_ends]), "ok"
        )
    looked = "no loop" if not _searched(evidence) else "no loop and no passed terminator"
    return Verdict(" ".join([f"Undecided: no runaway was seen in {plural(total, 'sequence')} ({looked}).", *open_ends]), "undecided")


def _problem(evidence: Evidence) -> str | None:
    counts = evidence.counts
    total, ran = counts.sequences, counts.ended["length"]
    if counts.passing:
        names = ", ".join(entry.mark.text or f"id {entry.mark.id}" for entry in counts.by_passed()[:2])
        stopped = sum(entry.stopped for entry in counts.by_passed())
        later = f"; {'all' if stopped == counts.passing else f'{stopped:,}'} of them stopped later" if stopped else ""
        return f"{counts.passing:,} of {plural(total, 'sequence')} passed {names} and went on{later}."
    looping = sum(entry.count - entry.stopped for entry in counts.by_loop())
    if ran > FEW * total or (ran and ran == total):
        loops = f", {looping:,} of them in a loop" if looping else ""
        assumed = "" if evidence.inferred_lengths is None else f" (their length, {counts.longest:,} tokens, is taken for the limit)"
        return f"{ran:,} of {plural(total, 'sequence')} ended at the limit of tokens{loops}{assumed}."
    if looping:
        return f"{looping:,} of {plural(total, 'sequence')} end in a loop."
    return None


def _unread(evidence: Evidence) -> Iterator[str]:
    """Yield what was not read."""
    log = evidence.log
    if log.cut_off:
        yield f"{log.shown_name} could not be read to its end."
    elif log.unread:
        yield f"{log.unread:,} of {plural(log.records, 'record')} could not be read."


def _open(evidence: Evidence) -> Iterator[str]:
    """Yield what the records leave open."""
    counts = evidence.counts
    if failed := evidence.log.failed:  # an answer that never ends is a common reason for a timeout
        yield f"{plural(failed, 'request')} failed and left no output: one that timed out may have run on."
    if unknown := counts.ended["unknown"]:
        yield f"Nothing says how {'they' if unknown == counts.sequences else plural(unknown, 'sequence')} ended."
    if other := counts.ended["other"]:
        yield f"{plural(other, 'sequence')} ended otherwise (a filter, an abort, a refusal): whether they would have stopped is not known."
    if counts.padding_assumed:
        yield (
            f"{plural(counts.padding_assumed, 'sequence')} repeat a terminator to the end: padding if that is the padding token, "
            "else the call did not stop."
        )


def _empty(evidence: Evidence) -> str:
    """Return a clause on answers without a token, if there are many: they stop, and may stop too early."""
    empty, total = evidence.counts.empty, evidence.counts.sequences
    return f"; {'all' if empty == total else f'{empty:,}'} of them are empty" if empty > FEW * total else ""


def _searched(evidence: Evidence) -> bool:
    """Return whether terminators were searched for in every sequence."""
    counts, marks = evidence.counts, evidence.marks
    return not (counts.with_ids and not marks.by_id) and not (counts.with_ids < counts.sequences and not marks.by_text)
