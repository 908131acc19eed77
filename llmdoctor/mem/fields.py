"""What the readers of strategies share: files, sections, numbers, the keys of ours in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.optimizers import torch_optimizer
from llmdoctor.mem.settings import Optimizer, dtype_of
from llmdoctor.mem.workload import LORA_TARGETS, Lora

OURS = ("model_init", "client_optimizer")  # keys of ours in a strategy's file, which the libraries do not know


@dataclass(frozen=True, slots=True)
class Given:
    """What a strategy's reader has to know besides the file: the model's own dtype and hidden size, and the command line's options."""

    model_dtype: str | None = None
    hidden_size: int | None = None
    world_size: int = 1
    asked_world: bool = False
    lora: int | None = None
    checkpointing: bool = False


def read_mapping(path: str) -> dict[str, Any]:
    """Return the object of a JSON or YAML file. Raises QuestionError if there is none."""
    from llmdoctor.files.mapping import read_mapping_file

    return read_mapping_file(path).value  # type: ignore[no-any-return]


def section_of(path: str, value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object inside a config; empty where it is not there, QuestionError where it is something else."""
    section = value.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise QuestionError(f"{path}: {key}: expected an object, found {type(section).__name__}")
    return section


def is_enabled(path: str, value: Mapping[str, Any], key: str) -> bool:
    """Whether a section says enabled."""
    return bool(section_of(path, value, key).get("enabled", False))


def flag_of(path: str, value: Mapping[str, Any], key: str) -> bool:
    """A boolean; false where it is not there, QuestionError where it is something else."""
    flag = value.get(key, False)
    if flag is None or isinstance(flag, bool):
        return bool(flag)
    raise QuestionError(f"{path}: {key}: expected true or false, found {flag!r}")


def count_of(path: str, value: Mapping[str, Any], key: str, default: int, least: int = 1) -> int:
    """A whole number of at least `least`, also written 5e8; QuestionError for another."""
    number = value.get(key, default)
    if isinstance(number, str) and re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9]+)?", number):
        number = float(number)  # YAML reads 5e8 as text
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number < 2**63:
        raise QuestionError(f"{path}: {key}: expected a whole number of at least {least}, found {repr(number)[:40]}")
    return number


def number_of(path: str, value: Mapping[str, Any], key: str, default: float) -> float:
    """A number, 0 for null; QuestionError for another."""
    number = value.get(key, default)
    if number is None:
        return 0.0
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < 2**63:
        raise QuestionError(f"{path}: {key}: expected a number, found {repr(number)[:40]}")
    return float(number)


def init_dtype(path: str, value: Mapping[str, Any]) -> str | None:
    """The dtype that the file says the model is loaded in."""
    init = section_of(path, value, "model_init")
    return None if init.get("dtype") in (None, "auto") else dtype_of(init["dtype"], f"{path}: model_init.dtype")


def peft_adapters(path: str, value: Mapping[str, Any]) -> Lora | None:
    """The file's LoRA adapters; QuestionError for what else peft can do."""
    peft = section_of(path, value, "model_init").get("peft_config")
    if peft is None:
        return None
    if not isinstance(peft, dict) or str(peft.get("peft_type", "LORA")).upper() != "LORA":
        raise QuestionError(f"{path}: model_init.peft_config: only LORA is known here")
    for key in ("use_dora", "modules_to_save", "trainable_token_indices", "rank_pattern"):
        if peft.get(key):
            raise QuestionError(f"{path}: model_init.peft_config.{key} changes what is trained and is not modelled")
    if peft.get("bias", "none") != "none":
        raise QuestionError(f"{path}: model_init.peft_config.bias {peft['bias']!r} is not modelled, expected none")
    targets = peft.get("target_modules") or LORA_TARGETS
    if not isinstance(targets, list | tuple) or not all(isinstance(name, str) for name in targets):
        raise QuestionError(f"{path}: model_init.peft_config.target_modules: expected a list of names")
    rank = count_of(f"{path}: model_init.peft_config", peft, "r", 8)
    return Lora(rank, tuple(targets), float(peft.get("lora_dropout", 0.0) or 0.0))


def client_optimizer(path: str, client: Any) -> Optimizer:
    """The optimizer object that the caller makes."""
    if not isinstance(client, dict) or "class" not in client:
        raise QuestionError(f"{path}: client_optimizer: expected an object with class and kwargs")
    kwargs = client.get("kwargs") or {}
    return torch_optimizer(client["class"], kwargs if isinstance(kwargs, dict) else {}, f"{path}: client_optimizer.class")
