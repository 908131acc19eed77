"""The nouns of the labels job: a dataset row, the sequence a trainer makes of it, and what a library would raise instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

STORED = "the dataset's labels"
IGNORED = -100  # the label that torch's cross entropy skips (torch/nn/functional.py, ignore_index)


class TrainerError(Exception):
    """The exception that the trainer's library would raise, by the name of its class."""

    def __init__(self, kind: str, message: str, place: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.place = place


class Row(NamedTuple):
    """One row of a dataset: its number in the file, from 0, and its columns."""

    number: int
    columns: Mapping[str, Any]


@dataclass(slots=True)
class Sequence:
    """What the model receives for training: `ids` and `labels` of equal length, the label at the place of its id (not shifted).

    `sources` gives for each position the setting that decided its label, `roles` whose message it belongs to ("" for the template's own
    tokens; empty unless details were asked for). `rows` are the numbers of the dataset rows in it, `starts` the positions at which packed
    documents begin. `truncated` is true if tokens were removed to respect a maximum length.
    """

    ids: list[int]
    labels: list[int]
    sources: list[str]
    roles: list[str] = field(default_factory=list)
    rows: tuple[int, ...] = ()
    starts: tuple[int, ...] = (0,)
    truncated: bool = False

    def mask(self, start: int, stop: int, source: str) -> None:
        """Take the positions [start, stop) out of the loss."""
        for place in range(max(start, 0), min(stop, len(self.ids))):
            if self.labels[place] != IGNORED:
                self.labels[place], self.sources[place] = IGNORED, source

    def keep(self, mask: list[int], source: str) -> None:
        """Take every position whose `mask` is 0 out of the loss."""
        for place, bit in enumerate(mask[: len(self.ids)]):
            if not bit and self.labels[place] != IGNORED:
                self.labels[place], self.sources[place] = IGNORED, source

    def part(self, start: int, stop: int) -> Sequence:
        """Return the positions [start, stop) as a sequence of their own; the sequence itself if that is all of it."""
        if start <= 0 and stop >= len(self.ids):
            return self
        start, stop, _ = slice(start, stop).indices(len(self.ids))
        cut = self.truncated or stop - start < len(self.ids)
        starts = tuple(max(place - start, 0) for place in self.starts if place < stop)
        return Sequence(
            self.ids[start:stop],
            self.labels[start:stop],
            self.sources[start:stop],
            self.roles[start:stop],
            rows=self.rows,
            starts=tuple(dict.fromkeys(starts)),
            truncated=cut,
        )

    @property
    def trained(self) -> int:
        """The number of positions that are targets."""
        return len(self.labels) - self.labels.count(IGNORED)


def sequence_of(ids: list[int], row: int, source: str = "target", roles: list[str] | None = None) -> Sequence:
    """Return a sequence in which every token is a target."""
    return Sequence(list(ids), list(ids), [source] * len(ids), roles or [], rows=(row,))


def joined(parts: list[Sequence]) -> Sequence:
    """Return the documents of `parts` one behind the other, as packing does."""
    out = Sequence([], [], [], [], rows=(), starts=(), truncated=any(part.truncated for part in parts))
    for part in parts:
        out.starts += tuple(len(out.ids) + place for place in part.starts)
        out.ids += part.ids
        out.labels += part.labels
        out.sources += part.sources
        out.roles += part.roles
        out.rows += part.rows
    return out


class Encoded:
    """A tokenized text: its ids, and the characters [start, stop) of each, which are made when they are first asked for."""

    __slots__ = ("_offsets", "_raw", "ids")

    def __init__(self, ids: list[int], raw: Any) -> None:
        """Take the ids and the tokenizers.Encoding that holds the offsets."""
        self.ids = ids
        self._raw = raw
        self._offsets: list[tuple[int, int]] | None = None

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The characters of each token."""
        if self._offsets is None:
            self._offsets = self._raw.offsets
        return self._offsets

    def token_at(self, character: int) -> int | None:
        """Return the token that covers `character`; None if no token does (tokenizers' Encoding.char_to_token)."""
        found: int | None = self._raw.char_to_token(character)
        return found
