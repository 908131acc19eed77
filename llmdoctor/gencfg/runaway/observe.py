"""One sequence: how it ended, whether it produced a terminator and went on, whether it ends in a loop."""

from __future__ import annotations

import re
from typing import NamedTuple

from llmdoctor.gencfg.runaway.end_marks import EndMark, EndMarks, find_id, needle, number_of, pattern, without_tail
from llmdoctor.gencfg.runaway.loops import Loop, find_text_loop, find_token_loop
from llmdoctor.requests.prompts import ids_start, text_start
from llmdoctor.requests.sequences import Ended, OutputSequence

_QUOTES = ("'", '"', "`")
_SPECIAL = re.compile(r"\s*(<[^<>\s]{1,40}>|\[PAD\])")
_PAD_TEXT = re.compile(
    r"<\|?(?:pad|PAD)(?:ding)?\|?>|\[PAD\]|<unk>|<\|(?:finetune_right_pad_id|dummy_[0-9]+|reserved_[a-z_0-9]+)\|>|<｜▁pad▁｜>"
)
_STOPPED = ("eos", "stop")


class Observation(NamedTuple):
    """What one sequence shows, in units: tokens if there are ids, else characters.

    `length` is without padding. `passed` is the first terminator after which decoding went on, at position `at`, and `wasted` is the number
    of units after it. `ended` is "unknown" if neither the engine nor the ids tell. `padded` says that padding was taken off,
    `assumed` that this padding repeats the terminator and no padding token is known. `start` units in front were left out as padding
    or a prompt; positions count from there.
    """

    length: int
    ended: Ended
    padded: bool
    passed: EndMark | None
    at: int
    wasted: int
    loop: Loop | None
    start: int = 0
    assumed: bool = False


