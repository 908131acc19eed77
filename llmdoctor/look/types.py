"""What `look` recognised, and the commands that it proposes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Suggestion:
    """A command to paste, and the question that it answers.

    The word MODEL in `command` is a placeholder for a model directory that the user still has to name.
    """

    command: str
    answers: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Recognised:
    """What a path is.

    `kind` is a word for programs, `what` a noun phrase that completes the sentence "PATH is ...". `evidence` are pairs of a name and the
    value that supports it, `suggestions` the commands to try, the most informative first, and `inside` the number of things of each kind
    in a folder.
    """

    kind: str
    what: str
    evidence: tuple[tuple[str, str], ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    inside: dict[str, int] | None = None
