"""What ends a model's sequences by its files, as marks to search for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.end_marks import EndMark, EndMarks, from_options, well_known
from llmdoctor.requests.prompts import turn_ids


def marks_of(options: Iterable[str], examined: Examined | None) -> EndMarks:
    """Return the terminators to search for: those that the user and the model's files name, else the well-known ones.

    Raises QuestionError for an option that is not a terminator.
    """
    named = from_options(options)
    if examined is None:
        return EndMarks(tuple(named or well_known()))
    named = [_completed(mark, examined) for mark in named]
    files = list(_of_files(examined))
    pads = {examined.answer.effective.stop.pad_token_id, _special(examined, "pad_token")[1]}
    turns = turn_ids(examined.directory.tokenizer.id_of)
    known = frozenset(pad for pad in pads if pad is not None)
    texts = {_special(examined, "pad_token")[0], *map(examined.directory.tokenizer.token_of, known)}
    return EndMarks(
        _distinct([*named, *files] or well_known()),
        known,
        turns=turns,
        pad_texts=frozenset(text for text in texts if text),
        pads_known=bool(known),
    )


def _of_files(examined: Examined) -> Iterator[EndMark]:
    """Yield the chat template's terminator, the tokenizer's eos, and the ids at which an engine stops because a file names them."""
    end = examined.terminator
    if end is not None and (end.token is not None or end.id is not None):
        yield EndMark(end.token, end.id, "model")
    text, number = _special(examined, "eos_token")
    if text is not None or number is not None:
        yield EndMark(text, number, "model")
    for token_id in examined.named_ends:
        if 0 <= token_id < 2**31:
            yield EndMark(examined.directory.tokenizer.token_of(token_id), token_id, "model")


def _special(examined: Examined, name: str) -> tuple[str | None, int | None]:
    found = examined.directory.tokenizer.special(name)
    return (None, None) if found is None else (found.token, found.id)


def _completed(mark: EndMark, examined: Examined) -> EndMark:
    """Return an option's mark with the text or id that the tokenizer's files have for it."""
    tokenizer = examined.directory.tokenizer
    if mark.id is not None:
        return replace(mark, text=tokenizer.token_of(mark.id))
    return replace(mark, id=tokenizer.id_of(mark.text or ""))


def _distinct(marks: list[EndMark]) -> tuple[EndMark, ...]:
    """Return each terminator once: one that an earlier mark names, by id or by text, is left out."""
    kept: list[EndMark] = []
    for mark in marks:
        if not any((mark.id is not None and mark.id == other.id) or (mark.text and mark.text == other.text) for other in kept):
            kept.append(mark)
    return tuple(kept)
