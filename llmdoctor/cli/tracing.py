"""`llmdoctor gencfg trace`: the run and what is said of it, on stderr, because stdout is the command's own."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from llmdoctor.cli.output import FailOn, answer, parse_targets, write
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import REFUSED
from llmdoctor.report.terminal import Color, complain


def summarize(trace: str, command: list[str], formats: list[str] | None, fail_on: FailOn | None, color: Color) -> NoReturn:
    """Say what a trace shows."""
    from llmdoctor.gencfg.trace.summary import summary_report

    if command:
        complain(f"--summary {trace}: nothing is run, expected no command beside it, found {command[0]}")
        raise typer.Exit(REFUSED)
    answer(lambda: summary_report(trace), "gencfg trace", formats, fail_on, color)


def run(command: list[str], output: str, formats: list[str] | None, color: Color) -> NoReturn:
    """Run the command, and leave with its own exit code whatever can be said of it, and wherever stderr goes."""
    from llmdoctor.gencfg.trace.run import run_traced

    try:
        targets = parse_targets(formats)
        if not command:
            raise QuestionError("no command, expected one after --: llmdoctor gencfg trace -o run.jsonl -- python train.py")
        code, problem = run_traced(command, output)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    with suppress(OSError, ValueError, AttributeError):
        _tell(output, problem, targets, color)
    raise typer.Exit(code)


def _tell(output: str, problem: str | None, targets: list[tuple[str, Path | None]], color: Color) -> None:
    from llmdoctor.gencfg.trace.summary import summary_report

    if problem is not None:
        complain(problem)
        return
    try:
        report = summary_report(output)
        for format, path in targets:
            if path is not None or sys.stderr is not None:
                write(report, format, path, color, sys.stderr)
    except QuestionError as error:
        complain(str(error))
