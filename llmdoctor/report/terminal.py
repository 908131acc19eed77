"""The terminal: its width, whether it shows colour codes, and the one way to write a message to stderr."""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from llmdoctor.report import Style


class Color(str, Enum):
    """Whether to write colour codes."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def complain(message: str) -> None:
    """Write one message to stderr, made harmless."""
    from llmdoctor.core.text import clean, defuse, shortened

    sys.stderr.write(defuse(f"llmdoctor: {shortened(clean(message))}\n"))


def note(message: str) -> None:
    """Write what the command has done beside its answer to stderr, such as "wrote report.html", made harmless."""
    complain(message)


def terminal_style(color: Color) -> Style:
    """Return the style of stdout."""
    from llmdoctor.report import Style

    return Style(width=screen_width(), color=wants_color(color), terminal=sys.stdout.isatty())


def wants_color(color: Color, stream: TextIO | None = None) -> bool:
    if color is not Color.AUTO:
        return color is Color.ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def screen_width() -> int:
    import shutil

    return shutil.get_terminal_size((80, 24)).columns
