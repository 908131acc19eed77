"""Which keys of the files an answer used, and which it ignored, with the reason."""

from __future__ import annotations

from typing import Any

from llmdoctor.core.inputs import Inputs
from llmdoctor.gencfg.engines.table import engine_named
from llmdoctor.gencfg.fields import near_field
from llmdoctor.gencfg.limits import default_limit
from llmdoctor.gencfg.types import Resolution
from llmdoctor.gencfg.versions import METADATA, field_defaults, known_field, rules_for

_FILE_LAYERS = ("generation_config.json", "user-config", "mutation")
_FROM_CONFIG = ("vocab_size", "is_encoder_decoder", "max_position_embeddings", "model_type", "sliding_window")


def unread_fields(resolution: Resolution) -> dict[str, str]:
    """Return the fields of the effective config that no library reads, each with the reason."""
    version = resolution.effective.rules
    engine, _ = engine_named(resolution.options.engine)
    if not engine.keeps_assignments:
        return {}
    minor, _ = rules_for(version)
    known = field_defaults(minor)
    return {
        name: _reason(name)
        for name, field in resolution.effective.fields.items()
        if name not in known
        and known_field(name) is None
        and name not in METADATA
        and field.origin.layer in ("generation_config.json", "user-config", "mutation")
    }


def _reason(name: str) -> str:
    return f"no version of transformers has this field{_meant(name)}"


def _meant(name: str) -> str:
    found = near_field(name)
    return "" if found is None else f"; did you mean {found}?"


def inputs_of(resolution: Resolution) -> Inputs:
    """Return the keys of the files that decide the effective config, those that do not, and what nothing sets."""
    effective, call = resolution.effective, resolution.call
    used: dict[str, Any] = {}
    ignored: dict[str, str] = dict(unread_fields(resolution))
    for field in effective.fields.values():
        if field.origin.file is not None and field.origin.pointer is not None:
            used[f"{field.origin.file}#{field.origin.pointer}"] = field.value
    for settings in (call.generation_config, call.user_config, call.config):
        for key, setting in (settings or {}).items():
            name = f"{setting.origin.file}#{setting.origin.pointer}"
            if name in used or key in ignored:
                continue
            if settings is call.config:
                if key in _FROM_CONFIG:
                    used[name] = setting.value
                else:
                    ignored[name] = "not a value that this call takes from config.json"
            elif key in METADATA:
                used[name] = setting.value
            else:
                ignored[name] = "another layer sets this field"
    assumed: dict[str, Any] = {}
    if resolution.options.prompt_length is None and not resolution.from_trace:
        assumed["prompt length in tokens"] = call.prompt_length
    if default_limit(effective):
        assumed["limit of new tokens"] = effective.stop.limit
    return Inputs(used=used, ignored=ignored, assumed=assumed)


def inputs_of_both(left: Resolution, right: Resolution) -> Inputs:
    """Return the inputs of both calls of a diff; each key begins with its side."""
    sides = {"left": inputs_of(left), "right": inputs_of(right)}
    return Inputs(
        used={f"{side}: {key}": value for side, inputs in sides.items() for key, value in inputs.used.items()},
        ignored={f"{side}: {key}": reason for side, inputs in sides.items() for key, reason in inputs.ignored.items()},
        assumed={f"{side}: {what}": value for side, inputs in sides.items() for what, value in inputs.assumed.items()},
    )
