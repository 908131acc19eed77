"""The output options of every command, and the one way from a Report to output and exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO

import typer

from llmdoctor.cli import complete
from llmdoctor.cli.shared import GIVEN, check_new
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import FOUND, INTERRUPTED, NOTHING, REFUSED
from llmdoctor.core.finding import Severity
from llmdoctor.core.progress import heartbeat
from llmdoctor.core.report import Report, ReportError, refusal
from llmdoctor.report.terminal import Color, complain, note, screen_width, wants_color

if TYPE_CHECKING:
    from llmdoctor.core.rule import Rule
    from llmdoctor.report import Style


class FailOn(str, Enum):
    """The lowest severity of a finding that makes the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"


Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT[:PATH]",
        help="text, concise, json, sarif, junit, github, gitlab, markdown or html; repeatable, FORMAT:PATH writes a file.",
        show_default=False,
        autocompletion=complete.formats,
    ),
]
Fail = Annotated[
    FailOn | None,
    typer.Option("--fail-on", help="Exit 1 from this severity on (default: error).", show_default=False, case_sensitive=False),
]
Colors = Annotated[Color, typer.Option("--color", help="Write colour codes; auto follows NO_COLOR, FORCE_COLOR and the terminal.")]


def answer(build: Callable[[], Report], command: str, formats: list[str] | None, fail_on: FailOn | None, color: Color) -> NoReturn:
    """Build the report, write it in every format asked for, and leave with the contract's exit code.

    A QuestionError becomes a report too (exit 2): its sentence goes to stderr for a person, into the JSON for a program.
    """
    try:
        targets = parse_targets(formats)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    try:
        with heartbeat(command):
            report = build()
    except QuestionError as error:
        report = refusal(command, ReportError(error.kind, str(error)))
    except KeyboardInterrupt:
        typer.echo("llmdoctor: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    report = replace(report, arguments=tuple(sys.argv[1:]))
    if report.error is not None and all(path is not None for _, path in targets):
        complain(report.error.message)  # a person at the terminal sees no other output
    try:
        for format, path in targets:
            write(report, format, path, color)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    raise typer.Exit(_exit_code(report, fail_on))


def _exit_code(report: Report, fail_on: FailOn | None) -> int:
    if report.error is not None or report.unanswered or report.verdict.status == "refused":
        return REFUSED
    worst = report.worst()
    if fail_on is not FailOn.NEVER and worst is not None and worst.rank >= Severity((fail_on or FailOn.ERROR).value).rank:
        return FOUND
    if fail_on is None and report.differs:
        return FOUND
    return NOTHING if report.nothing else 0


def parse_targets(formats: list[str] | None) -> list[tuple[str, Path | None]]:
    """Return what --format asks for as (format, file or None for the terminal). Raises QuestionError."""
    from llmdoctor.report import FORMATS

    targets: list[tuple[str, Path | None]] = []
    for item in formats or ["text"]:
        name, _, path = item.partition(":")
        if name not in FORMATS:
            raise QuestionError(f"--format {item}: unknown format {name!r}, expected one of {', '.join(FORMATS)}, or FORMAT:PATH")
        if path:
            check_new(path, "--format")
        targets.append((name, Path(path) if path else None))
    if sum(path is None for _, path in targets) > 1:
        raise QuestionError("--format: only one format can go to stdout, write the others as FORMAT:PATH")
    return targets


def write(report: Report, format: str, path: Path | None, color: Color, stream: TextIO | None = None) -> None:
    """Write a report to a file, else to `stream` (stdout)."""
    from llmdoctor.report import render

    out = stream or sys.stdout

    if path is not None:
        from llmdoctor.files.writing import write_file

        write_file(path, render(report, format, _style(color is Color.ALWAYS, False), _catalogue(format)))
        note(f"wrote {path}")
        return
    if report.error is not None and format == "text":
        complain(report.error.message)
        return
    style = _style(format == "text" and wants_color(color, out), out.isatty())
    text = render(report, format, style, _catalogue(format))
    out.write(text.encode(out.encoding or "utf-8", "backslashreplace").decode(out.encoding or "utf-8"))
    out.flush()


def _style(color: bool, terminal: bool) -> Style:
    from datetime import date

    from llmdoctor.report import Style

    today = date.today().isoformat()
    return Style(width=screen_width(), color=color, terminal=terminal, show=GIVEN.show, statistics=GIVEN.statistics, date=today)


def _catalogue(format: str) -> tuple[Rule, ...]:
    """Return every rule for a format that explains rules."""
    from llmdoctor.report import WITH_RULES

    if format not in WITH_RULES:
        return ()
    from llmdoctor.rules import all_rules

    return all_rules()
