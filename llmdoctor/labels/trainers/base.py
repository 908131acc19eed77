"""What a trainer is to this job: an entry of data, and one function from rows to sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.types import Row, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a trainer gets: `rows`, its own `config`, the tokenizer with its template, and the version whose rules apply."""

    rows: list[Row]
    config: Mapping[str, Any]
    chat: Chat
    version: tuple[int, ...]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting; null counts as not set."""
        value = self.config.get(key)
        return default if value is None else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """A trainer by the name that --trainer takes.

    `versions` are the releases that were compared, ascending; the newest is the default. `library` is the distribution that has the version,
    `source` its file. `keys` are the settings that `build` reads. `format` names the configuration format (configs/formats.py) whose other keys are
    known; of these `relevant` are patterns of names that change ids or labels and are not modelled, `harmless` the values with which they
    change nothing. `fixes` maps the beginning of a source (the setting that decided a label) to what to paste if it leaves out the end of an
    answer; {end} is the end token. `five_since` is the first release that was compared beside transformers 5, older ones beside 4.
    `release` is the newest release of transformers that it takes, (5,) if that is any; `assumed` says what an answer takes as given.
    `scores_last`: no token is a target, the score of a sequence is read at its last token. `renders_roles`: the roles of the messages reach the chat
    template as they are.
    """

    name: str
    library: str
    versions: tuple[str, ...]
    build: Callable[[Task], list[Sequence]]
    keys: frozenset[str]
    source: str
    format: str | None = None
    relevant: tuple[str, ...] = ()
    harmless: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixes: Mapping[str, str] = field(default_factory=dict)
    five_since: tuple[int, ...] = ()
    release: tuple[int, ...] = (5,)
    assumed: Callable[[Mapping[str, Any]], list[str]] | None = None
    scores_last: bool = False
    renders_roles: bool = True


def as_version(text: str) -> tuple[int, ...]:
    """Return "1.16.0" as (1, 16, 0). Raises QuestionError for anything else."""
    parts = text.split(".")
    if not all(part.isdigit() for part in parts) or not 1 <= len(parts) <= 4:
        raise QuestionError(f"--trainer: {text!r} is not a version, expected one such as 1.0.0")
    return tuple(int(part) for part in parts)


def apply_processing_class(task: Task) -> None:
    """Set the special tokens that a script sets on the tokenizer before the trainer gets it (`processing_class`)."""
    for name, token in (task.get("processing_class") or {}).items():
        if name in task.chat.encoder.names:
            task.chat.encoder.names[name] = token
