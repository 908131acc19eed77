"""What a record says of the library's objects."""

from __future__ import annotations

import os
import sys
from typing import Any

from llmdoctor.attach.records import plain

METADATA = frozenset({"transformers_version"})


def public(config: Any) -> dict[str, Any]:
    """The fields of a config that are not None and not the library's own bookkeeping, as JSON has them."""
    return {name: plain(value) for name, value in config.__dict__.items() if value is not None and not name.startswith("_")}


def name_of(model: Any) -> str | None:
    """The directory or hub id a model was loaded from."""
    config = getattr(model, "config", None)
    name = getattr(model, "name_or_path", None) or getattr(config, "_name_or_path", None)
    return os.path.abspath(name) if isinstance(name, str) and name and os.path.isdir(name) else name or None


def library_version() -> str | None:
    """The version of transformers that is imported here."""
    return getattr(sys.modules.get("transformers"), "__version__", None)


def ids_of(value: Any) -> list[int]:
    """The token ids in an eos_token_id: an int, a list of ints, a tensor of either, None."""
    value = plain(value)
    if isinstance(value, list):
        return [token for entry in value for token in ids_of(entry)]
    return [int(value)] if isinstance(value, (int, float)) else []
