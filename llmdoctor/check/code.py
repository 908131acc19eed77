"""Python files and notebooks: as many processes as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from llmdoctor.check.subjects import Subject
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.processes import end_with_parent
from llmdoctor.core.report import Skipped

T = TypeVar("T")
_CHUNK = 2**19  # bytes of Python that a worker takes at a time


@dataclass(slots=True)
class Code:
    """What a portion of code came to. `configs` are the DeepSpeed configs that it hands to DeepSpeed itself, with the file that does."""

    subjects: list[Subject] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    configs: dict[str, str] = field(default_factory=dict)

    def add(self, other: Code) -> None:
        """Take in what comes after."""
        self.subjects += other.subjects
        self.skipped += other.skipped
        self.configs = {**other.configs, **self.configs}


def beside(paths: list[str], other: Callable[[], T]) -> tuple[T, Code]:
    """What `other` returns, and what the code in `paths` came to, which goes to the other cores meanwhile."""
    chunks = list(_chunks(paths))
    code = Code()
    if len(chunks) <= 1:
        done = other()
        for chunk in chunks:
            code.add(check_code(chunk))
        return done, code
    with ProcessPoolExecutor(min(len(chunks), os.cpu_count() or 1), initializer=end_with_parent) as pool:
        running = pool.map(check_code, chunks)
        done = other()
        for part in running:
            code.add(part)
    return done, code


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


def check_code(paths: list[str]) -> Code:
    """Python files and notebooks, in a worker process; each is read once."""
    from llmdoctor.callsites.check import check_data, read_code

    code = Code()
    for path in paths:
        try:
            data = read_code(path)
            code.subjects.append(Subject(path, "notebook" if path.endswith(".ipynb") else "python", check_data(data, path)))
        except QuestionError as error:
            code.skipped.append(Skipped(path, str(error).removeprefix(f"{path}: ")))
            continue
        if b"deepspeed" in data:
            from llmdoctor.mem.config_rules.launches import read_by_deepspeed

            code.configs.update(dict.fromkeys(read_by_deepspeed(data), path))
    return code
