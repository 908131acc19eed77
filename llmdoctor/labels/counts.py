"""Counts over sequences, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llmdoctor.labels.chat import Chat
from llmdoctor.labels.ends import Ends, ends_of, scored_end
from llmdoctor.labels.types import IGNORED, Row, Sequence

_NOT_ANSWERS = frozenset({"user", "system", "tool", "prompt", "human", "observation"})
EXAMPLES = 3  # dataset rows named as examples of each fault


@dataclass(slots=True)
class Counts:
    """What all sequences come to. `examples` names the first dataset rows of each fault."""

    rows: int = 0
    talks: bool = False  # there are conversations among the rows
    kept: int = 0  # dataset rows of which a sequence holds something
    sequences: int = 0
    tokens: int = 0
    trained: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[int]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)  # why an end token is ignored
    masked_by: dict[str, int] = field(default_factory=dict)  # why a sequence without a target has none
    odd_roles: set[str] = field(default_factory=set)

    @property
    def dropped(self) -> int:
        """The number of dataset rows of which no sequence holds anything."""
        return self.rows - self.kept

    def fault(self, name: str, sequence: Sequence) -> None:
        """Count a sequence with the fault `name`."""
        seen = self.faults.get(name, 0)
        self.faults[name] = seen + 1
        if seen < EXAMPLES and sequence.rows:
            self.examples.setdefault(name, []).append(sequence.rows[0])

    def of(self, name: str) -> int:
        """Return how many sequences have the fault `name`."""
        return self.faults.get(name, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The ids that the counts look for. `vocabulary` is the number of rows of the embedding, None if it is unknown."""

    ends: frozenset[int]
    bos: int | None
    eos: int | None
    pad: int | None
    vocabulary: int | None
    chat: bool = False  # the rows are conversations
    scored: bool = False  # no token is a target: the trainer reads a score at the last one


def count(counts: Counts, sequence: Sequence, tokens: Tokens) -> Ends:
    """Add one sequence to the counts, and return how its answers end."""
    ids, labels = sequence.ids, sequence.labels
    ends = scored_end(sequence, tokens.ends) if tokens.scored else ends_of(sequence, tokens.ends)
    whole = labels == ids
    trained = len(ids) if whole else sequence.trained
    counts.sequences += 1
    counts.tokens += len(ids)
    counts.trained += trained
    if not trained and not tokens.scored:
        counts.fault("no_target", sequence)
        source = sequence.sources[-1] if sequence.sources else "no token"
        counts.masked_by[source] = counts.masked_by.get(source, 0) + 1
    if sequence.truncated:
        counts.fault("truncated", sequence)
    if len(sequence.starts) > 1 and any(labels[start] != IGNORED for start in sequence.starts[1:] if start < len(labels)):
        counts.fault("crosses", sequence)
    if not ends.all_trained:
        _count_ends(counts, sequence, ends, tokens)
    if _prompt_trained(sequence) if sequence.roles else tokens.chat and trained == len(ids) > 0:
        counts.fault("prompt_trained", sequence)
    if not whole and _shifted(ids, labels):
        counts.fault("shifted", sequence)
    if ids:
        _count_ids(counts, sequence, tokens)
    return ends


def _count_ends(counts: Counts, sequence: Sequence, ends: Ends, tokens: Tokens) -> None:
    for name, found in (("end_ignored", ends.ignored), ("end_cut", ends.cut), ("end_missing", ends.missing)):
        if found:
            counts.fault(name, sequence)
    if ends.ignored:
        _remember_reason(counts, sequence, tokens)


def _count_ids(counts: Counts, sequence: Sequence, tokens: Tokens) -> None:
    ids = sequence.ids
    if tokens.vocabulary is not None and max(ids) >= tokens.vocabulary:
        counts.fault("beyond_vocabulary", sequence)
    if len(ids) == 1:
        return
    if ids[0] == ids[1] == tokens.bos:
        counts.fault("double_bos", sequence)
    if ids[-1] == ids[-2] == tokens.eos:
        counts.fault("double_eos", sequence)
    if ids[-1] == ids[-2] == tokens.pad and _padding_trained(sequence.labels, tokens):
        counts.fault("padding_trained", sequence)


def _prompt_trained(sequence: Sequence) -> bool:
    """Whether tokens of other messages than answers are targets. (Without roles: whether every token of a conversation is.)"""
    return any(role in _NOT_ANSWERS and label != IGNORED for role, label in zip(sequence.roles, sequence.labels, strict=False))


def _padding_trained(labels: list[int], tokens: Tokens) -> bool:
    """Whether the two pad tokens at the end are targets, and the pad token is not what ends an answer."""
    return tokens.pad not in tokens.ends and labels[-2:] == [tokens.pad, tokens.pad]


def _shifted(ids: list[int], labels: list[int]) -> bool:
    """Whether each target is the id of the next place and some are not that of their own: labels that were shifted before."""
    targets = [place for place, label in enumerate(labels[:-1]) if label != IGNORED]
    return len(targets) > 1 and all(labels[at] == ids[at + 1] for at in targets) and any(labels[at] != ids[at] for at in targets)


def _remember_reason(counts: Counts, sequence: Sequence, tokens: Tokens) -> None:
    for place, token in enumerate(sequence.ids):
        if token in tokens.ends and sequence.labels[place] == IGNORED and place and sequence.labels[place - 1] != IGNORED:
            source = sequence.sources[place]
            counts.reasons[source] = counts.reasons.get(source, 0) + 1
            return


def count_thoughts(counts: Counts, rows: Iterable[Row], sequences: Iterable[Sequence], chat: Chat) -> None:
    """Count the sequences that lack a thought (<think>...</think>) of the rows in them."""
    thoughts = {row.number: found for row in rows if (found := _thoughts(row))}
    for sequence in sequences if thoughts else ():
        wanted = [thought for number in sequence.rows for thought in thoughts.get(number, ())]
        if wanted and not sequence.truncated:
            text = "".join(chat.encoder.decode(sequence.ids).split())
            if any(thought not in text for thought in wanted):
                counts.fault("thoughts_removed", sequence)


def _thoughts(row: Row) -> list[str]:
    """Return the thoughts of a row's answers without blanks."""
    columns = row.columns
    talk = columns.get("messages") or columns.get("conversations") or columns.get("completion")
    texts = [one.get("content", one.get("value")) for one in talk if isinstance(one, dict)] if isinstance(talk, list) else []
    parts = [text.partition("</think>")[0] for text in texts if isinstance(text, str) and "</think>" in text]
    return [thought for part in parts if (thought := "".join(part.replace("<think>", "").split()))]


def tokens_of(chat: Chat, ends: frozenset[int], vocabulary: int | None, *, talks: bool = False, scored: bool = False) -> Tokens:
    """Return the ids that the counts look for."""
    encoder = chat.encoder
    return Tokens(ends=ends, bos=encoder.bos_id, eos=encoder.eos_id, pad=encoder.pad_id, vocabulary=vocabulary, chat=talks, scored=scored)
