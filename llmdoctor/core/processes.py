"""Worker processes end with the process that started them, however that one dies. Standard library only; the template worker loads this file alone."""

from __future__ import annotations

import os
import threading
import time

_SECONDS = 0.5


def end_with_parent(parent: int | None = None) -> None:
    """Start a thread that ends this process within half a second after `parent` is gone, the process that started it (None: the present parent)."""
    threading.Thread(target=_watch, args=(os.getppid() if parent is None else parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)
