"""A group of commands, such as `llmdoctor mask`, built with the one command that the command line names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import typer

from llmdoctor.cli.shared import with_shared
from llmdoctor.cli.usage import HarmlessCommand, HarmlessGroup


def make_group(name: str, summary: str, commands: Mapping[str, Callable[..., None]], launchers: Collection[str] = ()) -> typer.Typer:
    """Return the group with the command `name` alone, or with all of `commands` if there is no such command.

    The options behind the first argument of a command in `launchers` belong to the command that it launches.
    """
    app = typer.Typer(cls=HarmlessGroup, help=summary, no_args_is_help=True, rich_markup_mode=None)
    app.callback()(_group)
    for known in [name] if name in commands else commands:
        settings = {"allow_interspersed_args": False} if known in launchers else {}
        app.command(known, cls=HarmlessCommand, context_settings=settings)(with_shared(commands[known]))
    return app


def _group() -> None:
    pass
