"""`llmdoctor look PATH` and bare `llmdoctor`: what something is, and the commands that would answer something about it."""

from __future__ import annotations

import os
import platform
import shlex
from dataclasses import dataclass
from typing import Any

from llmdoctor import __version__
from llmdoctor.core.document import Block, Code, Headline, Note, Table
from llmdoctor.core.report import Report
from llmdoctor.modeldir.directory import is_model_dir

NEAR = 3  # levels upwards in which a file's model is looked for


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Try:
    """A command to paste, and the question that it answers. MODEL in it stands for a model that is still to be named."""

    command: str
    answers: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Seen:
    """What something is: its kind, one sentence, rows that say why one thinks so, and what to try, the most telling first."""

    kind: str
    what: str
    evidence: tuple[tuple[str, str], ...] = ()
    tries: tuple[Try, ...] = ()
    inside: dict[str, Any] | None = None


def look_report(path: str) -> Report:
    """What `path` is. Raises QuestionError where there is nothing."""
    seen = see(path)
    name = os.path.normpath(path)
    document: list[Block] = [Headline(f"{name}: {seen.what}")]
    document += [Table(("", ""), seen.evidence)] if seen.evidence else []
    return _report("look", {"path": name}, seen, document, {})


def here_report() -> Report:
    """What stands in the current folder, and what it could be looked at with."""
    seen = see(".")
    versions = _versions()
    rows = [("llmdoctor", __version__), ("python", platform.python_version())]
    rows += [(name, version or "not installed") for name, version in versions.items()]
    rows.append(("gpu", ", ".join(_gpus()) or "none seen"))
    document: list[Block] = [Headline(f"HERE: {seen.what}"), Table(("", ""), (*seen.evidence, *rows))]
    return _report("look", {"path": "."}, seen, document, {"versions": {"llmdoctor": __version__, **versions}, "gpus": _gpus()})


def _report(command: str, subject: dict[str, Any], seen: Seen, document: list[Block], more: dict[str, Any]) -> Report:
    width = max((len(one.command) for one in seen.tries), default=0)
    if seen.tries:
        lines = [
            f"{one.command.ljust(width)}  # {one.answers}" if width < _WIDE else f"{one.command}\n  # {one.answers}" for one in seen.tries
        ]
        document.append(Code("TRY", "\n".join(lines)))
    if any(" MODEL" in one.command for one in seen.tries):
        document.append(Note("MODEL", "a model directory, or a hub id that is in the local cache", "dim"))
    document.append(Note("COMMANDS", "llmdoctor --help", "dim"))
    result = {
        "kind": seen.kind,
        "what": seen.what,
        "evidence": [{"name": name, "value": value} for name, value in seen.evidence],
        "commands": [{"command": one.command, "answers": one.answers} for one in seen.tries],
        "inside": seen.inside or {},
        **more,
    }
    return Report(command, subject=subject, result=result, document=tuple(document))


_WIDE = 44


def see(path: str) -> Seen:
    """What the file or folder `path` is. Raises QuestionError where it cannot be looked at."""
    if os.path.isdir(path):
        from llmdoctor.look.folders import see_folder

        return see_folder(path)
    if not os.path.lexists(path):
        from llmdoctor.look.folders import see_cached

        return see_cached(path)
    from llmdoctor.look.files import see_file

    return see_file(path)


def model_near(path: str) -> str:
    """The model directory that a file most likely belongs to, as a word of a command: its own folder or one above; else MODEL."""
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(NEAR):
        if is_model_dir(folder):
            return quoted(os.path.relpath(folder))
        folder = os.path.dirname(folder)
    return "MODEL"


def quoted(path: str) -> str:
    """A path as a word of a command that a shell takes apart."""
    name = os.path.normpath(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in ("transformers", "torch", "trl", "deepspeed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _gpus() -> list[str]:
    from llmdoctor.look.environment import gpus

    return gpus()
