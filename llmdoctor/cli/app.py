"""The tree of commands."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import typer

from llmdoctor.cli.output import answer
from llmdoctor.cli.shared import with_shared
from llmdoctor.cli.usage import HarmlessCommand, HarmlessGroup
from llmdoctor.report.terminal import Color


def make_app(arguments: list[str]) -> typer.Typer:
    """Return the commands that `arguments` can mean: the one they name, else all. Building a command costs up to 4 ms (diff has 33 options)."""
    app = typer.Typer(
        name="llmdoctor",
        cls=HarmlessGroup,
        help="Find what went wrong when a language model is trained or served, and the cause: layer, file, line, setting.",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_main)
    first, second = [*arguments, "", ""][:2]
    if first in _COMMANDS:
        app.command(first, cls=HarmlessCommand)(_command(first))
        return app
    for name in [first] if first in _GROUPS else _GROUPS:
        app.add_typer(import_module(_GROUPS[name]).make_app(second if first == name else ""), name=name)
    for name in () if first in _GROUPS else _COMMANDS:
        app.command(name, cls=HarmlessCommand)(_command(name))
    return app


def _command(name: str) -> Callable[..., None]:
    """Return the function of the command `name`."""
    module, _, function = _COMMANDS[name].partition(":")
    found: Callable[..., None] = getattr(import_module(module), function)
    return found if name == "demo" else with_shared(found)


def _print_version(wanted: bool) -> None:
    if wanted:
        from llmdoctor.version import __version__

        typer.echo(f"llmdoctor {__version__}")
        raise typer.Exit


def _main(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.", show_default=False)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        from llmdoctor.look.look import look_report
        from llmdoctor.look.options import LookOptions

        answer(lambda: look_report(LookOptions(versions=True)), "look", None, None, Color.AUTO)


_GROUPS = {name: f"llmdoctor.cli.{name}" for name in ("gencfg", "labels", "mask", "mem", "prompt", "sample")}
_COMMANDS = {
    "check": "llmdoctor.cli.check:check",
    "look": "llmdoctor.cli.look:look",
    "rule": "llmdoctor.cli.look:rule",
    "env": "llmdoctor.cli.look:env",
    "demo": "llmdoctor.cli.look:demo",
}
