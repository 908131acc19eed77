"""`result` of `llmdoctor look` and `llmdoctor env`."""

from __future__ import annotations

from typing import TypedDict

from typing_extensions import NotRequired


class EvidenceRow(TypedDict):
    """One observation that supports the answer."""

    name: str
    value: str


class ProposedCommand(TypedDict):
    """A command line to paste, and the question that it answers."""

    command: str
    answers: str


class LookResult(TypedDict):
    """What a path is. `versions` and `gpus` are present if no path was given."""

    kind: str  # such as "model", "trace", "strategy"; "unknown" if no command reads it
    what: str  # a noun phrase
    evidence: list[EvidenceRow]
    commands: list[ProposedCommand]
    inside: dict[str, int]  # number of things of each kind in a folder
    versions: NotRequired[dict[str, str | None]]  # null: not installed
    gpus: NotRequired[list[str]]


class EnvResult(TypedDict):
    """The versions and the machine, for a bug report."""

    llmdoctor: str
    python: str
    executable: str
    platform: str
    cpus: int | None
    memory_bytes: int | None  # physical memory
    gpus: list[str]
    packages: dict[str, str | None]  # null: not installed
    environment: dict[str, str]
