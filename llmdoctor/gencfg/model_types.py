"""Which model types a release of transformers has: conformance/make_model_types.py reads CONFIG_MAPPING_NAMES of each minor release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.gencfg.raising import Raised
from llmdoctor.gencfg.types import SourcedValue
from llmdoctor.gencfg.versions import Minor


def check_model_type(config: Mapping[str, SourcedValue] | None, minor: Minor) -> None:
    """Raise as AutoConfig does for a model type that came later or left earlier; not for one with code of its own (auto_map)."""
    kind = None if config is None or "auto_map" in config else config.get("model_type")
    if kind is None or not isinstance(kind.value, str):
        return
    first, last = _table().get(kind.value, (None, None))
    since = f"since {first}" if first is not None else f"until {last}"
    if (first is not None and minor < _minor(first)) or (last is not None and minor > _minor(last)):
        raise Raised(
            "ValueError",
            f"the checkpoint has model type `{kind.value}`, which this release of transformers does not have (it is there {since})",
        )


def _minor(text: str) -> Minor:
    major, minor = text.split(".")
    return int(major), int(minor)


@cache
def _table() -> dict[str, tuple[str | None, str | None]]:
    """Return the first and the last minor release of each model type that came or went; None for before and after all that were read."""
    read: dict[str, Any] = json.loads(Path(__file__).with_name("model_types.json").read_bytes())
    return {name: (first, last) for name, (first, last) in read["types"].items()}
