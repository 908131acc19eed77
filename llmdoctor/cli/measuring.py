"""`llmdoctor mem measure`: a model, the user's own command, a file of records or a snapshot."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import typer

from llmdoctor.cli.output import FailOn, answer, parse_targets, write
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import REFUSED
from llmdoctor.report.terminal import Color, complain

if TYPE_CHECKING:
    from llmdoctor.mem.options import Asked

NAME = "mem measure"
TRACE = "memory.jsonl"


def measure(
    words: list[str],
    asked: Asked,
    output: str | None,
    steps: int,
    at: int,
    stop: int | None,
    summary: str | None,
    snapshot: str | None,
    formats: list[str] | None,
    fail_on: FailOn | None,
    color: Color,
) -> NoReturn:
    """One of four questions; two of them at once are refused."""
    command = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    model = words[: len(words) - len(command)]
    asked_for = [bool(command), bool(model), summary is not None, snapshot is not None]
    if sum(asked_for) != 1 or len(model) > 1:
        complain("mem measure: expected one of MODEL, -- COMMAND, --summary FILE and --snapshot FILE")
        raise typer.Exit(REFUSED)
    if command:
        _run(command, output or TRACE, at, stop, formats, color)
    if summary is not None:
        from llmdoctor.mem.attached import attached_report

        answer(lambda: attached_report(summary), NAME, formats, fail_on, color)
    if snapshot is not None:
        from llmdoctor.mem.attached import snapshot_report

        answer(lambda: snapshot_report(snapshot), NAME, formats, fail_on, color)
    from llmdoctor.mem.measure import measure_report

    answer(lambda: measure_report(replace(asked, model=model[0]), output, steps), NAME, formats, fail_on, color)


def _run(command: list[str], output: str, at: int, stop: int | None, formats: list[str] | None, color: Color) -> NoReturn:
    """Run the command, and leave with its own exit code whatever can be said of it."""
    from llmdoctor.mem.attached import attached_report, run_measured

    try:
        targets = parse_targets(formats)
        code, problem = run_measured(command, output, at, stop)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    if problem is not None:
        complain(problem)
        raise typer.Exit(code)
    try:
        report = attached_report(output)
        for format, path in targets:
            write(report, format, path, color, sys.stderr)
    except QuestionError as error:
        complain(str(error))
    raise typer.Exit(code)
