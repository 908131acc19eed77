"""What every command shares: the output options, the exit codes, and the one way from a Report to both."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO

import typer

from llmdoctor.cli.main import INTERRUPTED
from llmdoctor.core.diagnostic import Severity
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, ReportError

if TYPE_CHECKING:
    from llmdoctor.core.rule import Rule
    from llmdoctor.report import Style

FOUND, REFUSED, NOTHING = 1, 2, 3


class FailOn(str, Enum):
    """The lowest severity of a finding that makes the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"


class Color(str, Enum):
    """Whether to write colour codes."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT[:PATH]",
        help="text, json, sarif, junit, github, gitlab, markdown or html; repeatable, FORMAT:PATH writes a file.",
        show_default=False,
    ),
]
Fail = Annotated[
    FailOn | None,
    typer.Option("--fail-on", help="Exit 1 from this severity on (default: error).", show_default=False, case_sensitive=False),
]
Colors = Annotated[Color, typer.Option("--color", help="Colour codes; auto heeds NO_COLOR, FORCE_COLOR and the terminal.")]


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
        report = build()
    except QuestionError as error:
        report = Report(command, subject={}, error=ReportError(error.kind, str(error)))
    except KeyboardInterrupt:
        typer.echo("llmdoctor: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    try:
        for format, path in targets:
            write(report, format, path, color)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    raise typer.Exit(_exit_code(report, fail_on))


def _exit_code(report: Report, fail_on: FailOn | None) -> int:
    if report.error is not None:
        return REFUSED
    worst = report.worst()
    if fail_on is not FailOn.NEVER and worst is not None and worst.rank >= Severity((fail_on or FailOn.ERROR).value).rank:
        return FOUND
    if fail_on is None and report.differs:
        return FOUND
    return NOTHING if report.nothing else 0


def parse_targets(formats: list[str] | None) -> list[tuple[str, Path | None]]:
    """What --format asks for: (format, file or None for the terminal). Raises QuestionError."""
    from llmdoctor.report import FORMATS

    targets: list[tuple[str, Path | None]] = []
    for item in formats or ["text"]:
        name, _, path = item.partition(":")
        if name not in FORMATS:
            raise QuestionError(f"--format {item}: unknown format {name!r}, expected one of {', '.join(FORMATS)}, or FORMAT:PATH")
        targets.append((name, Path(path) if path else None))
    if sum(path is None for _, path in targets) > 1:
        raise QuestionError("--format: only one format can go to stdout, write the others as FORMAT:PATH")
    return targets


def write(report: Report, format: str, path: Path | None, color: Color, stream: TextIO | None = None) -> None:
    """Write a report to a file, else to `stream` (stdout)."""
    from llmdoctor.report import Style, render

    out = stream or sys.stdout

    if path is not None:
        write_file(path, render(report, format, Style(width=_width(), color=color is Color.ALWAYS), _catalogue(format)))
        return
    if report.error is not None and format == "text":
        complain(report.error.message)
        return
    style = Style(width=_width(), color=format == "text" and _wants_color(color, out), terminal=out.isatty())
    text = render(report, format, style, _catalogue(format))
    out.write(text.encode(out.encoding or "utf-8", "backslashreplace").decode(out.encoding or "utf-8"))
    out.flush()


def _catalogue(format: str) -> tuple[Rule, ...]:
    """Every rule, for a format that explains them."""
    from llmdoctor.report import WITH_RULES

    if format not in WITH_RULES:
        return ()
    from llmdoctor.cli.catalogue import all_rules

    return all_rules()


def write_file(path: Path, text: str, mode: int | None = None) -> None:
    """Write all of it or nothing: a neighbour is written first and then takes the name. A pipe or device is written to as it is.

    Line ends are written as they are in `text`; `mode` are the new file's permissions, where not the usual ones.
    """
    if path.exists() and not path.is_file():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise QuestionError(f"cannot write {path}: {error.strerror or error}") from None
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise QuestionError(f"cannot write {path}: {error.strerror or error}") from None


def complain(message: str) -> None:
    """One message to stderr, made harmless."""
    from llmdoctor.core.text import clean, defuse

    sys.stderr.write(defuse(f"llmdoctor: {clean(message)}\n"))


def terminal_style(color: Color) -> Style:
    """The style of stdout."""
    from llmdoctor.report import Style

    return Style(width=_width(), color=_wants_color(color), terminal=sys.stdout.isatty())


def _wants_color(color: Color, stream: TextIO | None = None) -> bool:
    if color is not Color.AUTO:
        return color is Color.ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((80, 24)).columns
