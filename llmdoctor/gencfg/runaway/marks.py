"""What ends a sequence, as the analysis looks for it: token ids, texts, and the ids that only fill rows up."""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from llmdoctor.core.errors import QuestionError
from llmdoctor.requests.sequences import OutputSequence

Source = Literal["model", "option", "well-known", "inferred"]

# The tokens with which published chat and base models end a turn or a text. <eos> stands for Gemma's, </s> for Llama 2's and Mistral's.
WELL_KNOWN = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<|return|>", "<|eot|>", "<|eom|>"),
    *("<end_of_turn>", "<turn|>", "<eos>", "</s>", "<|end_of_sentence|>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>"),
    *("<|end_of_turn|>", "<end_of_utterance>", "<|endofturn|>", "[|endofturn|]", "<|END_RESPONSE|>"),
)
_FILLS = (0, -1, -100)  # ids that rows are filled up with where the pad id is not known
SAMPLE = 512  # rows that are looked at to infer a terminator
_FEW = 3


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Mark:
    """A terminator: its text and id, as far as they are known, and who says that it is one."""

    text: str | None
    id: int | None
    source: Source

    @property
    def name(self) -> str:
        """What a person reads: "<|im_end|> (151645)"."""
        if self.text is None:
            return f"id {self.id}"
        return self.text if self.id is None else f"{self.text} ({self.id})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Marks:
    """All terminators, the padding's ids as far as they are known, and what was inferred about them (None: nothing was).

    `turns` are the ids with which a chat prompt's turns begin, each with the one that opens the model's own.
    """

    marks: tuple[Mark, ...] = ()
    pads: frozenset[int] = frozenset()
    inferred: str | None = None
    turns: Mapping[int, int] = field(default_factory=dict)

    @property
    def by_id(self) -> dict[bytes, Mark]:
        """The terminators by their id's four bytes."""
        return {needle(mark.id): mark for mark in self.marks if mark.id is not None}

    @property
    def by_text(self) -> dict[str, Mark]:
        """The terminators by their text."""
        return {mark.text: mark for mark in self.marks if mark.text}

    @property
    def filling(self) -> frozenset[int]:
        """Every id that may fill a row up behind its end."""
        return self.pads | {mark.id for mark in self.marks if mark.id is not None} | frozenset(_FILLS)


def needle(token_id: int) -> bytes:
    """A token id as its bytes stand in OutputSequence.ids."""
    return struct.pack("=i", token_id)


def number_of(token: bytes) -> int:
    """The token id whose bytes these are."""
    return int.from_bytes(token, sys.byteorder, signed=True)


def from_options(words: Iterable[str]) -> list[Mark]:
    """--terminator ID|TEXT as marks; QuestionError for an id that cannot be one."""
    marks = []
    for word in words:
        if word.lstrip("-").isdecimal() and word.isascii():
            if len(word) > 10 or not 0 <= int(word) < 2**31:
                raise QuestionError(f"--terminator {word}: a token id is a number from 0 to {2**31 - 1}")
            marks.append(Mark(None, int(word), "option"))
        elif not word.strip():
            raise QuestionError("--terminator: expected a token id or a token's text, found nothing")
        else:
            marks.append(Mark(word, None, "option"))
    return marks


def well_known() -> list[Mark]:
    """The terminators that are recognised by their text."""
    return [Mark(text, None, "well-known") for text in WELL_KNOWN]


def pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    """A search for any of `texts`, the longest first; None without any."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def infer(marks: Marks, sample: Sequence[OutputSequence]) -> Marks:
    """`marks` with the padding that the first rows give away, and the terminator, where nobody names an id of one.

    Padding is an id whose run fills three or more rows, from different positions, to the same width; behind a terminator, where one is known:
    else it may be a loop. A terminator is the id in which at least half of the rows end that stopped early, and which hardly ever stands
    elsewhere in them: a full stop ends many rows and stands in most.
    """
    rows = [row for row in sample if row.ids and row.reported != "length"]
    if len(rows) < _FEW:
        return marks
    width = max(len(row.ids) for row in sample if row.ids)
    pad = _padding([row.ids for row in rows if row.ids], width, marks.by_id)
    if marks.by_id:
        return marks if pad is None else replace(marks, pads=marks.pads | {number_of(pad)})
    ends = []
    for row in rows:
        bare = without_tail(row.ids or b"", pad or b"")
        if bare and (len(bare) < width or row.reported in ("eos", "stop")):
            ends.append(bare)
    last = Counter(row[-4:] for row in ends).most_common(1)
    if last:
        end, count = last[0]
        inside = sum(find_id(row, end, len(row) - 4) >= 0 for row in ends)
        if count >= _FEW and 2 * count >= len(ends) and 10 * inside <= len(ends):
            return _inferred(marks, end, pad, f"{count} of the first {len(ends)} rows that stopped early end in it")
    if pad is not None:
        return _inferred(marks, pad, pad, f"it fills rows up to {width // 4} tokens")
    return marks


def _inferred(marks: Marks, end: bytes, pad: bytes | None, why: str) -> Marks:
    found = number_of(end)
    pads = marks.pads if pad is None else marks.pads | {number_of(pad)}
    text = f"id {found} is taken for the terminator: {why}"
    return replace(marks, marks=(*marks.marks, Mark(None, found, "inferred")), pads=pads, inferred=text)


def _padding(rows: Sequence[bytes], width: int, terminators: Mapping[bytes, Mark]) -> bytes | None:
    runs: dict[bytes, set[int]] = {}
    counts: Counter[bytes] = Counter()
    for row in rows:
        if len(row) == width and len(row) > 8 and row[-4:] == row[-8:-4]:
            bare = without_tail(row, row[-4:])
            if not terminators or bare[-4:] in terminators:
                runs.setdefault(row[-4:], set()).add(len(bare))
                counts[row[-4:]] += 1
    if not counts:
        return None
    pad, count = counts.most_common(1)[0]
    return pad if count >= _FEW and len(runs[pad]) >= 2 else None


def without_tail(row: bytes, pad: bytes) -> bytes:
    """`row` without the run of `pad` at its end; `row` where there is no pad."""
    end = len(row)
    while pad and end and row[end - 4 : end] == pad:
        end -= 4
    return row[:end]


def find_id(ids: bytes, token: bytes, end: int) -> int:
    """The first place, in bytes, at which the id `token` stands wholly before `end`; -1 without one. Four bytes across two ids are no id."""
    at = ids.find(token, 0, end)
    while at >= 0 and at % 4:
        at = ids.find(token, at + 1, end)
    return at
