"""Reading a file of recorded outputs, one record at a time: JSON lines, JSON, parquet; the content tells which, not the name.

Memory does not grow with the file: a record may have RECORD_LIMIT bytes, and what is longer is skipped and counted.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import islice
from typing import IO, Any, cast

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import clean
from llmdoctor.files.opening import Refusal, open_inside, shown_path
from llmdoctor.requests.prompts import stored_prompts, without_prompt
from llmdoctor.requests.reading import Reading
from llmdoctor.requests.rows import HOLDERS, LIMITS, Columns, Row, Unusable, ended, is_ids, pack

RECORD_LIMIT = 64 * 2**20
_PIECE = 2**16
_HEAD = 4096
_BOMS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\0\0\xfe\xff", "UTF-32"))
_OTHERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x80", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"(\xb5/\xfd", "zstd-compressed"),
)
_NOT_PLAIN = (
    "choices",
    "outputs",
    "kind",
    "response",
    "body",
    "finish_reasons",
    "stop_type",
    "status",
)  # of such records more must be read
_OPENS = (b"{", b"[", b"[{")


def read_rows(path: str, reading: Reading) -> Iterator[Row]:
    """Every sequence in the file at `path`; "-" is standard input, which is copied to a temporary file first.

    Raises QuestionError where it cannot be opened or is no such file at all.
    """
    with _open(path) as file:
        reading.size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD)
        file.seek(0)
        try:
            yield from _by_content(file, head, reading)
        except (EOFError, zlib.error) as error:
            raise QuestionError(f"{reading.shown_name}: the gzip file is cut off or damaged: {error}") from None
        except OSError as error:
            raise QuestionError(f"{reading.shown_name}: cannot be read: {error.strerror or error}") from None


def _open(path: str) -> BufferedReader:
    if path == "-":
        import shutil
        import tempfile

        copy = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        return cast(BufferedReader, copy)
    opened = open_inside(path, None)
    if opened is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(opened, Refusal):
        hint = "; a pipe can be given as -" if "FIFO" in opened.reason else ""
        raise QuestionError(f"{shown_path(path)} {opened.reason}{hint}")
    return os.fdopen(opened, "rb")


def _by_content(file: BufferedReader, head: bytes, reading: Reading) -> Iterator[Row]:
    if head.startswith(b"PAR1"):
        from llmdoctor.requests.table import read_table

        reading.form = "parquet"
        yield from read_table(file, reading)
        return
    plain: IO[bytes] = file
    if head.startswith(b"\x1f\x8b"):
        import gzip

        plain = cast(IO[bytes], gzip.open(file))  # noqa: SIM115 the descriptor below it is closed by the caller
        head = plain.read(_HEAD)
        plain.seek(0)
    _refuse_other(head, reading.shown_name)
    if head.startswith(b"\xef\xbb\xbf"):
        plain.seek(3)
    yield from _json(plain, file.tell, reading)


def _refuse_other(head: bytes, name: str) -> None:
    """Raise QuestionError for what cannot be JSON, by its first bytes."""
    for mark, what in _BOMS:
        if head.startswith(mark):
            raise QuestionError(f"{name}: {what} text, expected UTF-8: convert it with iconv -t utf-8")
    kind = next((what for mark, what in _OTHERS if head.startswith(mark)), "binary data" if b"\0" in head else None)
    if kind is not None:
        raise QuestionError(f"{name}: {kind}, expected JSON lines, JSON or parquet with recorded outputs")


def _json(file: IO[bytes], where: Callable[[], int], reading: Reading) -> Iterator[Row]:
    """JSON lines where a line is a value of its own, else values that go over several lines."""
    start = file.tell()
    opening = list(islice((line for line in (file.readline(RECORD_LIMIT + 1).strip() for _ in range(8)) if line), 2))
    file.seek(start)
    lines = any(_decodes(line) for line in opening) and opening[0] not in _OPENS
    if not lines and opening and opening[0].startswith((b"{", b"[")) and (len(opening[0]) > RECORD_LIMIT or opening[0][-1:] in b"{[,"):
        from llmdoctor.requests.documents import read_documents

        reading.form = "json"
        for value, line in read_documents(file, reading, RECORD_LIMIT):
            reading.at = where()
            yield from reading.rows(value, line)
        return
    reading.form = "jsonl"
    yield from _lines(file, where, reading)


def _lines(file: IO[bytes], where: Callable[[], int], reading: Reading) -> Iterator[Row]:
    fast: Callable[[bytes, int], Row | None] | None = None
    number, known = 0, False  # whether the first value has been seen: its shape is taken for everybody's
    while line := file.readline(RECORD_LIMIT + 1):
        number += 1
        if number % 256 == 0:
            reading.at = where()
        if fast is not None and (row := fast(line, number)) is not None:
            reading.records += 1
            yield row
            continue
        if len(line) > RECORD_LIMIT and not line.endswith(b"\n"):
            _pass_over(file)
            reading.records += 1
            reading.skip(number, f"a line of more than {RECORD_LIMIT} bytes")
            continue
        value = decode_line(line)
        if value is not None:
            fast, known = fast if known else _fast(value, reading.columns), True
            yield from reading.rows(value, number)
        elif line.strip():
            reading.records += 1
            reading.skip(number, f"expected one JSON object a line, found {_beginning(line)}")


def _fast(value: Any, columns: Columns) -> Callable[[bytes, int], Row | None] | None:
    """A decoder of lines shaped like `value`, which steps over all that is not asked for; None where there is no plain column of ids.

    The decoder answers None for a line that is not of that shape, which then goes the slow way.
    """
    if not isinstance(value, dict) or any(name in value for name in _NOT_PLAIN):
        return None
    name = next((name for name in columns.id_names if isinstance(value.get(name), list) and value[name]), None)
    if name is None or not is_ids(value[name]) or any(isinstance(value.get(holder), dict) for holder in HOLDERS):
        return None
    if without_prompt(value[name], stored_prompts(value)) is not value[name]:
        return None
    import msgspec

    fields = [
        ("ids", list[int], msgspec.field(name=name)),
        ("reason", str | None, msgspec.field(name="finish_reason", default=None)),
        ("stop", int | str | None, msgspec.field(name="stop_reason", default=...)),
        ("limit", int | None, msgspec.field(name=next((known for known in LIMITS if known in value), LIMITS[0]), default=None)),
        ("kind", msgspec.UnsetType, msgspec.field(name="kind", default=msgspec.UNSET)),  # a trace has one
    ]
    decode = msgspec.json.Decoder(msgspec.defstruct("Line", fields, gc=False)).decode

    def read(line: bytes, number: int) -> Row | None:
        try:
            found: Any = decode(line)
            ids, limit, stop = found.ids, found.limit, found.stop
            if not ids or (found.reason is None and isinstance(stop, str)):
                return None
            return Row(number, pack(ids), None, len(ids), ended(found.reason, stop), limit if limit and limit > 0 else None, line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Unusable):
            return None

    return read


def decode_line(line: bytes) -> Any:
    """The JSON value of a line, also one that is JSON only to Python (NaN, as pandas and json.dumps write it); None where it is none."""
    import json

    import msgspec

    try:
        return msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            return None


def _decodes(line: bytes) -> bool:
    return isinstance(decode_line(line), dict | list) if len(line) <= RECORD_LIMIT else False


def _pass_over(file: IO[bytes]) -> None:
    """Read on to the end of a line that is too long."""
    while piece := file.readline(_PIECE):
        if piece.endswith(b"\n"):
            return


def _beginning(line: bytes) -> str:
    """How a line begins, for a message."""
    text = clean(line.strip()[:60].decode("utf-8", "replace"))
    return text[:40] + (" ..." if len(text) > 40 else "")
