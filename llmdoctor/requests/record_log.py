"""What a reader of recorded outputs keeps about the file on the way: records read and skipped, the format, the progress."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmdoctor.requests.sequences import Columns

KEPT = 5


@dataclass(slots=True)
class RecordLog:
    """Records of one file that were read and skipped, the first skipped ones with their line.

    `unit` is what a record's number counts: "line", "row" of a table, "item" of a list. `position` and `size` are in bytes of the file (rows
    of a table), for the progress alone. `column_names` are those of the first record without an output. `failed`
    of the skipped records have no output, because their request failed. `cut_off` says that nothing after the last record could be read.
    """

    shown_name: str
    columns: Columns = field(default_factory=Columns)
    records: int = 0
    skipped: int = 0
    failed: int = 0
    first_skipped: list[tuple[int, str]] = field(default_factory=list)
    column_names: tuple[str, ...] = ()
    format: str = ""
    unit: str = "line"
    position: int = 0
    size: int = 0
    cut_off: bool = False

    def skip(self, line: int, reason: str) -> None:
        """Count a record that holds no output that can be read."""
        self.skipped += 1
        if len(self.first_skipped) < KEPT:
            self.first_skipped.append((line, reason))

    @property
    def unread(self) -> int:
        """Return the number of skipped records that may hold an output."""
        return self.skipped - self.failed
