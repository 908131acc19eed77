"""What ends a sequence, as the analysis searches for it: token ids, texts, and the ids that only fill rows up."""

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

MarkSource = Literal["model", "option", "well-known", "inferred"]

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
class EndMark:
    """A terminator: its text and id, as far as they are known, and where it comes from."""

    text: str | None
    id: int | None
    source: MarkSource

    @property
    def name(self) -> str:
        """Return what a person reads: "<|im_end|> (151645)"."""
        if self.text is None:
            return f"id {self.id}"
        return self.text if self.id is None else f"{self.text} ({self.id})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EndMarks:
    """All terminators, the ids and texts of padding as far as they are known, and what was inferred about them (None: nothing was).

    `turns` are the ids with which a chat prompt's turns begin, each with the one that opens the model's own. `pads_known` says that the model's
    files give the padding token, so that no other token is padding.
    """

    marks: tuple[EndMark, ...] = ()
    pads: frozenset[int] = frozenset()
    inferred: str | None = None
    turns: Mapping[int, int] = field(default_factory=dict)
    pad_texts: frozenset[str] = frozenset()
    pads_known: bool = False

    @property
    def by_id(self) -> dict[bytes, EndMark]:
        """Return the terminators by the four bytes of their id."""
        return {needle(mark.id): mark for mark in self.marks if mark.id is not None}

    @property
    def by_text(self) -> dict[str, EndMark]:
        """Return the terminators by their text."""
        return {mark.text: mark for mark in self.marks if mark.text}

    @property
    def filling(self) -> frozenset[int]:
        """Return every id that may fill a row up after its end."""
        return self.pads | {mark.id for mark in self.marks if mark.id is not None} | frozenset(_FILLS)


def needle(token_id: int) -> bytes:
    """Return a token id as four bytes, as in OutputSequence.ids."""
    return struct.pack("=i", token_id)


def number_of(token: bytes) -> int:
    """Return the token id of four bytes."""
    return int.from_bytes(token, sys.byteorder, signed=True)


def from_options(words: Iterable[str]) -> list[EndMark]:
    """Return the marks that --terminator ID|TEXT names. Raises QuestionError for an id that cannot be one."""
    marks = []
    for word in words:
        if word.lstrip("-").isdecimal() and word.isascii():
            if len(word) > 10 or not 0 <= int(word) < 2**31:
                raise QuestionError(f"--terminator {word}: a token id is a number from 0 to {2**31 - 1}")
            marks.append(EndMark(None, int(word), "option"))
        elif not word.strip():
            raise QuestionError("--terminator: expected a token id or a token's text, found nothing")
        else:
            marks.append(EndMark(word, None, "option"))
    return marks


def well_known() -> list[EndMark]:
    """Return the terminators that are recognised by their text."""
    return [EndMark(text, None, "well-known") for text in WELL_KNOWN]


def pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return a search for any of `texts`, the longest first; None without any."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def infer(marks: EndMarks, sample: Sequence[OutputSequence]) -> EndMarks:
    """Return `marks` with the padding that the first rows show, and with the terminator if no id of one is known.

    Padding is an id whose run fills three or more rows, from different positions, to the same width; after a terminator, if one is known:
    else it may be a loop. A terminator is the id in which at least half of the rows end that stopped early, and which is rare
    elsewhere in them: a full stop ends many rows too, but most rows hold others.
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


def _inferred(marks: EndMarks, end: bytes, pad: bytes | None, cause: str) -> EndMarks:
    found = number_of(end)
    pads = marks.pads if pad is None else marks.pads | {number_of(pad)}
    text = f"id {found} is taken for the terminator: {cause}"
    return replace(marks, marks=(*marks.marks, EndMark(None, found, "inferred")), pads=pads, inferred=text)


def _padding(rows: Sequence[bytes], width: int, terminators: Mapping[bytes, EndMark]) -> bytes | None:
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
    """Return `row` without the run of `pad` at its end; `row` itself without a pad."""
    end = len(row)
    while pad and end and row[end - 4 : end] == pad:
        end -= 4
    return row[:end]


def find_id(ids: bytes, token: bytes, end: int) -> int:
    """Return the first place, in bytes, of the whole id `token` before `end`; -1 without one. Four bytes across two ids are no id."""
    at = ids.find(token, 0, end)
    while at >= 0 and at % 4:
        at = ids.find(token, at + 1, end)
    return at
