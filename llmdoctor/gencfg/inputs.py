"""Which keys of the files an answer used, and which it ignored, with the reason."""

from __future__ import annotations

from typing import Any

from llmdoctor.core.inputs import Inputs
from llmdoctor.gencfg.engines.table import engine_named
from llmdoctor.gencfg.limits import default_limit
from llmdoctor.gencfg.types import Resolution
from llmdoctor.gencfg.versions import METADATA, field_defaults, known_field, newest_known, rules_for

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


# Names of other engines and common slips, by the field of transformers that is meant.
_OTHER_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_gen_len": "max_new_tokens",
    "max_gen_toks": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "repeat_penalty": "repetition_penalty",
    "rep_penalty": "repetition_penalty",
    "stop": "stop_strings",
    "stop_words": "stop_strings",
    "stop_sequences": "stop_strings",
    "stop_token_ids": "eos_token_id",
    "stop_words_ids": "eos_token_id",
    "end_id": "eos_token_id",
    "temp": "temperature",
    "n": "num_return_sequences",
    "min_tokens": "min_new_tokens",
}


def near_field(name: str) -> str | None:
    """Return the field that a misspelt name most likely means; None if none is near."""
    import difflib

    fields = list(field_defaults(rules_for(newest_known())[0]))
    plain = name.strip().lower().replace("-", "_")
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    if plain != name and plain in fields:
        return plain
    return next(iter(difflib.get_close_matches(plain, fields, 1, 0.86)), None)


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
