"""The model's own generation config, as from_pretrained makes it: from generation_config.json, else from config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.gencfg.layers import Fields, bare
from llmdoctor.gencfg.types import GenerateCall, Origin, Resolved, SourcedValue
from llmdoctor.gencfg.versions import Minor, field_defaults, late_defaults

TEXT_CONFIGS = ("decoder", "generator", "text_config")  # 5.x, and 4.x up to 4.44, by name (GenerationConfig.from_model_config)
MORE_TEXT_CONFIGS = (*TEXT_CONFIGS, "text_encoder", "thinker_config", "language_config", "language", "llm_config")
# 4.42.4 to 4.52.4 models/gemma2/configuration_gemma2.py, 4.48 on cohere2, 4.50 on gemma3: cache_implementation="hybrid" is the class's default.
HYBRID_SINCE: dict[str, Minor] = {
    "gemma2": (4, 42),
    "cohere2": (4, 48),
    "aya_vision/text": (4, 50),
    "gemma3_text": (4, 50),
    "gemma3/text": (4, 50),
    "shieldgemma2/text": (4, 50),
}
_METADATA = ("transformers_version", "_from_model_config", "_commit_hash")


@dataclass(slots=True)
class LoadedModel:
    """The model after from_pretrained: `fields` of its generation config, the `stamp` of the version that wrote it.

    A missing stamp is the running version's. `from_config` is true if it was made from config.json, whose names are `config_fields`.
    """

    fields: Fields
    stamp: Any
    from_config: bool
    config_fields: Mapping[str, Any]
    minor: Minor = (0, 0)
    version: str = ""
    config: Mapping[str, SourcedValue] = field(default_factory=dict)

    def legacy_edits(self, edits: tuple[tuple[str, SourcedValue], ...], minor: Minor) -> bool:
        """Whether model.config holds generation settings other than the defaults (4.x, _get_non_default_generation_parameters)."""
        defaults = field_defaults(minor)
        settable = set(late_defaults((5, 0))) - {"use_cache"}
        values = {name: setting.value for name, setting in self.config.items()} | {name: setting.value for name, setting in edits}
        return any(
            name in settable and name in defaults and (value is not None or minor < (4, 45)) and value != defaults[name]
            for name, value in values.items()
        )

    def rebuilt(self, edits: tuple[tuple[str, SourcedValue], ...]) -> Fields:
        """Return the generation config built again from the edited model.config."""
        edited = {**self.config, **dict(edits)}
        return _from_config(edited, self.minor, self.version)


def load(call: GenerateCall, minor: Minor, version: str) -> LoadedModel:
    """Return the model's generation config before any mutation."""
    config = dict(call.config or {})
    names = {name: setting.value for name, setting in config.items()}
    file = call.generation_config
    if file is None:
        return LoadedModel(
            fields=_from_config(config, minor, version),
            stamp=version,
            from_config=True,
            config_fields=names,
            minor=minor,
            version=version,
            config=config,
        )
    fields = bare(field_defaults(minor), version)
    from_config = bool(file["_from_model_config"].value) if "_from_model_config" in file else False
    for name, setting in file.items():
        # A file that is marked as made from a model config loses its custom entries (GenerationConfig.__init__).
        if name in _METADATA or (from_config and name not in fields):
            continue
        fields.put(name, setting)
    if from_config:
        _force_bos(file, fields, minor)
    stamp = file["transformers_version"].value if "transformers_version" in file else version
    return LoadedModel(
        fields=fields, stamp=stamp, from_config=from_config, config_fields=names, minor=minor, version=version, config=config
    )


def _from_config(config: Mapping[str, SourcedValue], minor: Minor, version: str) -> Fields:
    """GenerationConfig.from_model_config: config.json's values, in 4.x over the class's defaults, then the language model's."""
    fields = bare(field_defaults(minor), version)
    kind = config["model_type"].value if "model_type" in config else None
    outer = _class_defaults(kind, version, minor) if minor < (5, 0) else {}
    outer = {name: setting for name, setting in outer.items() if name not in config}
    text_name, text = _text_config(config)
    keep_none = minor < (4, 45)
    for source in (outer, config):
        for name, setting in source.items():
            if name in fields and (setting.value is not None or (keep_none and source is config)):
                fields.put(name, setting)
    _force_bos(config, fields, minor)
    defaults = field_defaults(minor)
    own = text.get("model_type") or f"{kind}/text"
    inner = _class_defaults(own, version, minor) if minor < (5, 0) else {}
    for name, setting in {**inner, **_nested(text, text_name, config)}.items():
        if name in fields and fields.value(name) == defaults.get(name) and setting.value is not None:
            fields.put(name, setting)
    if not fields.value("return_dict_in_generate") and any(fields.value(name) for name in _OUTPUTS) and minor >= (4, 45):
        fields.put("return_dict_in_generate", SourcedValue(True, Origin("derived", "from_model_config(): an output_... flag is set")))
    return fields


