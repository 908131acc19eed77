"""The model that a memory question is about: its directory and the object in config.json."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir


def model_directory(name: str) -> ModelDir:
    """Return the directory that `name` means: a directory, a config.json or a hub id in the local cache.

    Raises QuestionError if it holds no config.json.
    """
    from llmdoctor.modeldir.directory import read_model_dir

    directory = read_model_dir(os.path.dirname(name) or "." if os.path.basename(name) == "config.json" and os.path.isfile(name) else name)
    if directory.config is None:
        raise QuestionError(f"{directory.shown_name}: config.json is missing, so the model is unknown")
    return directory


def config_of(directory: ModelDir) -> dict[str, Any]:
    """Return the object in config.json.

    Raises QuestionError if it is not an object, if the model type is missing, or if it describes quantized weights.
    """
    file = directory.config
    if file is None:
        raise QuestionError(f"{directory.shown_name}: config.json is missing")
    if not isinstance(file.value, dict):
        reason = next((problem.message for problem in file.problems), "expected a JSON object")
        raise QuestionError(reason if file.shown_name in reason else f"{file.shown_name}: {reason}")
    if file.value.get("quantization_config"):
        raise QuestionError(
            f"{file.shown_name}: the checkpoint is quantized (quantization_config), and training such weights is not modelled: "
            "use the config.json of the original model, and set the quantization in the strategy file"
        )
    if not isinstance(file.value.get("model_type"), str) or not file.value["model_type"]:
        raise QuestionError(f"{file.shown_name}: model_type is missing, so the model is unknown")
    value: dict[str, Any] = file.value
    return value


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """Return the language model's part of a config: text_config if there is one, else the whole."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def dtype_name(config: dict[str, Any]) -> str | None:
    """Return the dtype that config.json names (float32, bfloat16 or float16); None if it names none of them."""
    dtype = config.get("dtype") or config.get("torch_dtype")
    return dtype if isinstance(dtype, str) and dtype in ("float32", "bfloat16", "float16") else None


def stored_dtype(directory: ModelDir) -> str | None:
    """Return the dtype of the floating-point tensors in the directory's first safetensors file; None without one, or if they have several.

    from_pretrained takes it if config.json names none (transformers 5.23, modeling_utils.py, _get_dtype).
    """
    from llmdoctor.files.safetensors import read_header

    first = next(
        (name for name in sorted(os.listdir(directory.path)) if name.endswith(".safetensors") and not name.startswith("adapter")), None
    )
    if first is None:
        return None
    tensors, _ = read_header(os.path.join(directory.path, first), directory.path)
    found = {_STORED[tensor.dtype] for tensor in tensors.values() if tensor.dtype in _STORED}
    return found.pop() if len(found) == 1 else None


_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def hidden_size(config: dict[str, Any]) -> int | None:
    """Return the hidden size as transformers' Trainer finds it for "auto" in a DeepSpeed config; None if it finds none.

    Source: transformers 5.23, integrations/deepspeed.py, trainer_config_finalize: hidden_size, the largest of hidden_sizes, or the same of
    text_config; hidden_size may have another name in config.json (attribute_map) and a default of the class.
    """
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            found = _named_size(part)
            if found is not None:
                return found
    return None


def _named_size(part: dict[str, Any]) -> int | None:
    from llmdoctor.modeldir import layerkinds

    entry = layerkinds.table()["types"].get(str(part.get("model_type")), {})
    name = entry.get("names", {}).get("hidden_size", "hidden_size")
    sizes = part.get("hidden_sizes")
    found = part.get(name, part.get("hidden_size", max(sizes) if isinstance(sizes, list) and sizes else None))
    found = entry.get("defaults", {}).get("hidden_size") if found is None else found
    return found if isinstance(found, int) and not isinstance(found, bool) else None
