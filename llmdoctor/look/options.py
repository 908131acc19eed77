"""What `look` can be asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LookOptions:
    """What `look` was asked: `path` is a file, a folder or a hub id in the local cache.

    `versions` adds the versions of the installed libraries and the names of the GPUs, as `llmdoctor` without a command shows them.
    """

    path: str = "."
    versions: bool = False
