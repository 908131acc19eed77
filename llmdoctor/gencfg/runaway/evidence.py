"""Everything that one pass over the outputs has shown, for the cause, the findings, the verdict and the report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.counts import OutputCounts
from llmdoctor.gencfg.runaway.end_marks import EndMarks
from llmdoctor.requests.record_log import RecordLog


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evidence:
    """The counts, what was searched for, what was read, the model's files (None: not given), and the path of the outputs as the user typed it.

    `inferred_lengths` says why sequences count as ended by length although no record reports it; None if none do.
    """

    path: str
    log: RecordLog
    marks: EndMarks
    counts: OutputCounts
    examined: Examined | None
    inferred_lengths: str | None

    @property
    def inferred(self) -> list[str]:
        """Return what was inferred, as sentences."""
        return [text for text in (self.marks.inferred, self.inferred_lengths) if text is not None]

    @property
    def again(self) -> str:
        """Return the same command with a model."""
        return f"llmdoctor gencfg runaway {shlex.quote(self.path)} --model DIR"

    @property
    def engine(self) -> str | None:
        """Return the engine whose own format the records have; None if they have several, or one that many engines write."""
        return next(iter(self.counts.engines), None) if len(self.counts.engines) == 1 else None
