"""One subject that cannot be checked does not end the check of the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Skipped

T = TypeVar("T")


def isolated(path: str, judge: Callable[[], T]) -> T | Skipped:
    """Return what `judge` returns; if it fails, why `path` was skipped. Only a fault of llmdoctor itself raises another error than QuestionError."""
    try:
        return judge()
    except QuestionError as error:
        return Skipped(path, str(error).removeprefix(f"{path}: "))
    except Exception as error:  # noqa: BLE001 whatever it is, the other subjects are checked
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rsplit('llmdoctor/', 1)[-1]}:{last.lineno}"
        return Skipped(path, f"not checked because of an internal fault ({type(error).__name__} at {where}); please report it")
