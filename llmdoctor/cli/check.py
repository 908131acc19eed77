"""`llmdoctor check`: options in, a report or a patch out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from llmdoctor.cli import complete
from llmdoctor.cli.output import Colors, Fail, FailOn, Formats, answer
from llmdoctor.cli.shared import writing
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import FOUND, INTERRUPTED, NOTHING, REFUSED
from llmdoctor.report.terminal import Color, complain

if TYPE_CHECKING:
    from llmdoctor.check.options import CheckOptions


def check(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Folders and files; the current folder by default.", metavar="[PATH...]")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select", help="Only the rules whose code begins with PREFIX; repeatable.", metavar="PREFIX", autocompletion=complete.rules
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore", help="Not the rules whose code begins with PREFIX; repeatable.", metavar="PREFIX", autocompletion=complete.rules
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="A file of findings that are accepted and not shown.", metavar="FILE", show_default=False),
    ] = None,
    write_baseline: Annotated[
        str | None, typer.Option("--write-baseline", help="Write the findings to FILE as a baseline.", metavar="FILE", show_default=False)
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make the safe fixes in JSON files below the paths, each tried on a copy first.")
    ] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="Also make fixes that change a behaviour on which callers may rely.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change, as a patch, and write nothing.")] = False,
    show_settings: Annotated[bool, typer.Option("--show-settings", help="Show the settings and their file; check nothing.")] = False,
    stdin_filename: Annotated[
        str | None,
        typer.Option(
            "--stdin-filename",
            help="Read the content of FILE from standard input, as an editor passes it; FILE names it in the findings.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Check again whenever a file below the paths changes, until Ctrl-C.")] = False,
    allow_nothing: Annotated[bool, typer.Option("--allow-nothing", help="Exit 0 if there is nothing to check.")] = False,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Check a tree with every static rule; no model is loaded.

    Checks model directories (GEN, DIR, SMP), training configurations (MEM: DeepSpeed, TrainingArguments as JSON, YAML or training_args.bin,
    accelerate, LLaMA-Factory, axolotl), requests to vLLM and OpenAI (GEN, SMP) and Python call sites (PYC), except the files that git ignores.
    Settings are read from [tool.llmdoctor] in pyproject.toml.
    """
    from llmdoctor.check.options import CheckOptions

    options = CheckOptions(
        paths=tuple(paths or ["."]),
        select=tuple(select or ()),
        ignore=tuple(ignore or ()),
        baseline=baseline,
        write_baseline=write_baseline,
        fix=fix,
        unsafe_fixes=unsafe_fixes,
        allow_nothing=allow_nothing,
        stdin_filename=stdin_filename,
    )
    if paths and stdin_filename is not None:
        complain("--stdin-filename names the only file that is checked: it cannot be combined with paths")
        raise typer.Exit(REFUSED)
    if watch:
        _watch(options, format, color)
    if diff:
        _print_patch(options, format)
    if show_settings:
        from llmdoctor.check.settings import settings_report

        answer(lambda: settings_report(options, None if fail_on is None else fail_on.value), "check", format, None, color)
    _answer(options, format, fail_on, color)


def _answer(options: CheckOptions, formats: list[str] | None, fail_on: FailOn | None, color: Color) -> NoReturn:
    from llmdoctor.check.check import check_report
    from llmdoctor.check.settings import read_settings

    try:
        settings = read_settings(options)
    except QuestionError:
        settings = None  # check_report reads them again and refuses
    if options.write_baseline is not None:
        fail_on = FailOn.NEVER  # what is written down is accepted
    elif fail_on is None and settings is not None and settings.fail_on is not None:
        fail_on = FailOn(settings.fail_on)
    answer(writing(options.write_baseline, "--write-baseline", lambda: check_report(options, settings)), "check", formats, fail_on, color)


def _watch(options: CheckOptions, formats: list[str] | None, color: Color) -> NoReturn:
    """Print the report after each change until Ctrl-C, which is the way out and exits 0."""
    from llmdoctor.check.check import check_report
    from llmdoctor.check.watch import changes
    from llmdoctor.cli.output import parse_targets, write

    try:
        if options.fix or options.write_baseline is not None or options.stdin_filename is not None:
            raise QuestionError("--watch only reports: it cannot be combined with --fix, --write-baseline or --stdin-filename")
        targets = parse_targets(formats)
        if any(path is not None for _, path in targets):
            raise QuestionError("--watch writes to the terminal: --format takes no PATH beside it")
        for _ in changes(options.paths):
            for name, path in targets:
                write(check_report(options), name, path, color)
            complain("waiting for a change; Ctrl-C ends it")
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    raise typer.Exit(0)


def _print_patch(options: CheckOptions, formats: list[str] | None) -> NoReturn:
    """Print the patch and exit 1; exit 0 without a change, 3 if there was nothing to check."""
    from llmdoctor.check.patch import check_patch

    try:
        if formats:
            raise QuestionError("--diff writes a patch: it cannot be combined with --format")
        patch = check_patch(options)
    except QuestionError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    for one in patch.skipped:
        complain(f"{one.what}: {one.reason}")
    sys.stdout.write(patch.text)
    raise typer.Exit(FOUND if patch.text else NOTHING if patch.nothing else 0)
