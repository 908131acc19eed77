"""Typer's usage errors and help, the same in every release (0.27 to 0.29): what an error repeats of the command line has no control or bidi
character and is shortened; an argument is shown by its name alone, without its Python type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand, TyperGroup

from llmdoctor.core.text import clean, shortened


@contextmanager
def _harmless_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)  # of Click's UsageError and its subclasses, which Typer does not export
        if isinstance(message, str):
            message = message.removeprefix("Value error, ")  # of pydantic's, in 0.29
            error.message = shortened(clean(message))  # type: ignore[attr-defined]
        raise


class HarmlessCommand(TyperCommand):
    """A command whose usage errors can be shown on a terminal."""

    def parse_args(self, *arguments: Any, **named: Any) -> list[str]:
        """Parse the command line as Typer does."""
        with _harmless_errors():
            return super().parse_args(*arguments, **named)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words behind the command's name: [NAME] may be left out, {NAME} may not."""
        pieces = [] if self.options_metavar is None else [self.options_metavar]
        for argument in filter(_is_argument, self.get_params(ctx)):
            name = _name_of(argument)
            pieces.append(name if name.startswith("[") else f"{{{name}}}" if argument.required else f"[{name}]")
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections Arguments and Options."""
        records = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        arguments = [(_name_of(param), record[1]) for param, record in records if record is not None and _is_argument(param)]
        options = [record for param, record in records if record is not None and not _is_argument(param)]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _name_of(argument: Any) -> str:
    return str(argument.metavar or argument.name)


class HarmlessGroup(TyperGroup):
    """A group of commands whose usage errors can be shown on a terminal."""

    def parse_args(self, *arguments: Any, **named: Any) -> list[str]:
        """Parse the command line as Typer does."""
        with _harmless_errors():
            return super().parse_args(*arguments, **named)

    def resolve_command(self, *arguments: Any, **named: Any) -> Any:
        """Find the command as Typer does."""
        with _harmless_errors():
            return super().resolve_command(*arguments, **named)
