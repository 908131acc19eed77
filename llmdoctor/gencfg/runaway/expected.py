"""What a model's files say ends its sequences, as marks to look for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.marks import Mark, Marks, from_options, well_known
from llmdoctor.requests.prompts import turn_ids


def marks_of(options: list[str], examined: Examined | None) -> Marks:
    """The terminators to look for: those that the user and the model's files name; the well-known ones where nobody names any.

    Raises QuestionError for an option that is no terminator.
    """
    named = from_options(options)
    if examined is None:
        return Marks(tuple(named or well_known()))
    named = [_completed(mark, examined) for mark in named]
    files = list(_of_files(examined))
    pads = {examined.answer.effective.stop.pad_token_id, _special(examined, "pad_token")[1]}
    turns = turn_ids(examined.directory.tokenizer.id_of)
    return Marks(_distinct([*named, *files] or well_known()), frozenset(pad for pad in pads if pad is not None), turns=turns)


def _of_files(examined: Examined) -> Iterator[Mark]:
    """The chat template's terminator, the tokenizer's eos, and the ids at which transformers or vLLM would stop."""
    end = examined.terminator
    if end is not None and (end.token is not None or end.id is not None):
        yield Mark(end.token, end.id, "model")
    text, number = _special(examined, "eos_token")
    if text is not None or number is not None:
        yield Mark(text, number, "model")
    for token_id in (*examined.eos, *examined.vllm.stop.eos_token_id):
        if 0 <= token_id < 2**31:
            yield Mark(examined.directory.tokenizer.token_of(token_id), token_id, "model")


def _special(examined: Examined, name: str) -> tuple[str | None, int | None]:
    found = examined.directory.tokenizer.special(name)
    return (None, None) if found is None else (found.token, found.id)


def _completed(mark: Mark, examined: Examined) -> Mark:
    """An option's mark with the text or id that the tokenizer's files have for it."""
    tokenizer = examined.directory.tokenizer
    if mark.id is not None:
        return replace(mark, text=tokenizer.token_of(mark.id))
    return replace(mark, id=tokenizer.id_of(mark.text or ""))


def _distinct(marks: list[Mark]) -> tuple[Mark, ...]:
    """Each terminator once: what an earlier mark names, by id or by text, a later one does not name again."""
    kept: list[Mark] = []
    for mark in marks:
        if not any((mark.id is not None and mark.id == other.id) or (mark.text and mark.text == other.text) for other in kept):
            kept.append(mark)
    return tuple(kept)
