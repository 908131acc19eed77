"""Python files and notebooks, checked by as many processes as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from llmdoctor.check.isolation import isolated
from llmdoctor.check.subjects import Subject
from llmdoctor.core.processes import end_with_parent
from llmdoctor.core.report import Skipped

T = TypeVar("T")
_CHUNK = 2**19  # bytes of Python per portion


@dataclass(slots=True)
class CheckedCode:
    """The result for some Python files. `configs` maps each DeepSpeed config that code passes to DeepSpeed to the file that does so."""

    subjects: list[Subject] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    configs: dict[str, str] = field(default_factory=dict)

    def add(self, other: CheckedCode) -> None:
        """Append the result for later files."""
        self.subjects += other.subjects
        self.skipped += other.skipped
        self.configs = {**other.configs, **self.configs}


def beside(paths: list[str], other: Callable[[], T]) -> tuple[T, CheckedCode]:
    """Return what `other` returns, and the result for the code in `paths`, which other processes check meanwhile."""
    chunks = list(_chunks(paths))
    code = CheckedCode()
    if len(chunks) <= 1:
        done = other()
        for chunk in chunks:
            code.add(check_code(chunk))
        return done, code
    # Forked, because a new interpreter would look for modules in the working directory, which is an untrusted repository.
    with ProcessPoolExecutor(min(len(chunks), os.cpu_count() or 1), get_context("fork"), end_with_parent) as pool:
        running = pool.map(check_code, chunks)
        done = other()
        for part in running:
            code.add(part)
    return done, code


def _chunks(paths: list[str]) -> Iterator[list[str]]:
    """Yield the paths in order, in portions of similar size in bytes, because reading takes most of the time."""
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
        return 0  # reading it reports the reason


def check_code(paths: list[str]) -> CheckedCode:
    """Check Python files and notebooks, in a worker process; each is read once."""
    code = CheckedCode()
    for path in paths:
        checked = isolated(path, partial(_check_one, path, code.configs))
        if isinstance(checked, Skipped):
            code.skipped.append(checked)
        else:
            code.subjects.append(checked)
    return code


def _check_one(path: str, configs: dict[str, str]) -> Subject:
    """Return the findings in one file, and add to `configs` the DeepSpeed configs that it passes to DeepSpeed."""
    from llmdoctor.callsites.check import check_data, read_code

    data = read_code(path)
    if b"deepspeed" in data:
        from llmdoctor.mem.config_rules.launches import read_by_deepspeed

        configs.update(dict.fromkeys(read_by_deepspeed(data), path))
    return Subject(path, "notebook" if path.endswith(".ipynb") else "python", check_data(data, path))
