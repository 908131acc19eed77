"""`check --diff`: what --fix would change, as a patch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from llmdoctor.check.check import check_once
from llmdoctor.check.fixing import FixedFile, try_fixes
from llmdoctor.check.options import CheckOptions
from llmdoctor.check.settings import read_settings
from llmdoctor.core.report import Skipped
from llmdoctor.core.text import clean_lines, defuse
from llmdoctor.files.project import ProjectSettings


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Patch:
    """`text` is what `patch -p1` accepts, empty without a change; `nothing` is true if there was nothing to check."""

    text: str
    skipped: tuple[Skipped, ...]
    nothing: bool


def check_patch(options: CheckOptions, settings: ProjectSettings | None = None) -> Patch:
    """Return what `check --fix` with these options would change; nothing is written. Raises QuestionError as check_report does."""
    options.refuse_contradictions(diff=True)
    known = settings if settings is not None else read_settings(options)
    trial = try_fixes(lambda: check_once(options, known), options)
    patches, skipped = [], list(trial.skipped)
    for file in trial.changed():
        text = unified(file)
        visible = text.replace("\r\n", "\n").replace("\t", " ")
        if defuse(clean_lines(visible)) == visible:
            patches.append(text)
        else:  # a patch holds the bytes of the file, and a terminal must not receive these
            skipped.append(Skipped(file.path, "not shown: the file has control characters next to the change; --fix can edit it"))
    return Patch("".join(patches), tuple(skipped), trial.report.nothing)


def unified(file: FixedFile) -> str:
    """Return the change of one file as `patch -p1` accepts it."""
    lines = difflib.unified_diff(_split(file.before), _split(file.after), f"a/{file.path}", f"b/{file.path}")
    return "".join(_ended(lines))


def _split(text: str) -> list[str]:
    """Return the lines of `text` as patch counts them: only a line feed ends one, because a JSON string may hold other line separators."""
    return [line + "\n" for line in text.split("\n")[:-1]] + ([text.rsplit("\n", 1)[-1]] if not text.endswith("\n") else [])


def _ended(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
