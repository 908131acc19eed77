"""What the commands that take `-- COMMAND` share: the command's own exit code is passed on, and the report goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import typer

from llmdoctor.cli.output import parse_targets, write
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import REFUSED
from llmdoctor.core.report import Report
from llmdoctor.report.terminal import Color, complain


def command_after_dashes() -> list[str]:
    """Return the words behind the first `--` of the command line; empty without one."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def refuse_command(words: list[str], option: str) -> None:
    """Leave with exit 2 if a command is given beside `option`, which runs nothing."""
    if words:
        complain(f"{option}: nothing is run, expected no command beside it, found {words[0]}")
        raise typer.Exit(REFUSED)


def run_attached(
    command: list[str],
    run: Callable[[], tuple[int, str | None]],
    report: Callable[[], Report],
    formats: list[str] | None,
    color: Color,
) -> NoReturn:
    """Run the user's `command`, write the report of what it recorded, and leave with the command's exit code.

    `run` starts the command; it returns the exit code and, if nothing was recorded, the reason. It raises QuestionError if the command cannot be
    started (exit 2).
    """
    try:
        targets = parse_targets(formats)
        if not command:
            raise QuestionError("no command, expected one after --, such as -- python train.py")
        code, problem = run()
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    with suppress(OSError, ValueError, AttributeError):  # the command's exit code is passed on even if stderr is closed
        if problem is not None:
            complain(problem)
        else:
            _write_all(report, targets, color)
    raise typer.Exit(code)


def _write_all(report: Callable[[], Report], targets: list[tuple[str, Path | None]], color: Color) -> None:
    try:
        built = replace(report(), arguments=tuple(sys.argv[1:]))
        for format, path in targets:
            if path is not None or sys.stderr is not None:
                write(built, format, path, color, sys.stderr)
    except QuestionError as error:
        complain(str(error))
