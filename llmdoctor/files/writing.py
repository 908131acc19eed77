"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from llmdoctor.core.errors import QuestionError


def write_file(path: Path, text: str, mode: int | None = None) -> None:
    """Write all of it or nothing: a neighbour is written first and then takes the name. A pipe or device is written to as it is.

    Line ends are written as they are in `text`; `mode` are the new file's permissions, where not the usual ones.
    """
    if path.exists() and not path.is_file():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise QuestionError(f"cannot write {path}: {error.strerror or error}") from None
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise QuestionError(f"cannot write {path}: {error.strerror or error}") from None
