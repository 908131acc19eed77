"""The library's exceptions and warnings, as the rules of transformers raise and collect them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class Raised(Exception):
    """An exception of the library: the name of its type and its message."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


@dataclass(slots=True)
class Warnings:
    """Warnings and log lines of the level warning, in order, each once."""

    messages: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Record a warnings.warn."""
        self.log(message)

    def log(self, message: str) -> None:
        """Record a logger.warning."""
        if message not in self.messages:
            self.messages.append(message)


def as_python(expression: Callable[[], T]) -> T:
    """Return the value of an expression of the library; what Python raises becomes the library's exception."""
    try:
        return expression()
    except Exception as error:  # noqa: BLE001 whatever Python raises on these values, it raises in the library too
        raise Raised(type(error).__name__, str(error)) from None


def refuse(when: Callable[[], Any], message: str) -> None:
    """Raise the library's ValueError if `when` is true."""
    if as_python(when):
        raise Raised("ValueError", message)
