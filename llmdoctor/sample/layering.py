"""What an engine adds to a call from a model's files: generation_config.json, and transformers' own defaults."""

from __future__ import annotations

from typing import Any

from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.sample.entry import SamplingEngine

_FILE_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def file_defaults(directory: ModelDir) -> dict[str, Any]:
    """The sampling settings of a model's generation_config.json that transformers, vLLM and SGLang take for what a call leaves out."""
    found = {name: config_field(directory, name) for name in _FILE_DEFAULTS}
    return {
        name: int(value) if name == "top_k" else float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    }


def config_field(directory: ModelDir, name: str) -> Any:
    """Return a field of generation_config.json, None if it is not set."""
    file = directory.generation_config
    return file.value.get(name) if file is not None and isinstance(file.value, dict) else None


def model_call(directory: ModelDir, engine: SamplingEngine) -> dict[str, Any]:
    """Return the settings of a call without any of its own on this model, as keys of a claim.

    transformers (5.23.0, _prepare_generation_config): generation_config.json, without one config.json's fields of the same names, then
    its defaults: greedy, top_k 50. vLLM and SGLang take the sampling settings of generation_config.json, of which do_sample is none. Others
    read no such file.
    """
    if engine.model_files != "generation_config":
        return dict(file_defaults(directory)) if engine.model_files == "sampling" else {}
    file = directory.generation_config or directory.config
    value = file.value if file is not None and isinstance(file.value, dict) else {}
    known = {name: item for name, item in value.items() if item is not None}
    if directory.generation_config is None:
        known = {name: item for name, item in known.items() if name in (*engine.takes, "do_sample", "num_beams", "length_penalty")}
    return {**engine.defaults, **known}
