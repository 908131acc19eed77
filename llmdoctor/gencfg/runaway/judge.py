"""One sequence: how it ended, whether it produced a terminator and went on, whether it runs out in a loop."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from llmdoctor.gencfg.runaway.loops import Loop, find_text_loop, find_token_loop
from llmdoctor.gencfg.runaway.marks import Mark, Marks, pattern
from llmdoctor.gencfg.runaway.rows import Ended, Row

_SPECIALS = re.compile(r"(?:\s*(?:<[^<>\s]{1,40}>|\[PAD\]))*\s*")


class Seen(NamedTuple):
    """What one sequence shows, in units: tokens where there are ids, else characters.

    `length` is without padding. `passed` is the first terminator after which decoding went on, at position `at`, and `wasted` the units
    produced after it. `ended` is "unknown" where neither the engine nor the ids tell; `padded` says that padding was taken off.
    """

    length: int
    ended: Ended
    padded: bool
    passed: Mark | None
    at: int
    wasted: int
    loop: Loop | None


class Judge:
    """Looks at one row after another; built once from what is known of the terminators."""

    def __init__(self, marks: Marks, limit: int | None) -> None:
        self._by_id = marks.by_id
        self._by_text = marks.by_text
        self._filling = marks.filling
        self._any_pad = marks.any_pad
        self._pattern = pattern(self._by_text)
        self._limit = limit

    def look(self, row: Row) -> Seen:
        """What `row` shows, by its ids where it has them."""
        return self._ids(row, row.ids) if row.ids is not None else self._text(row, row.text or "")

    def _ids(self, row: Row, ids: bytes) -> Seen:
        size = len(ids) // 4
        at, mark = self._first(ids, size)
        if mark is None or at == size - 1:
            end = size if mark is not None else self._without_fill(row, ids, size)
            loop = find_token_loop(ids, end - (mark is not None))
            return Seen(end, self._ended(row, size, mark is not None), end < size, None, 0, 0, loop)
        rest = ids[4 * (at + 1) :]
        if row.said != "length" and self._fills(rest):
            return Seen(at + 1, self._ended(row, size, True), True, None, 0, 0, find_token_loop(ids, at))
        end = self._without_fill(row, ids, size)
        loop = find_token_loop(ids, end) or find_token_loop(ids, at)
        terminal = ids[4 * (end - 1) : 4 * end] in self._by_id
        return Seen(end, self._ended(row, size, terminal), end < size, mark, at, end - at - 1, loop)

    def _first(self, ids: bytes, size: int) -> tuple[int, Mark | None]:
        """The first terminator and its position; the run of them that fills a row up on its left is stepped over."""
        first, found = 4 * size, None
        start = 0
        if ids[:4] == ids[4:8] and ids[:4] in self._by_id:
            start = _run_end(ids)
            if start == len(ids):
                return 0, self._by_id[ids[:4]]
        for token, mark in self._by_id.items():
            at = ids.find(token, start, first + 3)
            while at >= 0 and at % 4:
                at = ids.find(token, at + 1, first + 3)
            if at >= 0:
                first, found = at, mark
        return first // 4, found

    def _fills(self, rest: bytes) -> bool:
        """Whether what stands behind a terminator is only padding: ids that fill rows up, or one id again and again."""
        if self._any_pad and len(rest) > 4 and rest == rest[:4] * (len(rest) // 4):
            return True
        if _number(rest[-4:]) not in self._filling or _number(rest[:4]) not in self._filling:
            return False
        return all(_number(rest[at : at + 4]) in self._filling for at in range(0, len(rest), 4))

    def _without_fill(self, row: Row, ids: bytes, size: int) -> int:
        """The length of a row without the run of a pad id at its end (two or more; the engine does not say that it ran to its limit)."""
        last = ids[-4:]
        if row.said == "length" or last != ids[-8:-4] or _number(last) not in self._filling:
            return size
        if _number(last) == 0 and last not in self._by_id and not self._pads_with_zero(row, size):
            return size
        end = size
        while end and ids[4 * (end - 1) : 4 * end] == last:
            end -= 1
        return end + (last in self._by_id)

    def _pads_with_zero(self, row: Row, size: int) -> bool:
        """Id 0 is a real token in most vocabularies ("!"): it is padding only where the engine says that the row stopped."""
        return row.said in ("eos", "stop") and size > 0

    def _ended(self, row: Row, size: int, terminal: bool) -> Ended:
        if terminal and row.said in (None, "stop"):
            return "eos"
        if row.said is not None:
            return row.said
        limit = row.limit or self._limit
        return "length" if limit is not None and size >= limit and row.tokens == size else "unknown"

    def _text(self, row: Row, text: str) -> Seen:
        found = self._search(text)
        length = len(text)
        ended = row.said or "unknown"
        limit = row.limit or self._limit
        if ended == "unknown" and limit is not None and row.tokens is not None and row.tokens >= limit:
            ended = "length"
        if found is None:
            return Seen(length, ended, False, None, 0, 0, find_text_loop(text, length))
        at, behind, mark = found
        if row.said != "length" and _SPECIALS.fullmatch(text, behind):
            ended = "eos" if row.said in (None, "stop") else ended
            return Seen(at, ended, behind < length, None, 0, 0, find_text_loop(text, at))
        if behind == length:
            return Seen(length, ended, False, None, 0, 0, find_text_loop(text, at))
        loop = find_text_loop(text, length) or find_text_loop(text, at)
        return Seen(length, ended, False, mark, at, length - behind, loop)

    def _search(self, text: str) -> tuple[int, int, Mark] | None:
        """The first terminator's start, end and mark. A known </s> behind an <s> of the same text is HTML."""
        at = 0
        while self._pattern is not None and (match := self._pattern.search(text, at)) is not None:
            mark = self._by_text[match.group()]
            if not (mark.source == "well-known" and mark.text == "</s>" and "<s>" in text[1 : match.start()]):
                return match.start(), match.end(), mark
            at = match.end()
        return None


def _run_end(ids: bytes) -> int:
    """Where the run of the first id ends, in bytes."""
    end = 4
    while ids[end : end + 4] == ids[:4]:
        end += 4
    return end


def _number(token: bytes) -> int:
    return int.from_bytes(token, sys.byteorder, signed=True)
