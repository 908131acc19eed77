"""The commands' tree."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import typer

from llmdoctor.cli.output import Colors, Fail, Format, answer
from llmdoctor.report.terminal import Color


def make_app(arguments: list[str]) -> typer.Typer:
    """The commands that `arguments` can mean: the one they name, else all of them. Building one costs up to 4 ms (diff has 33 options)."""
    app = typer.Typer(
        name="llmdoctor",
        help="Answers what went wrong when a language model is trained or served, and names the cause: layer, file, line, setting.",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_main)
    first, second = [*arguments, "", ""][:2]
    if first in _COMMANDS:
        app.command(first)(_COMMANDS[first])
        return app
    for name, group in _GROUPS.items():
        if first == name or first not in _GROUPS:
            app.add_typer(import_module(group).make_app(second if first == name else ""), name=name)
    for name, command in _COMMANDS.items():
        app.command(name)(command)
    return app


def _tell_version(wanted: bool) -> None:
    if wanted:
        from llmdoctor import __version__

        typer.echo(f"llmdoctor {__version__}")
        raise typer.Exit


def _main(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.", show_default=False)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        from llmdoctor.look.report import here_report

        answer(here_report, "look", None, None, Color.AUTO)


def look(
    path: Annotated[str, typer.Argument(help="A file or folder, or a hub id in the local cache.", metavar="PATH")],
    format: Format = None,
    color: Colors = Color.AUTO,
) -> None:
    """What is this, and which commands answer something about it?

    A model or adapter directory, a checkpoint, a trace, a log, recorded outputs, a strategy, a snapshot, tensors, a repository. Without
    any command, llmdoctor looks at the current folder.
    """
    from llmdoctor.look.report import look_report

    answer(lambda: look_report(path), "look", format, None, color)


def rule(
    code: Annotated[
        str | None, typer.Argument(help="A rule's code, such as GEN001; without one, all are listed.", show_default=False)
    ] = None,
    format: Format = None,
    color: Colors = Color.AUTO,
) -> None:
    """Explain a rule.

    What it looks for, why it hurts, a bad and a good example, the fix.
    """
    from llmdoctor import rules as catalogue

    answer(lambda: catalogue.report(code), "rule", format, None, color)


def env(format: Format = None, color: Colors = Color.AUTO) -> None:
    """What to paste into a bug report.

    Versions, machine, caches; nothing is imported, nothing leaves the machine.
    """
    from llmdoctor.look import environment

    answer(environment.report, "env", format, None, color)


def demo(
    keep: Annotated[str | None, typer.Option("--keep", metavar="DIR", help="Keep the tiny model in DIR.", show_default=False)] = None,
) -> None:
    """The whole tool on an embedded tiny model.

    A Qwen2-VL made on the spot: the question, the prediction, the real runs, the fix. Needs the vlm extra.
    """
    from llmdoctor.demo.run import run

    raise typer.Exit(run(keep))


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
    from llmdoctor.cli.check import run_check

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
    run_check(options, format, fail_on, color)


_GROUPS = {name: f"llmdoctor.cli.{name}" for name in ("gencfg", "mask", "mem", "sample")}
_COMMANDS: dict[str, Callable[..., None]] = {"check": check, "look": look, "rule": rule, "env": env, "demo": demo}
