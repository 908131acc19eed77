"""PEFT's LoraConfig: an adapter_config.json, or an object inside another configuration. Read in peft 0.21.2, tuners/lora/config.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import Meanings, declared, keys_of
from llmdoctor.configs.types import Format, Key, Refused, Variant

DEFAULT_RANK = 8
LORA = Meanings(
    uses={
        "peft_type": "adapter",
        "r": "lora_rank",
        "target_modules": "lora_targets",
        "exclude_modules": "lora_exclude",
        "lora_dropout": "lora_dropout",
        "bias": "lora_bias",
        "use_dora": "lora_dora",
        "modules_to_save": "lora_modules_to_save",
        "layers_to_transform": "lora_layers",
        "layers_pattern": "lora_layers_pattern",
        "rank_pattern": "lora_rank_pattern",
        "target_parameters": "lora_parameters",
        "autocast_adapter_dtype": "lora_float32",
    },
    ignored={
        "a factor of the adapters' output": "lora_alpha alpha_pattern use_rslora",
        "it describes the adapter and does not change its size": (
            "task_type base_model_name_or_path revision auto_mapping inference_mode peft_version fan_in_fan_out runtime_config"
        ),
    },
    refused={
        "another initialisation computes decompositions or keeps further tensors, which is not modelled": "eva_config corda_config loftq_config",
        "rows of the embeddings are trained, which is not modelled": "trainable_token_indices",
        "layers are repeated, which is not modelled": "layer_replication",
        "the adapters have biases, which is not modelled": "lora_bias",
        "layers of Megatron are not modelled": "megatron_config",
        "adapters of tied embeddings that are tied, too, are not modelled": "ensure_weight_tying",
        "another variant of LoRA, which is not modelled": "use_qalora qalora_group_size use_bdlora arrow_config alora_invocation_tokens",
    },
    refused_if={
        "megatron_core": Refused("layers of Megatron are not modelled", ("megatron.core", None)),
        "init_lora_weights": Refused(
            "this initialisation changes the base weights or keeps further tensors, which is not modelled",
            (True, False, None, "gaussian", "kaiming", "orthogonal"),
        ),
        "qalora_group_size": Refused("another variant of LoRA, which is not modelled", (16, None)),
    },
)


@cache
def keys(prefix: str = "") -> dict[str, Key]:
    """Return the keys of LoraConfig, each below `prefix`."""
    return keys_of("peft", ("LoraConfig",), (LORA,), prefix)


def variant(_value: Mapping[str, Any]) -> Variant:
    """Return the class that reads the file."""
    return Variant(name="LoraConfig", keys=keys())


def settle(normal: Normal) -> None:
    """Fill in LoraConfig's defaults: rank 8, and PEFT's own target modules for the model's type (None here)."""
    kind = str(normal.get("adapter", "LORA")).rpartition(".")[2].lower()
    normal.put("adapter", kind, normal.key("adapter"))
    if normal.values.get("lora_rank") is None:
        normal.put("lora_rank", DEFAULT_RANK)


def default_targets(model_type: str) -> tuple[str, ...] | str | None:
    """Return the modules that get adapters if target_modules is not set, by PEFT's own table; None if it has none for this type of model."""
    found: list[str] | str | None = declared("peft")["values"]["target_modules"].get(model_type)
    return tuple(found) if isinstance(found, list) else found


def matches(path: str, targets: Sequence[str] | str) -> bool:
    """Return whether PEFT selects the module `path`: a text is a regular expression for all of it, names are its end (tuners/tuners_utils.py)."""
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in targets)


def is_saved(path: str, names: Sequence[str]) -> bool:
    """Return whether the module `path` belongs to one of modules_to_save, which gets no adapter (tuners_utils.py, check_target_module_exists)."""
    return any(f".{name}." in f".{path}." for name in names)


def is_adapter(value: Any) -> bool:
    """Return whether `value` is an adapter_config.json."""
    return isinstance(value, dict) and isinstance(value.get("peft_type"), str)


FORMAT = Format(
    name="peft",
    title="PEFT adapter configuration",
    library="peft",
    version=declared("peft")["version"],
    recognise=is_adapter,
    variant=variant,
    settle=settle,
    trains=False,
    arguments=False,
)
