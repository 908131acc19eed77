"""The eos_token_id of configuration classes, which an engine sees that reads a config object and not config.json (a Llama stops at 2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.gencfg.types import Origin, SourcedValue


@cache
def _table() -> dict[str, Any]:
    """vllm_class_eos.json: made by conformance/make_vllm_class_eos.py from transformers 5.20.2."""
    data: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_class_eos.json").read_bytes())
    return data


def class_eos(config: Mapping[str, SourcedValue]) -> dict[str, SourcedValue]:
    """Return eos_token_id of the class of config.json's model_type; empty if the class has none or is not known."""
    kind = config["model_type"].value if "model_type" in config else None
    found = _table().get(kind) if isinstance(kind, str) else None
    if found is None:
        return {}
    return {"eos_token_id": SourcedValue(found, Origin("class-default", f"transformers 5.20 {kind} configuration class"))}
