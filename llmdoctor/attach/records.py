"""Records on their way out of a traced process: one file a process, a line a record, merged when the command has ended."""

from __future__ import annotations

import errno
import heapq
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

Record = dict[str, Any]
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK")
_MAX_DEPTH = 8
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class Sink(Protocol):
    """The destination of records."""

    def write(self, record: Record) -> None:
        """Take one record. Must not raise."""


class Memory:
    """Records kept in a list."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        """Keep it, as JSON would give it back."""
        self.records.append(json.loads(encode(record)))


class PartFile:
    """One file per process in `folder`, made at the first record: `00003-4711.jsonl` is process 4711 of rank 3.

    Each record is one write() of one line, so that a process that is killed leaves whole lines. The file is opened for each record: a
    descriptor that is held could be closed by the user's program (a daemon closes all) and given to a file of its own, in which the next
    record would land. A forked child writes a file of its own. A full disk ends the recording, not the run.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._broken = False

    def write(self, record: Record) -> None:
        """Append one line."""
        line = encode(record) + b"\n"
        name = os.path.join(self._folder, f"{rank():05d}-{os.getpid()}.jsonl")
        with self._lock:
            if self._broken:
                return
            try:
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | _NO_LINK, 0o644)
            except OSError as error:
                self._broken = error.errno not in (errno.EMFILE, errno.ENFILE)  # the program may close some of its files again
                return
            try:
                self._broken = os.write(file, line) < len(line)
            except OSError:
                self._broken = True
            finally:
                os.close(file)


def rank() -> int:
    """This process's rank by the launcher's variables (torchrun, accelerate, deepspeed, SLURM, MPI); 0 without one."""
    for name in RANK_VARIABLES:
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return 0


def encode(record: Record) -> bytes:
    """A record as one line of strict JSON. What JSON does not know becomes a list, a dict or a text."""
    return json.dumps(plain(record), allow_nan=False, separators=(",", ":")).encode("ascii")


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it: tensors as lists, objects with to_dict() as dicts, everything else as a short text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value if type(value) in (type(None), bool, int, str) else _base(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    if hasattr(value, "tolist") and getattr(value, "size", None) is not None:
        count = value.numel() if hasattr(value, "numel") else value.size
        return plain(value.tolist(), depth + 1) if count <= 10_000 else f"<{type(value).__name__} of {count} values>"
    if callable(getattr(value, "to_dict", None)):
        return plain(value.to_dict(), depth + 1)
    return repr(value)[:200]


def _base(value: Any) -> Any:
    """The plain value of a subclass: an IntEnum, a str Enum, numpy's bool."""
    kind = next(base for base in (bool, int, str) if isinstance(value, base))
    return kind.__str__(value) if kind is str else kind(value)


def merge(parts: Iterable[Path]) -> Iterator[bytes]:
    """Return every whole line of the part files, ordered by its time "t"; a line that is not a JSON object is left out."""
    return (line for _, _, line in heapq.merge(*(_timed(part, order) for order, part in enumerate(sorted(parts)))))


def _timed(part: Path, order: int) -> Iterator[tuple[float, int, bytes]]:
    with part.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
                yield float(record["t"]), order, line.rstrip(b"\n")
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
