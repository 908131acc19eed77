"""Reads a file of recorded outputs, one record at a time: JSON lines, JSON or parquet, by its content and not by its name.

Memory does not grow with the file: a record may have RECORD_LIMIT bytes; a longer one is skipped and counted.
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
from llmdoctor.files.jsonstream import CutOff, decode_line, read_documents, read_lines
from llmdoctor.files.opening import Refusal, open_inside, shown_path
from llmdoctor.requests.prompts import PROMPTS, stored_prompts, without_prompt
from llmdoctor.requests.record_log import RecordLog
from llmdoctor.requests.sequences import (
    COUNTS,
    HOLDERS,
    IDS,
    LIMITS,
    REASONS,
    TEXTS,
    Columns,
    OutputSequence,
    Unusable,
    ended,
    is_ids,
    pack,
)
from llmdoctor.requests.shapes import CONTAINERS, sequences_of

RECORD_LIMIT = 64 * 2**20
_HEAD = 4096
_BOMS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\0\0\xfe\xff", "UTF-32"))
_OTHERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x80", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"(\xb5/\xfd", "zstd-compressed"),
)
# Of records with one of these keys more than the ids has to be read.
_NOT_PLAIN = (*CONTAINERS, "kind", "response", "finish_reasons", "stop_type", "status", "done_reason", "finishReason")
_OPENS = (b"{", b"[", b"[{")
_COMMAND = "gencfg runaway"


def read_outputs(path: str, log: RecordLog) -> Iterator[OutputSequence]:
    """Yield every recorded output in the file at `path`; "-" is standard input, which is copied to a temporary file first.

    Raises QuestionError if the file cannot be opened or is not such a file.
    """
    with _open(path) as file:
        log.size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD)
        file.seek(0)
        try:
            yield from _by_content(file, head, log)
        except (EOFError, zlib.error) as error:
            raise QuestionError(f"{log.shown_name}: the gzip file is cut off or damaged: {error}") from None
        except OSError as error:
            raise QuestionError(f"{log.shown_name}: cannot be read: {error.strerror or error}") from None


def _open(path: str) -> BufferedReader:
    if path == "-":
        import shutil
        import tempfile

        if sys.stdin is None:
            raise QuestionError("-: standard input is closed")
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


def _by_content(file: BufferedReader, head: bytes, log: RecordLog) -> Iterator[OutputSequence]:
    if head.startswith(b"PAR1"):
        log.format = "parquet"
        yield from _table(file, log)
        return
    plain: IO[bytes] = file
    if head.startswith(b"\x1f\x8b"):
        import gzip

        plain = cast(IO[bytes], gzip.open(file))  # noqa: SIM115 the caller closes the descriptor below it
        head = plain.read(_HEAD)
        plain.seek(0)
    _refuse_other(head, log.shown_name)
    if head.startswith(b"\xef\xbb\xbf"):
        plain.seek(3)
    yield from _json(plain, file.tell, log)


def _refuse_other(head: bytes, name: str) -> None:
    """Raise QuestionError for a file that cannot be JSON, by its first bytes."""
    for mark, what in _BOMS:
        if head.startswith(mark):
            raise QuestionError(f"{name}: {what} text, expected UTF-8: convert it with iconv -t utf-8")
    kind = next((what for mark, what in _OTHERS if head.startswith(mark)), "binary data" if b"\0" in head else None)
    if kind is not None:
        raise QuestionError(f"{name}: {kind}, expected JSON lines, JSON or parquet with recorded outputs")


def _json(file: IO[bytes], position: Callable[[], int], log: RecordLog) -> Iterator[OutputSequence]:
    """Read JSON lines if a line is a value of its own, else values over several lines."""
    start = file.tell()
    opening = list(islice((line for line in (file.readline(RECORD_LIMIT + 1).strip() for _ in range(8)) if line), 2))
    file.seek(start)
    lines = any(_decodes(line) for line in opening) and opening[0] not in _OPENS
    if not lines and opening and opening[0].startswith((b"{", b"[")) and (len(opening[0]) > RECORD_LIMIT or opening[0][-1:] in b"{[,"):
        log.format = "json"
        yield from _documents(file, position, log)
        return
    log.format = "jsonl"
    yield from _lines(file, position, log)


def _documents(file: IO[bytes], position: Callable[[], int], log: RecordLog) -> Iterator[OutputSequence]:
    try:
        for value, line in read_documents(file, RECORD_LIMIT):
            log.position = position()
            yield from _value(value, line, log)
    except CutOff as error:
        log.records += 1
        log.cut_off = True
        log.skip(error.line, f"{error}; nothing after it was read")


def _lines(file: IO[bytes], position: Callable[[], int], log: RecordLog) -> Iterator[OutputSequence]:
    fast: Callable[[bytes, int], OutputSequence | None] | None = None
    known = False  # whether the first value has been seen: the shape of the others is taken to be the same
    for number, line in read_lines(file, RECORD_LIMIT):
        if number % 256 == 0:
            log.position = position()
        if line is None:
            log.records += 1
            log.skip(number, f"a line of more than {RECORD_LIMIT} bytes")
            continue
        if fast is not None and (found := fast(line, number)) is not None:
            log.records += 1
            yield found
            continue
        value = decode_line(line)
        if value is not None:
            fast, known = fast if known else _fast(value, log.columns), True
            yield from _value(value, number, log)
        elif line.strip():
            log.records += 1
            log.skip(number, f"expected one JSON object per line, found {_beginning(line)}")


def _table(file: BufferedReader, log: RecordLog) -> Iterator[OutputSequence]:
    """Read a parquet table, such as TRL's completions_00010.parquet: a row's number counts from 1.

    trl 1.0.0 GRPO and RLOO write step, prompt, completion, a column per reward, advantage (grpo_trainer.py:2504); the completion is decoded
    without special tokens (:1947), so that a passed terminator is not visible in it.
    """
    from llmdoctor.files.parquet import ParquetTable

    table = ParquetTable(file, log.shown_name, _COMMAND)
    log.unit = "row"
    log.column_names, log.size = tuple(table.columns), table.rows
    columns = log.columns
    known = {*IDS, *TEXTS, *REASONS, *LIMITS, *COUNTS, *HOLDERS, *PROMPTS, *CONTAINERS, columns.ids, columns.text}
    wanted = [name for name in table.columns if name in known]
    if not any(name in wanted for name in (*columns.id_names, *columns.text_names, *CONTAINERS)):
        return  # the caller reports which columns there are
    for number, value in enumerate(table.read(wanted), 1):
        yield from _value(value, number, log)
        log.position = number


def _value(value: Any, line: int, log: RecordLog) -> Iterator[OutputSequence]:
    """Yield the sequences of one decoded value. Each item of a list is a record with a number of its own."""
    if isinstance(value, list) and not is_ids(value):
        log.unit = "item"
        for item in value:
            yield from _record(item, log.records + 1, log)
    else:
        yield from _record(value, line, log)


def _record(value: Any, line: int, log: RecordLog) -> Iterator[OutputSequence]:
    if isinstance(value, dict) and {"kind", "t"} <= value.keys() and ("pid" in value or "schema" in value):
        raise QuestionError(f"{log.shown_name}: a trace, not outputs: use `llmdoctor gencfg trace --summary {log.shown_name}`")
    log.records += 1
    try:
        yield from list(sequences_of(value, line, log.columns))
    except Unusable as error:
        log.column_names = log.column_names or error.names
        log.failed += error.failed
        log.skip(line, str(error))
    except RecursionError:
        log.skip(line, "an object that is nested too deeply")


def _fast(value: Any, columns: Columns) -> Callable[[bytes, int], OutputSequence | None] | None:
    """Return a decoder of lines with the shape of `value` that skips all other keys; None if there is no plain column of ids.

    The decoder returns None for a line of another shape, which is then read in the slow way.
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

    def read(line: bytes, number: int) -> OutputSequence | None:
        try:
            found: Any = decode(line)
            ids, limit, stop = found.ids, found.limit, found.stop
            if not ids or (not found.reason and isinstance(stop, str)):
                return None
            return OutputSequence(
                line=number,
                ids=pack(ids),
                text=None,
                tokens=len(ids),
                reported=ended(found.reason, stop),
                limit=limit if limit and limit > 0 else None,
                raw=line,
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Unusable):
            return None

    return read


def _decodes(line: bytes) -> bool:
    return isinstance(decode_line(line), dict | list) if len(line) <= RECORD_LIMIT else False


def _beginning(line: bytes) -> str:
    """Return how a line begins, for a message."""
    text = clean(line.strip()[:60].decode("utf-8", "replace"))
    return text[:40] + (" ..." if len(text) > 40 else "")
