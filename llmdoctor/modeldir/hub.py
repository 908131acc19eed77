"""Hub ids in the local cache, without network: refs and snapshots as huggingface_hub lays them out (file_download.py, 0.20 to 2.x)."""

from __future__ import annotations

import os
import re

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import read_bytes

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[\w.-]{1,96})?(?:@[\w./-]{1,96})?")


def looks_like_id(name: str) -> bool:
    """Whether `name` could be a hub id: "model", "org/model", "org/model@revision"."""
    return _ID.fullmatch(name) is not None and ".." not in name


def cache_folder() -> str:
    """Where the hub cache lies: HF_HUB_CACHE, else HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if explicit:
        return os.path.expanduser(explicit)
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return os.path.join(os.path.expanduser(home), "hub")


def find_snapshot(name: str) -> str | None:
    """The folder of a hub id's snapshot in the cache; None if it is not there."""
    identity, _, revision = name.partition("@")
    repository = os.path.join(cache_folder(), "models--" + identity.replace("/", "--"))
    commit = _commit(repository, revision or "main")
    if commit is None:
        return None
    snapshot = os.path.join(repository, "snapshots", commit)
    return snapshot if os.path.isdir(snapshot) else None


def snapshot_or_refuse(name: str) -> str:
    """Return the folder of a hub id's snapshot.

    Raises QuestionError, which names the folder that was searched, if it is not in the cache.
    """
    found = find_snapshot(name) if looks_like_id(name) else None
    if found is not None:
        return found
    if looks_like_id(name) and "/" in name:
        raise QuestionError(f"{name}: no such directory, and no such model in the hub cache at {cache_folder()}; nothing is downloaded")
    raise QuestionError(
        f"{name}: no such file or directory; expected a model directory, a generation_config.json, or a hub id in the cache"
    )


def _commit(repository: str, revision: str) -> str | None:
    ref = read_bytes(os.path.join(repository, "refs", revision), 100)
    if isinstance(ref, bytes):
        commit = ref.decode("ascii", "replace").strip()
        return commit if re.fullmatch(r"[0-9a-zA-Z_.-]+", commit) and commit not in (".", "..") else None
    if os.path.isdir(os.path.join(repository, "snapshots", revision)) and "/" not in revision:
        return revision
    return None
