"""What the user asks of `gencfg runaway`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunawayOptions:
    """Recorded outputs, and what is known about them.

    `path` is the file ("-" for standard input). `model` is the model directory or hub id that made them. `terminators` are ids or texts that
    end a sequence. `max_new_tokens` is the limit in tokens, for records that give none. `ids` and `text` name the columns of token ids
    and of text; None finds them by their usual names.
    """

    path: str
    model: str | None = None
    terminators: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    ids: str | None = None
    text: str | None = None
