"""Typer's usage errors, made harmless: what one repeats of the command line has no control or bidi character, and is shortened."""

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
            error.message = shortened(clean(message))  # type: ignore[attr-defined]
        raise


class HarmlessCommand(TyperCommand):
    """A command whose usage errors can be shown on a terminal."""

    def parse_args(self, *arguments: Any, **named: Any) -> list[str]:
        """Parse the command line as Typer does."""
        with _harmless_errors():
            return super().parse_args(*arguments, **named)


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
