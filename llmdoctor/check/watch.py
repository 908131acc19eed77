"""`check --watch`: waits until a file below the paths changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from llmdoctor.core.errors import MissingExtra, QuestionError


def changes(paths: Sequence[str]) -> Iterator[None]:
    """Yield once at the start and once after each change below `paths`; changes within a short time of each other are one.

    Raises QuestionError if a path does not exist, or the package watchfiles, which asks the operating system, is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError:
        raise MissingExtra("check --watch", "watchfiles", "watch") from None
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise QuestionError(f"{missing[0]}: no such file or directory")
    yield
    for _ in watch(*paths, raise_interrupt=True):  # its default filter leaves out .git, __pycache__ and the files of editors
        yield
