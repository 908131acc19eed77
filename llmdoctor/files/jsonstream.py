"""JSON values one after another in a file: a value per line (JSON lines), or values over several lines, in one array or without one.

Memory does not grow with the file: at most one value is held, and a value that is longer than `limit` is not read.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

_BETWEEN = re.compile(r"[\s,]*")
_PIECE = 2**16


class CutOff(Exception):
    """Nothing after `line` can be read, for the reason in one clause."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def decode_line(line: bytes) -> Any:
    """Return the JSON value of a line, also of one that only Python accepts (NaN, as pandas and json.dumps write it); None if it has none."""
    import msgspec

    try:
        return msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            return None


def read_lines(file: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number, from 1; None in the place of a line of more than `limit` bytes, which is passed over."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            _pass_over(file)
            yield number, None
        else:
            yield number, line


def read_documents(file: IO[bytes], limit: int) -> Iterator[tuple[Any, int]]:
    """Yield each value with the line on which it starts; of an array at the top, each of its items.

    Raises CutOff at a value that is malformed or longer than `limit` characters: what follows it cannot be found.
    """
    buffer = _Buffer(file)
    decode = json.JSONDecoder().raw_decode
    inside = False
    try:
        while first := buffer.skip_between():
            if first == "[" and not inside:
                inside = True
                buffer.drop(1)
            elif first == "]" and inside:
                inside = False
                buffer.drop(1)
            else:
                value, size = _next(buffer, decode, limit)
                line = buffer.line
                buffer.drop(size)
                yield value, line
        if inside:
            raise CutOff(buffer.line, "the file ends inside its array")
    except UnicodeDecodeError as error:
        raise CutOff(buffer.line, f"bytes that are not UTF-8 ({error.reason})") from None


class _Buffer:
    """The text that has been read and not been used yet, from offset `at` on; `line` is the line, from 1, on which it starts."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self.at = 0
        self.line = 1

    @property
    def size(self) -> int:
        """Characters that have not been used."""
        return len(self.text) - self.at

    def more(self) -> bool:
        """Read as much again as is held; False at the end of the file."""
        data = self._file.read(max(_PIECE, self.size))
        self.text = self.text[self.at :] + self._decoder.decode(data, not data)
        self.at = 0
        return bool(data)

    def drop(self, count: int) -> None:
        """Use up the first `count` characters. The text itself is cut only by more(), so that a long one is not copied per value."""
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def skip_between(self) -> str:
        """Skip white space and commas; return the character that follows, "" at the end of the file."""
        while True:
            match = _BETWEEN.match(self.text, self.at)
            self.drop(match.end() - self.at if match else 0)
            if self.size or not self.more():
                return self.text[self.at : self.at + 1]


def _next(buffer: _Buffer, decode: Any, limit: int) -> tuple[Any, int]:
    """Return the value at the start of the buffer and its length in characters."""
    while True:
        try:
            value, end = decode(buffer.text, buffer.at)
            return value, int(end) - buffer.at
        except RecursionError:
            raise CutOff(buffer.line, "JSON that is nested too deeply") from None
        except ValueError as error:
            if buffer.size > limit:
                raise CutOff(buffer.line, f"a value of more than {limit} characters") from None
            if not buffer.more():
                raise CutOff(buffer.line, f"expected JSON: {str(error).partition(': line')[0]}") from None


def _pass_over(file: IO[bytes]) -> None:
    """Read to the end of a line that is too long."""
    while piece := file.readline(_PIECE):
        if piece.endswith(b"\n"):
            return
