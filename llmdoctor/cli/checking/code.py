"""Python files and notebooks: as many processes as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from llmdoctor.cli.checking.subjects import Subject
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Skipped

T = TypeVar("T")
_CHUNK = 2**19  # bytes of Python that a worker takes at a time


def beside(paths: list[str], other: Callable[[], T]) -> tuple[T, list[Subject], list[Skipped]]:
    """What `other` returns, and the subjects and the skipped of the code in `paths`, which goes to the other cores meanwhile."""
    chunks = list(_chunks(paths))
    if len(chunks) <= 1:
        done, code = other(), [check_code(chunk) for chunk in chunks]
    else:
        with ProcessPoolExecutor(min(len(chunks), os.cpu_count() or 1)) as pool:
            running = pool.map(check_code, chunks)
            done, code = other(), list(running)
    return done, [subject for chunk, _ in code for subject in chunk], [skipped for _, chunk in code for skipped in chunk]


def _chunks(paths: list[str]) -> Iterator[list[str]]:
    """The paths in order, in portions that take about as long as each other: by bytes, as most of the time goes into reading."""
    chunk, size = list[str](), 0
    for path in paths:
        chunk.append(path)
        size += _size(path)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # whoever reads it says what is wrong with it


def check_code(paths: list[str]) -> tuple[list[Subject], list[Skipped]]:
    """Python files and notebooks, in a worker process."""
    from llmdoctor.callsites.check import check_file

    subjects, skipped = [], []
    for path in paths:
        try:
            subjects.append(Subject(path, "notebook" if path.endswith(".ipynb") else "python", check_file(path)))
        except QuestionError as error:
            skipped.append(Skipped(path, str(error)))
    return subjects, skipped
