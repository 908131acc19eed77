"""What a user can ask of the labels job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsOptions:
    """The options of `labels inspect` and `labels audit`.

    `data` is a file of rows, `trainer` NAME or NAME@VERSION, `config` the trainer's own settings as JSON or YAML, `row` the one dataset row
    to show (from 0), `without` keys of the configuration to answer without.
    """

    model: str
    data: str
    trainer: str = "trl-sft"
    config: str | None = None
    row: int | None = None
    text_column: str | None = None
    max_length: int | None = None
    without: tuple[str, ...] = ()
