"""The options that every command has beside its own: which findings are shown, and whether files may be overwritten.

They are about the report, not about the question, so no command takes them itself: `with_shared` adds them to its signature and keeps their
values for `output`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Severity

Answered = TypeVar("Answered")


@dataclass(slots=True)
class Shared:
    """The values of the options on the command line of this process."""

    show: Severity = Severity.INFO
    statistics: bool = False
    overwrite: bool = False


GIVEN = Shared()

Show = Annotated[Severity, typer.Option("--show", help="Show findings from this severity on.", case_sensitive=False)]
Statistics = Annotated[bool, typer.Option("--statistics", help="Show the number of findings per rule instead of the findings.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]
_OPTIONS = (
    inspect.Parameter("show", inspect.Parameter.KEYWORD_ONLY, default=Severity.INFO, annotation=Show),
    inspect.Parameter("statistics", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Statistics),
    inspect.Parameter("overwrite", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Overwrite),
)


def with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the shared options behind its own; it is called without them."""

    def run(show: Severity, statistics: bool, overwrite: bool, **options: Any) -> None:
        GIVEN.show, GIVEN.statistics, GIVEN.overwrite = show, statistics, overwrite
        command(**options)

    signature = inspect.signature(command, eval_str=True)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *_OPTIONS])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def check_new(path: str | Path, option: str) -> None:
    """Raise QuestionError if `path` is a regular file that exists and --overwrite is not given; a device or a pipe is written to."""
    if not GIVEN.overwrite and os.path.isfile(path):
        raise QuestionError(f"{option} {path}: the file exists and is kept: give --overwrite to replace it, or another name")


def writing(path: str | None, option: str, build: Callable[[], Answered]) -> Callable[[], Answered]:
    """Return `build`, which writes `path` too, with the check that nothing is overwritten before it."""

    def checked() -> Answered:
        if path is not None:
            check_new(path, option)
        return build()

    return checked
