"""One sequence: how it ended, whether it produced a terminator and went on, whether it runs out in a loop."""

from __future__ import annotations

import re
from typing import NamedTuple

from llmdoctor.gencfg.runaway.loops import Loop, find_text_loop, find_token_loop
from llmdoctor.gencfg.runaway.marks import Mark, Marks, find_id, needle, number_of, pattern, without_tail
from llmdoctor.requests.prompts import ids_start, text_start
from llmdoctor.requests.sequences import Ended, OutputSequence

_QUOTES = ("'", '"', "`")
_SPECIALS = re.compile(r"(?:\s*(?:<[^<>\s]{1,40}>|\[PAD\]))*\s*")


class Seen(NamedTuple):
    """What one sequence shows, in units: tokens where there are ids, else characters.

    `length` is without padding. `passed` is the first terminator after which decoding went on, at position `at`, and `wasted` the units
    produced after it. `ended` is "unknown" where neither the engine nor the ids tell; `padded` says that padding was taken off.
    `start` units in front were left out as padding or a prompt; positions count from there.
    """

    length: int
    ended: Ended
    padded: bool
    passed: Mark | None
    at: int
    wasted: int
    loop: Loop | None
    start: int = 0


class Judge:
    """Looks at one row after another; built once from what is known of the terminators."""

    def __init__(self, marks: Marks, limit: int | None) -> None:
        self._by_id = marks.by_id
        self._by_text = marks.by_text
        self._filling = marks.filling
        self._zero_pads = 0 in marks.pads or any(mark.id == 0 for mark in marks.marks)
        self._any_pad = not marks.pads
        self._pads = marks.pads
        self._turns = {opener: own for opener, own in marks.turns.items() if needle(opener) not in self._by_id}
        self._pattern = pattern(self._by_text)
        self._limit = limit

    def look(self, row: OutputSequence) -> Seen:
        """What `row` shows, by its ids where it has them."""
        if row.ids is not None:
            start = ids_start(row.ids, self._pads, self._by_id, self._turns)
            seen = self._ids(row, row.ids[4 * start :])
        else:
            start = text_start(row.text or "")
            seen = self._text(row, (row.text or "")[start:])
        return seen._replace(start=start) if start else seen

    def _ids(self, row: OutputSequence, ids: bytes) -> Seen:
        size = len(ids) // 4
        at, mark = self._first(ids, size)
        rest = ids[4 * (at + 1) :]
        if mark is not None and (not rest or (row.reported != "length" and self._fills(rest))):
            return Seen(at + 1, self._ended(row, at + 1, True), bool(rest), None, 0, 0, find_token_loop(ids, at))
        end = self._without_fill(row, ids, size)
        loop = find_token_loop(ids, end)
        if loop is None and mark is not None:
            loop = find_token_loop(ids, at)
        terminal = ids[4 * (end - 1) : 4 * end] in self._by_id
        wasted = 0 if mark is None else end - at - 1
        return Seen(end, self._ended(row, end, terminal), end < size, mark, at, wasted, loop)

    def _first(self, ids: bytes, size: int) -> tuple[int, Mark | None]:
        """The position of the first terminator, and which; (size, None) without one."""
        first, found = 4 * size, None
        for token, mark in self._by_id.items():
            at = find_id(ids, token, first)
            if at >= 0:
                first, found = at, mark
        return first // 4, found

    def _fills(self, rest: bytes) -> bool:
        """Whether what stands behind a terminator is only padding: ids that fill rows up, or one id again and again."""
        if rest == rest[:4] * (len(rest) // 4):
            return number_of(rest[:4]) in self._filling or (self._any_pad and len(rest) > 4)
        return all(number_of(rest[at : at + 4]) in self._filling for at in range(0, len(rest), 4))

    def _without_fill(self, row: OutputSequence, ids: bytes, size: int) -> int:
        """The length of a row without the run of a pad id at its end: two or more, and not where the engine says that it ran to its limit.

        Id 0 is a real token in most vocabularies ("!"): where nobody names it as padding, it is only where the row is said to have stopped.
        """
        last = ids[-4:]
        if row.reported == "length" or last != ids[-8:-4] or number_of(last) not in self._filling:
            return size
        if number_of(last) == 0 and not self._zero_pads and row.reported not in ("eos", "stop"):
            return size
        return len(without_tail(ids, last)) // 4 + (last in self._by_id)

    def _ended(self, row: OutputSequence, length: int | None, terminal: bool) -> Ended:
        """How a row of `length` tokens ended; `terminal` says that its last token is a terminator."""
        if terminal and row.reported in (None, "stop"):
            return "eos"
        if row.reported is not None:
            return row.reported
        limit = row.limit or self._limit
        return "length" if limit is not None and length is not None and length >= limit else "unknown"

    def _text(self, row: OutputSequence, text: str) -> Seen:
        found = self._search(text)
        length = len(text)
        if found is None:
            return Seen(length, self._ended(row, row.tokens, False), False, None, 0, 0, find_text_loop(text, length))
        at, behind, mark = found
        if behind == length or (row.reported != "length" and _SPECIALS.fullmatch(text, behind)):
            return Seen(at, self._ended(row, row.tokens, True), behind < length, None, 0, 0, find_text_loop(text, at))
        loop = find_text_loop(text, length) or find_text_loop(text, at)
        return Seen(length, self._ended(row, row.tokens, False), False, mark, at, length - behind, loop)

    def _search(self, text: str) -> tuple[int, int, Mark] | None:
        """The first terminator's start, end and mark."""
        at = 0
        while self._pattern is not None and (match := self._pattern.search(text, at)) is not None:
            mark = self._by_text[match.group()]
            if mark.source != "well-known" or _ends_here(match, text):
                return match.start(), match.end(), mark
            at = match.end()
        return None


def _ends_here(match: re.Match[str], text: str) -> bool:
    """Whether a well-known token's text is that token: not where it is quoted (talk about tokens), not </s> behind an <s> (HTML), and not
    the <|end|> between two messages of one gpt-oss answer (openai/harmony)."""
    name, start, end = match.group(), match.start(), match.end()
    if text[start - 1 : start] in _QUOTES and text[end : end + 1] in _QUOTES:
        return False
    if name == "</s>":
        return "<s>" not in text[1:start]
    return name != "<|end|>" or not text.startswith("<|start|>assistant", end)
