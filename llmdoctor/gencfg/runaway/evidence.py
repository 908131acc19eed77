"""All that a pass over the outputs has shown, as the cause, the findings and the report read it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.marks import Marks
from llmdoctor.gencfg.runaway.tally import Tally
from llmdoctor.requests.record_log import RecordLog


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evidence:
    """The counts, what was looked for, what the reader met, the model's files (None: not given), and the outputs' path as the user typed it.

    `inferred_lengths` says, where it is not None, why sequences count as ended by length although no record says so.
    """

    path: str
    reading: RecordLog
    marks: Marks
    tally: Tally
    examined: Examined | None
    inferred_lengths: str | None

    @property
    def inferred(self) -> list[str]:
        """What was inferred, as sentences."""
        return [text for text in (self.marks.inferred, self.inferred_lengths) if text is not None]

    @property
    def again(self) -> str:
        """The same command with a model."""
        return f"llmdoctor gencfg runaway {shlex.quote(self.path)} --model DIR"