class Observer:
    """Looks at one sequence after another; made once from what is known of the terminators."""

    def __init__(self, marks: EndMarks, limit: int | None) -> None:
        self._by_id = marks.by_id
        self._by_text = marks.by_text
        self._filling = marks.filling
        self._zero_pads = 0 in marks.pads or any(mark.id == 0 for mark in marks.marks)
        self._pads = marks.pads
        self._pad_texts = marks.pad_texts
        self._known = marks.pads_known
        self._turns = {opener: own for opener, own in marks.turns.items() if needle(opener) not in self._by_id}
        self._pattern = pattern(self._by_text)
        self._limit = limit

    def observe(self, sequence: OutputSequence) -> Observation:
        """Return what `sequence` shows, by its ids if it has them."""
        if sequence.ids is not None:
            start = ids_start(sequence.ids, self._pads, self._by_id, self._turns)
            observed = self._ids(sequence, sequence.ids[4 * start :])
        else:
            start = text_start(sequence.text or "")
            observed = self._text(sequence, (sequence.text or "")[start:])
        return observed._replace(start=start) if start else observed

    # --- token ids ----------------------------------------------------------------------------------------------------------------

    def _ids(self, sequence: OutputSequence, ids: bytes) -> Observation:
        size = len(ids) // 4
        at, mark = self._first(ids, size)
        rest = ids[4 * (at + 1) :]
        if mark is not None and (not rest or (sequence.reported != "length" and self._fills(rest, ids[4 * at : 4 * at + 4], sequence))):
            assumed = len(rest) > 4 and not self._known and rest[:4] == ids[4 * at : 4 * at + 4] and sequence.reported not in _STOPPED
            ended = self._ended(sequence, at + 1, True)
            return Observation(
                length=at + 1, ended=ended, padded=bool(rest), passed=None, at=0, wasted=0, loop=find_token_loop(ids, at), assumed=assumed
            )
        end = self._without_fill(sequence, ids, size)
        loop = find_token_loop(ids, end)
        # A terminator at the end of a run or a loop of terminators did not stop the call.
        terminal = (
            loop is None
            and ids[4 * (end - 1) : 4 * end] in self._by_id
            and ids[4 * (end - 2) : 4 * (end - 1)] != ids[4 * (end - 1) : 4 * end]
        )
        if loop is None and mark is not None:
            loop = find_token_loop(ids, at)
        wasted = 0 if mark is None else end - at - 1
        return Observation(
            length=end, ended=self._ended(sequence, end, terminal), padded=end < size, passed=mark, at=at, wasted=wasted, loop=loop
        )

    def _first(self, ids: bytes, size: int) -> tuple[int, EndMark | None]:
        """Return the position of the first terminator, and which one it is; (size, None) without one."""
        first, found = 4 * size, None
        for token, mark in self._by_id.items():
            at = find_id(ids, token, first)
            if at >= 0:
                first, found = at, mark
        return first // 4, found

    def _fills(self, rest: bytes, end: bytes, sequence: OutputSequence) -> bool:
        """Return whether everything after the terminator `end` is padding: one id again and again, after at most one further terminator.

        The terminator itself, repeated, is padding only if it is the padding token, if no padding token is known, or if the record reports
        that the call stopped.
        """
        if rest[:4] != end and rest[:4] in self._by_id and (len(rest) == 4 or number_of(rest[4:8]) in self._pads):
            rest = rest[4:] or rest
        if rest != rest[:4] * (len(rest) // 4):
            return False
        token = number_of(rest[:4])
        if token in self._pads or token < 0 or sequence.reported in _STOPPED:
            return True
        if rest[:4] in self._by_id:
            return len(rest) == 4 or not self._known
        return token in self._filling or (not self._pads and len(rest) > 4)

    def _without_fill(self, sequence: OutputSequence, ids: bytes, size: int) -> int:
        """Return the length without the run of a padding id at the end: two or more, and not if the engine reports the limit.

        Id 0 is a real token in most vocabularies ("!"): if it is not known as padding, it counts as that only if the record reports a stop.
        """
        last = ids[-4:]
        fills = number_of(last) in self._filling and (last not in self._by_id or number_of(last) in self._pads)
        if sequence.reported == "length" or last != ids[-8:-4] or not fills:
            return size
        if number_of(last) == 0 and not self._zero_pads and sequence.reported not in _STOPPED:
            return size
        return len(without_tail(ids, last)) // 4 + (last in self._by_id)

    def _ended(self, sequence: OutputSequence, length: int | None, terminal: bool) -> Ended:
        """Return how a sequence of `length` tokens ended; `terminal` says that its last token is a terminator."""
        if terminal and sequence.reported in (None, "stop"):
            return "eos"
        if sequence.reported is not None:
            return sequence.reported
        limit = sequence.limit or self._limit
        return "length" if limit is not None and length is not None and length >= limit else "unknown"

    # --- texts --------------------------------------------------------------------------------------------------------------------

    def _text(self, sequence: OutputSequence, text: str) -> Observation:
        found = self._search(text)
        length = len(text)
        if found is None:
            ended = self._ended(sequence, sequence.tokens, False)
            return Observation(length=length, ended=ended, padded=False, passed=None, at=0, wasted=0, loop=find_text_loop(text, length))
        at, behind, mark = found
        if behind == length or (sequence.reported != "length" and self._text_fills(text, behind, mark, sequence)):
            repeated = text.startswith(mark.text or "", behind) and behind < length
            assumed = repeated and not self._known and sequence.reported not in _STOPPED and text.count(mark.text or "", behind) > 1
            ended = self._ended(sequence, sequence.tokens, True)
            return Observation(
                length=at, ended=ended, padded=behind < length, passed=None, at=0, wasted=0, loop=find_text_loop(text, at), assumed=assumed
            )
        loop = find_text_loop(text, length) or find_text_loop(text, at)
        return Observation(
            length=length,
            ended=self._ended(sequence, sequence.tokens, False),
            padded=False,
            passed=mark,
            at=at,
            wasted=length - behind,
            loop=loop,
        )

    def _text_fills(self, text: str, at: int, mark: EndMark, sequence: OutputSequence) -> bool:
        """Return whether everything from `at` on is padding: one special token again and again, after at most one further terminator."""
        names = _specials(text, at)
        if names is None:
            return False
        if len(names) > 1 and names[0] != mark.text and names[0] in self._by_text and names[1] != names[0]:
            names = names[1:]
        if any(name != names[0] for name in names):
            return False
        if not names or names[0] in self._pad_texts or _PAD_TEXT.fullmatch(names[0]) or sequence.reported in _STOPPED:
            return True
        if names[0] in self._by_text:
            return len(names) == 1 or not self._known
        return not self._known

    def _search(self, text: str) -> tuple[int, int, EndMark] | None:
        """Return the first terminator's start, end and mark; None without one."""
        at = 0
        while self._pattern is not None and (match := self._pattern.search(text, at)) is not None:
            mark = self._by_text[match.group()]
            if mark.source != "well-known" or _ends_here(match, text):
                return match.start(), match.end(), mark
            at = match.end()
        return None


def _specials(text: str, at: int) -> list[str] | None:
    """Return the special tokens of which `text` consists from `at` on, white space between them; None if it holds something else."""
    names = []
    while match := _SPECIAL.match(text, at):
        names.append(match.group(1))
        at = match.end()
    return names if not text[at:].strip() else None


def _ends_here(match: re.Match[str], text: str) -> bool:
    """Return whether the text of a well-known token is that token.

    It is not if it is quoted (text about tokens), if it is an </s> after an <s> (HTML), or the <|end|> between two messages of one gpt-oss
    answer (openai/harmony).
    """
    name, start, end = match.group(), match.start(), match.end()
    if text[start - 1 : start] in _QUOTES and text[end : end + 1] in _QUOTES:
        return False
    if name == "</s>":
        return "<s>" not in text[1:start]
    return name != "<|end|>" or not text.startswith("<|start|>assistant", end)