def _force_bos(values: Mapping[str, SourcedValue], fields: Fields, minor: Minor) -> None:
    """5.x: an old BART's config.json asks for its bos token first (5.0.0 generation/configuration_utils.py GenerationConfig.__init__)."""
    forced = values.get("force_bos_token_to_be_generated")
    if minor >= (5, 0) and forced is not None and forced.value:
        fields.put("forced_bos_token_id", SourcedValue(fields.value("bos_token_id"), Origin("derived", "force_bos_token_to_be_generated")))


_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")


def _text_config(config: Mapping[str, SourcedValue]) -> tuple[str, Mapping[str, Any]]:
    """The language model nested in a composite: get_text_config(decoder=True), which knows three names (configuration_utils.py)."""
    for name in TEXT_CONFIGS:
        if name in config and isinstance(config[name].value, dict) and config[name].value:
            return name, config[name].value
    return "", {}


def _nested(text: Mapping[str, Any], name: str, config: Mapping[str, SourcedValue]) -> dict[str, SourcedValue]:
    if not text:
        return {}
    where = config[name].origin
    return {
        key: SourcedValue(
            value, Origin("config.json", f"{where.source} {name}.{key}", where.file, f"{where.pointer or ''}/{key}", where.line)
        )
        for key, value in text.items()
    }


@cache
def _table() -> dict[str, dict[str, Any]]:
    """class_defaults.json: made by conformance/make_class_defaults.py from transformers 4.57.6."""
    data: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("class_defaults.json").read_bytes())
    return data


def _class_defaults(kind: Any, version: str, minor: Minor) -> dict[str, SourcedValue]:
    if not isinstance(kind, str):
        return {}
    origin = Origin("class-default", f"transformers {version} {kind} configuration class")
    values = dict(_table().get(kind, {}))
    if kind in HYBRID_SINCE and HYBRID_SINCE[kind] <= minor <= (4, 52):
        values["cache_implementation"] = "hybrid"
    return {name: SourcedValue(value, origin) for name, value in values.items()}


def vocabulary_of(model: LoadedModel) -> int | None:
    """Return vocab_size of config.json, or of the language model nested in it."""
    return vocabulary_in(model.config_fields)


def vocabulary_in(config: Mapping[str, Any]) -> int | None:
    """Return vocab_size of a config's values, or of the language model nested in them; None if neither has it."""
    for value in (config, *(config.get(name) for name in MORE_TEXT_CONFIGS)):
        size = value.get("vocab_size") if isinstance(value, Mapping) else None
        if isinstance(size, int) and not isinstance(size, bool):
            return size
    return None


# Classes with an attribute sliding_window, and its default.
WINDOWED: dict[str, int | None] = {
    "mistral": 4096,
    "mixtral": None,
    "gemma2": 4096,
    "gemma3": 4096,
    "gemma3_text": 4096,
    "cohere2": 4096,
    "qwen2": None,
    "qwen2_vl": None,
    "phi3": None,
}


def window_of(model: LoadedModel) -> Any:
    """sliding_window of config.json or of the language model nested in it, else the class's default."""
    for values in (*(model.config_fields.get(name) for name in TEXT_CONFIGS), model.config_fields):
        if isinstance(values, Mapping) and "sliding_window" in values:
            return values["sliding_window"]
    return WINDOWED.get(str(model.config_fields.get("model_type")))


def has_window(model: LoadedModel) -> bool:
    """Whether the model's configuration has an attribute sliding_window at all."""
    return "sliding_window" in model.config_fields or str(model.config_fields.get("model_type")) in WINDOWED or window_of(model) is not None


def config_value(model: LoadedModel, name: str) -> Any:
    """Return a top-level value of config.json."""
    return model.config_fields.get(name)


def resolved(setting: SourcedValue) -> Resolved:
    """Return a setting that replaced nothing."""
    return Resolved(setting.value, setting.origin)
