"""JSON values that go over several lines, one after another or in one array, read without holding more than one of them."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError

if TYPE_CHECKING:
    from llmdoctor.requests.reading import Reading

_BETWEEN = re.compile(r"[\s,]*")
_PIECE = 2**16


class _Buffer:
    """The text that has been read and not been used yet; `line` is the line, from 1, on which it starts."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self.line = 1

    def more(self) -> bool:
        """Read as much again as there is; False at the end of the file."""
        data = self._file.read(max(_PIECE, len(self.text)))
        self.text += self._decoder.decode(data, not data)
        return bool(data)

    def drop(self, count: int) -> None:
        """Let go of the first `count` characters."""
        self.line += self.text.count("\n", 0, count)
        self.text = self.text[count:]

    def skip_between(self) -> str:
        """Step over white space and commas; the character that follows, "" at the end of the file."""
        while True:
            match = _BETWEEN.match(self.text)
            self.drop(match.end() if match else 0)
            if self.text or not self.more():
                return self.text[:1]


def read_documents(file: IO[bytes], reading: Reading, limit: int) -> Iterator[tuple[Any, int]]:
    """Each value with the line on which it starts; an array at the top gives its items.

    A value that is malformed, or longer than `limit` characters, ends the reading: what follows it cannot be found.
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
                value, end = _next(buffer, decode, limit)
                line = buffer.line
                buffer.drop(end)
                yield value, line
        if inside:
            raise QuestionError("the file ends inside its array")
    except UnicodeDecodeError as error:
        _stop(reading, buffer.line, f"bytes that are not UTF-8 ({error.reason})")
    except QuestionError as error:
        _stop(reading, buffer.line, str(error))


def _next(buffer: _Buffer, decode: Any, limit: int) -> tuple[Any, int]:
    while True:
        try:
            value, end = decode(buffer.text)
            return value, int(end)
        except RecursionError:
            raise QuestionError("JSON that is nested too deeply") from None
        except ValueError as error:
            if len(buffer.text) > limit:
                raise QuestionError(f"a value of more than {limit} characters") from None
            if not buffer.more():
                raise QuestionError(f"expected JSON: {str(error).partition(': line')[0]}") from None


def _stop(reading: Reading, line: int, reason: str) -> None:
    reading.records += 1
    reading.skip(line, f"{reason}; nothing after it was read")
