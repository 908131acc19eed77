"""`llmdoctor check`: options in, a report or a patch out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from llmdoctor.cli.output import Colors, Fail, FailOn, Format, answer
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import FOUND, INTERRUPTED, NOTHING, REFUSED
from llmdoctor.core.report import Report
from llmdoctor.files.writing import write_file
from llmdoctor.report.terminal import Color, complain

if TYPE_CHECKING:
    from llmdoctor.check.report import CheckOptions


def check(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Folders and files; the current folder by default.", metavar="[PATH...]")
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option("--select", help="Only rules whose code starts so; repeatable.", metavar="PREFIX")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="No rules whose code starts so; repeatable.", metavar="PREFIX")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Findings that are known and not told.", metavar="FILE", show_default=False)
    ] = None,
    write_baseline: Annotated[
        str | None, typer.Option("--write-baseline", help="Write what is found as a baseline.", metavar="FILE", show_default=False)
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend in JSON files, then check again.")] = False,
    unsafe_fixes: Annotated[bool, typer.Option("--unsafe-fixes", help="Also mend what changes a behaviour somebody may rely on.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change, as a patch, and write nothing.")] = False,
    show_settings: Annotated[bool, typer.Option("--show-settings", help="Show what the check goes by, and do not check.")] = False,
    allow_nothing: Annotated[bool, typer.Option("--allow-nothing", help="Exit 0 where there is nothing to check.")] = False,
    format: Format = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The static rules over a tree, no model loaded.

    Model directories (GEN, DIR, SMP), training configurations (MEM: DeepSpeed, TrainingArguments as JSON, YAML or training_args.bin, accelerate,
    LLaMA-Factory, axolotl), requests to vLLM and OpenAI (GEN, SMP) and Python call sites (PYC), as git does not ignore them. Settings are read
    from [tool.llmdoctor] in pyproject.toml.
    """
    from llmdoctor.check.report import CheckOptions

    options = CheckOptions(
        paths=tuple(paths or ["."]),
        select=tuple(select or ()),
        ignore=tuple(ignore or ()),
        baseline=baseline,
        write_baseline=write_baseline,
        fix=fix,
        unsafe_fixes=unsafe_fixes,
        diff=diff,
        show_settings=show_settings,
        allow_nothing=allow_nothing,
    )
    _run(options, format, fail_on, color)


def _run(options: CheckOptions, formats: list[str] | None, fail_on: FailOn | None, color: Color) -> NoReturn:
    """The command: settings from pyproject.toml, over them the command line's, and the baseline to read or to write."""
    from llmdoctor.check.fixing import mend, with_fixable
    from llmdoctor.check.report import accepted_baseline, check_report, read_settings, settings_report
    from llmdoctor.core import baseline

    written = options.write_baseline
    try:
        _refuse_idle(options, formats)
        settings = read_settings(options)
        accepted = accepted_baseline(options, settings)
    except QuestionError as error:
        refused = error
        answer(lambda: _raise(refused), "check", formats, fail_on, color)
    fail_on = fail_on or (FailOn(settings.fail_on) if settings.fail_on is not None else None)

    def check() -> Report:
        return check_report(list(options.paths), settings, accepted, notes=fail_on is FailOn.INFO)

    def build() -> Report:
        report = with_fixable(mend(check, options.unsafe_fixes) if options.fix else check())
        if written is not None:
            write_file(Path(written), baseline.text(report.findings, os.path.dirname(written)))
        return replace(report, nothing=report.nothing and not options.allow_nothing)

    if options.show_settings:
        answer(lambda: settings_report(settings, accepted, None if fail_on is None else fail_on.value), "check", formats, None, color)
    if options.diff:
        _print_diff(check, options.unsafe_fixes)
    answer(build, "check", formats, FailOn.NEVER if written is not None else fail_on, color)


def _raise(error: QuestionError) -> NoReturn:
    raise error


def _refuse_idle(options: CheckOptions, formats: list[str] | None) -> None:
    """Raise QuestionError for an option that would do nothing beside the others."""
    if options.unsafe_fixes and not (options.fix or options.diff):
        raise QuestionError("--unsafe-fixes does nothing without --fix or --diff")
    if options.diff and formats:
        raise QuestionError("--diff writes a patch and takes no --format")
    if options.diff and (options.fix or options.write_baseline is not None):
        raise QuestionError("--diff writes nothing: it does not go with --fix or --write-baseline")
    if options.baseline is not None and options.write_baseline is not None:
        raise QuestionError("--write-baseline writes down all that is found: it does not go with --baseline")


def _print_diff(check: Callable[[], Report], unsafe: bool) -> NoReturn:
    """The patch and exit 1, or nothing and exit 0; 3 where there was nothing to check."""
    from llmdoctor.check.fixing import diff

    try:
        report = check()
        patch, skipped = diff(report, unsafe)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    for one in skipped:
        complain(f"{one.what}: {one.reason}")
    sys.stdout.write(patch)
    raise typer.Exit(FOUND if patch else NOTHING if report.nothing else 0)
