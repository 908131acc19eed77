"""What a target works with inside a traced process: the hook, the patches, the sink, and a guard around everything it does."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from types import TracebackType
from typing import Any

from llmdoctor.attach.imports import ImportHook
from llmdoctor.attach.patches import Patches
from llmdoctor.attach.records import PartFile, Record, Sink, rank

VARIABLE = "LLMDOCTOR_ATTACH"
MAX_FAULTS = 20


class Session:
    """One attachment to this process. detach() leaves the process as it was."""

    def __init__(self, sink: Sink) -> None:
        self.hook = ImportHook(self.fault)
        self.patches = Patches()
        self._sink = sink
        self._faults = 0
        self._open = True

    def write(self, kind: str, **fields: Any) -> None:
        """Write one record, with its kind, the time in seconds since 1970, the rank and the process. Nothing is written after detach()."""
        if not self._open:
            return
        record: Record = {"kind": kind, "t": time.time(), "rank": rank(), "pid": os.getpid(), **fields}
        self._sink.write(record)

    def guard(self, where: str) -> Guard:
        """A block whose exceptions become a "fault" record instead of the user's problem."""
        return Guard(self, where)

    def fault(self, where: str, error: Exception) -> None:
        """Record what went wrong in the tracer, the first MAX_FAULTS times. Never raises."""
        self._faults += 1
        if self._faults > MAX_FAULTS:
            return
        try:
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            at = [f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames]
            self.write("fault", where=where, error=f"{type(error).__name__}: {error}"[:500], at=at)
        except Exception:  # noqa: BLE001, S110 no reader is left
            pass

    def detach(self) -> None:
        """Undo every patch and remove the hook. May be called twice."""
        self._open = False
        self.patches.undo()
        self.hook.remove()


class Guard:
    """The context manager of Session.guard(). KeyboardInterrupt and SystemExit pass."""

    __slots__ = ("_session", "_where")

    def __init__(self, session: Session, where: str) -> None:
        self._session = session
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self._session.fault(self._where, error)
            return True
        return False


def start(instructions: dict[str, Any]) -> Session:
    """Open the session that launch() has asked for, and hand it to its target. Called by site/sitecustomize.py."""
    session = Session(PartFile(instructions["folder"]))
    module, _, function = instructions["target"].partition(":")
    with session.guard(instructions["target"]):
        getattr(importlib.import_module(module), function)(session, **instructions["options"])
    session.hook.install()
    return session
