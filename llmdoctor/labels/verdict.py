"""The verdict on what a model is taught, with its limits."""

from __future__ import annotations

from llmdoctor.core.report import Status, Verdict
from llmdoctor.labels.built import Setup, the_stop_ids
from llmdoctor.labels.counts import Counts


def verdict_of(setup: Setup, counts: Counts) -> Verdict:
    """Return the answer to: is the end of each answer trained?"""
    beside = [*setup.limits, *_beside(setup, counts)]
    limits = f" ({'; '.join(beside)})" if beside else ""
    total = f"{counts.sequences:,} sequences"
    end = _end(setup)
    if not counts.sequences:
        return Verdict(f"The trainer makes no sequence of these rows{limits}.", "problem")
    if counts.of("end_ignored"):
        return Verdict(
            f"The end of the answer is not trained: {end} has label -100 in {counts.of('end_ignored'):,} of {total}{limits}.", "problem"
        )
    if setup.trainer.scores_last:
        return _scored(setup, counts, end, limits)
    if counts.of("no_target") == counts.sequences:
        return Verdict(f"Nothing is trained: no sequence of {counts.sequences:,} has a target{limits}.", "problem")
    if counts.of("shifted"):
        return Verdict(
            f"The labels are shifted by one place in {counts.of('shifted'):,} of {total}: each label is the next id{limits}.", "problem"
        )
    if counts.of("no_answer") == counts.sequences:
        return Verdict(f"There is no answer to train: no row of {counts.rows:,} holds a message of the assistant{limits}.", "problem")
    bad = [(name, words) for name, words in _WORDS if counts.of(name)]
    if bad:
        said = ", ".join(f"{counts.of(name):,} of {total} {words}" for name, words in bad)
        return Verdict(f"The end of each answer is not always trained: {said}{limits}.", "problem")
    if setup.chat.template is None and setup.chat.encoder.eos_id is None:
        return Verdict(
            f"Undecided: the tokenizer names no eos_token and has no chat template, so the end of an answer is unknown{limits}.",
            "undecided",
        )
    status: Status = "undecided" if _uncompared(setup) else "ok"
    return Verdict(f"The end of each answer is trained: {end} is a target in all of {total}{limits}.", status)


def _beside(setup: Setup, counts: Counts) -> list[str]:
    """Return what is true beside the verdict and could turn what a reader takes from it."""
    out = []
    if counts.dropped:
        out.append(f"{setup.trainer.name} leaves out {counts.dropped:,} of {counts.rows:,} rows")
    if 0 < counts.of("no_answer") < counts.sequences:
        out.append(f"{counts.of('no_answer'):,} sequences hold no answer")
    end, stops = setup.chat.end_id if setup.chat.template is not None else None, the_stop_ids(setup)
    if counts.talks and end is not None and stops and end not in stops:
        named = ", ".join(f"{setup.chat.encoder.token_of(stop)} ({stop})" for stop in sorted(stops))
        out.append(f"generate() stops at {named} and not there: llmdoctor gencfg check {setup.directory.shown_name}")
    return out


def _scored(setup: Setup, counts: Counts, end: str, limits: str) -> Verdict:
    """Return the verdict on sequences that are scored at their last token."""
    start = f"{setup.trainer.name} trains no token: it scores the last token of each sequence"
    missing = counts.of("end_missing")
    if missing:
        return Verdict(f"{start}, and {missing:,} of {counts.sequences:,} sequences do not end with {end}{limits}.", "problem")
    return Verdict(f"{start}, and {end} ends all of {counts.sequences:,} sequences{limits}.", "undecided" if _uncompared(setup) else "ok")


def _uncompared(setup: Setup) -> bool:
    return any("not compared" in limit for limit in setup.limits)


_WORDS = (
    ("end_cut", "lose it to truncation"),
    ("end_missing", "train an answer without an end token"),
    ("no_target", "have no target"),
)


def _end(setup: Setup) -> str:
    found = setup.chat.end_id if setup.chat.template is not None and setup.chat.end_id is not None else setup.chat.encoder.eos_id
    return "the end token" if found is None else f"{setup.chat.encoder.token_of(found)} ({found})"
