"""The findings of the LAB rules, from the counts of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.rule import Rule
from llmdoctor.labels.built import Setup, the_end_ids
from llmdoctor.labels.collators import PAD_IS_IGNORED
from llmdoctor.labels.counts import Counts
from llmdoctor.labels.packing import BATCH
from llmdoctor.labels.rules import (
    BEYOND,
    CROSSES,
    DOUBLE_BOS,
    DOUBLE_EOS,
    DROPPED,
    END_CUT,
    END_IGNORED,
    NO_ANSWER,
    NO_END,
    NO_TARGET,
    ODD_ROLE,
    PADDING_TRAINED,
    PROMPT_TRAINED,
    SHIFTED,
    THOUGHTS_REMOVED,
    TRAINER_RAISES,
)
from llmdoctor.labels.types import STORED, TrainerError

_NEW_PAD = 'tokenizer.add_special_tokens({"pad_token": "<|pad|>"})\nmodel.resize_token_embeddings(len(tokenizer))'


def findings_of(setup: Setup, counts: Counts) -> tuple[Finding, ...]:
    """Return one finding for each fault that the sequences have."""
    return tuple(_found(setup, counts))


def raised(setup: Setup, error: TrainerError) -> Finding:
    """Return the finding of an exception that the trainer raises."""
    place = Location(setup.options.config) if setup.options.config else None
    return TRAINER_RAISES.at(place, f"{error.kind}: {error.message}", cause=error.place or None, type=error.kind)


def _found(setup: Setup, counts: Counts) -> Iterator[Finding]:
    end = _end_text(setup)
    if counts.of("end_ignored"):
        yield _end_ignored(setup, counts, end)
    simple: tuple[tuple[str, Rule, str], ...] = (
        ("no_target", NO_TARGET, "have no target: every label is -100"),
        ("end_cut", END_CUT, "lose the end of an answer to truncation"),
        ("end_missing", NO_END, "train an answer that no end token follows"),
        ("prompt_trained", PROMPT_TRAINED, "train tokens of user, system or tool messages"),
        ("double_bos", DOUBLE_BOS, "begin with two bos tokens"),
        ("beyond_vocabulary", BEYOND, "hold an id that the embedding does not have"),
        ("padding_trained", PADDING_TRAINED, "train padding"),
        ("shifted", SHIFTED, "have labels that are shifted by one place: each label is the next id"),
        ("double_eos", DOUBLE_EOS, "end with two eos tokens"),
        ("thoughts_removed", THOUGHTS_REMOVED, "do not hold the thinking part of an answer that the row has"),
        ("crosses", CROSSES, "train the first token of a packed document on the document before it"),
        ("odd_role", ODD_ROLE, f"are written with the roles {', '.join(sorted(counts.odd_roles))}"),
        ("no_answer", NO_ANSWER, "come from rows without a message of the assistant"),
    )
    if counts.of("dropped_message"):
        message = f"{counts.of('dropped_message'):,} sequences of the first {min(counts.rows, BATCH):,} rows lack a message of their row"
        yield DROPPED.at(_place(setup, counts, "dropped_message"), message, **_evidence(counts, "dropped_message"))
    for name, rule, words in simple:
        if counts.of(name) and rule is NO_TARGET:
            yield _no_target(setup, counts, words)
        elif counts.of(name):
            yield rule.at(_place(setup, counts, name), f"{_share(counts, name)} {words}", **_evidence(counts, name))


def _no_target(setup: Setup, counts: Counts, words: str) -> Finding:
    """Return the finding with the setting that masks the most of these sequences, and its fix if the trainer has one."""
    source = max(counts.masked_by, key=lambda name: counts.masked_by[name], default="")
    fix = next((text for start, text in setup.trainer.fixes.items() if source.startswith(start) and "{end}" not in text), None)
    message = f"{_share(counts, 'no_target')} {words}"
    cause = f"the last label is decided by {source}" if source else None
    return NO_TARGET.at(_place(setup, counts, "no_target"), message, cause=cause, fix=fix, **_evidence(counts, "no_target"))


def _end_ignored(setup: Setup, counts: Counts, end: str) -> Finding:
    source = max(counts.reasons, key=lambda name: counts.reasons[name], default="")
    fix = None
    cause = f"the label is decided by {source}" if source else None
    if source == PAD_IS_IGNORED or (source == STORED and setup.chat.encoder.pad_id in the_end_ids(setup)):
        token = setup.directory.tokenizer.special("pad_token")
        named = (
            f" ({token.file.shown_name}:{token.file.line(token.pointer)})" if token is not None and token.file.line(token.pointer) else ""
        )
        cause = f"the collator ignores pad_token_id, and pad_token_id is {setup.chat.encoder.pad_id}, the end token{named}"
        other = _other_pad(setup)
        fix = (
            f'tokenizer.pad_token = "{other}"'
            if other
            else 'tokenizer.add_special_tokens({"pad_token": "<|pad|>"}); model.resize_token_embeddings(len(tokenizer))'
        )
    else:
        fix = next(
            (text.format(end=setup.chat.end_text or "") for start, text in setup.trainer.fixes.items() if source.startswith(start)), None
        )
    message = f"{_share(counts, 'end_ignored')} do not train the end of an answer: {end} has label -100"
    return END_IGNORED.at(_place(setup, counts, "end_ignored"), message, cause=cause, fix=fix, **_evidence(counts, "end_ignored"))


def _other_pad(setup: Setup) -> str | None:
    """Return a special token of the vocabulary that could pad: neither an end nor the bos nor a placeholder of an image, video or sound."""
    encoder, ends = setup.chat.encoder, {setup.chat.end_id, setup.chat.encoder.eos_id, setup.chat.encoder.bos_id}
    names = [token for token, found in setup.directory.tokenizer.added.items() if found.special and found.id not in ends]
    return next(
        (
            token
            for word in ("endoftext", "end_of_text", "pad")
            for token in names
            if word in token.lower()
            and not any(kind in token.lower() for kind in ("vision", "image", "video", "audio"))
            and encoder.token_id(token) is not None
        ),
        None,
    )


def _end_text(setup: Setup) -> str:
    found = setup.chat.end_id if setup.chat.template is not None and setup.chat.end_id is not None else setup.chat.encoder.eos_id
    return "the end token" if found is None else f"{setup.chat.encoder.token_of(found)} ({found})"


def _share(counts: Counts, name: str) -> str:
    return f"{counts.of(name):,} of {counts.sequences:,} sequences"


def _evidence(counts: Counts, name: str) -> dict[str, Any]:
    return {"sequences": counts.of(name), "of": counts.sequences, "first_rows": counts.examples.get(name, [])}


def _place(setup: Setup, counts: Counts, name: str) -> Location:
    rows = counts.examples.get(name)
    line = rows[0] + 1 if rows and setup.options.data.endswith("l") else None
    return Location(setup.options.data, line=line)
