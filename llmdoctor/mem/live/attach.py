"""What `mem measure -- COMMAND` does inside each Python process of the user's command: a Probe behind the import hook."""

from __future__ import annotations

import atexit
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llmdoctor.mem.live.probe import Probe, watch_deepspeed, watch_torch
from llmdoctor.mem.measured import SCHEMA

if TYPE_CHECKING:
    from llmdoctor.attach.session import Session


def attach(session: Session, at: list[int], stop: int | None = None) -> None:
    """Watch this process once torch is imported; list its tensors at the steps `at`; with `stop`, end it after that many steps."""
    probe = Guarded(session, tuple(at), stop)

    def write(kind: str, **fields: Any) -> None:
        session.write(kind, schema=SCHEMA, strategy=None, world_size=_world(), **fields)

    probe.write = write
    session.hook.after("torch", lambda _: _watch(session, probe))
    session.hook.after("deepspeed.runtime.engine", lambda module: _watch_engine(session, probe, module))


def _watch(session: Session, probe: Probe) -> None:
    watch_torch(probe, session.patches)
    atexit.register(probe.finish)


def _watch_engine(session: Session, probe: Probe, module: ModuleType) -> None:
    watch_deepspeed(probe, session.patches, module)


def _world() -> int:
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdigit() else 1


class Guarded(Probe):
    """A Probe whose own faults are records and never the run's problem."""

    def __init__(self, session: Session, at: tuple[int, ...], stop: int | None) -> None:
        super().__init__(lambda *_, **__: None, at=at)
        self._session, self._stop = session, stop

    def forward_begins(self, *args: Any) -> None:
        """As Probe's; after the last step of interest the process ends, if it was told to."""
        with self._session.guard("forward"):
            super().forward_begins(*args)
        if self._stop is not None and self.step > self._stop:
            raise SystemExit(0)

    def backward_begins(self) -> None:
        """As Probe's."""
        with self._session.guard("backward"):
            super().backward_begins()

    def backward_ends(self) -> None:
        """As Probe's."""
        with self._session.guard("backward"):
            super().backward_ends()

    def step_begins(self, optimizer: Any) -> None:
        """As Probe's."""
        with self._session.guard("step"):
            super().step_begins(optimizer)

    def step_ends(self) -> None:
        """As Probe's."""
        with self._session.guard("step"):
            super().step_ends()

    def finish(self) -> None:
        """As Probe's."""
        with self._session.guard("end"):
            super().finish()
