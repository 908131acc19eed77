"""Limits of processes: a worker ends with the process that started it, however that one dies, and a step may take only so much memory.

Standard library only; the template worker loads this file alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS = 0.5


def end_with_parent(parent: int | None = None) -> None:
    """Start a thread that ends this process within half a second after `parent` is gone, the process that started it (None: the present parent)."""
    threading.Thread(target=_watch, args=(os.getppid() if parent is None else parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Let this process take `more` bytes of address space than now while the block runs; what asks for more than that gets a MemoryError.

    No limit is set on systems without /proc or if a lower one is set already.
    """
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + more
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    lower = [value for value in (limit, *before) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(lower), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
