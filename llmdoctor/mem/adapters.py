"""LoRA adapters and quantized weights of a configuration file."""

from __future__ import annotations

import re
from typing import Any

from llmdoctor.configs.types import Configuration
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.settings import dtype_of
from llmdoctor.mem.workload import ALL_LINEAR, Lora, Quantization


def adapters_of(configuration: Configuration) -> Lora | None:
    """Return the LoRA adapters of a file; None if it trains no adapters. Raises QuestionError for other adapters."""
    normal, path = configuration.normal, configuration.path
    kind = str(normal.get("adapter", "none")).lower()
    if kind in ("none", "full"):
        return None
    if kind != "lora":
        raise QuestionError(f"{path}: {normal.key('adapter') or 'adapter'}: {kind} is not modelled, expected lora")
    targets, pattern = _targets(normal.get("lora_targets"), f"{path}: {normal.key('lora_targets') or 'target_modules'}")
    return Lora(
        normal.get("lora_rank", 8),
        targets,
        pattern,
        float(normal.get("lora_dropout", 0.0)),
        normal.get("lora_float32", True) is not False,
        saved=_saved(configuration),
        dora=bool(normal.get("lora_dora", False)),
    )


def _saved(configuration: Configuration) -> tuple[str, ...]:
    """Return the names of PEFT's modules_to_save.

    PEFT takes a text letter by letter, and each name as a regular expression, of which only plain names are modelled (0.21, tuners_utils.py).
    """
    normal = configuration.normal
    names, key = tuple(normal.get("lora_modules_to_save") or ()), normal.key("lora_modules_to_save")
    if isinstance(normal.raw.get(key or ""), str) or not all(name.replace(".", "").isidentifier() for name in names):
        raise QuestionError(f"{configuration.path}: {key}: expected a list of names of modules, such as [lm_head, embed_tokens]")
    return names


def _targets(value: Any, where: str) -> tuple[tuple[str, ...], bool]:
    """Return (targets, whether they are one regular expression) of what PEFT's target_modules takes."""
    if not value:
        return (), False
    if isinstance(value, str):
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise QuestionError(f"{where}: not a regular expression: {error}") from None
        return (value,), value != ALL_LINEAR
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return ((ALL_LINEAR,), False) if list(value) == [ALL_LINEAR] else (tuple(value), False)
    raise QuestionError(f"{where}: expected a list of names, a regular expression or {ALL_LINEAR}")


def quantization_of(configuration: Configuration) -> Quantization | None:
    """Return the quantized weights of a file; None if they are not quantized. Raises QuestionError for methods that are not modelled."""
    normal, path = configuration.normal, configuration.path
    section = normal.get("quantization")
    if section:
        return _bits_and_bytes(section, f"{path}: {normal.key('quantization')}", prepared=normal.get("prepared", True))
    bits = normal.get("quantization_bits")
    if not bits:
        return None
    method = str(normal.get("quantization_method", "bitsandbytes"))
    where = f"{path}: {normal.key('quantization_bits') or 'quantization'}"
    if method != "bitsandbytes" or int(bits) not in (4, 8):
        raise QuestionError(f"{where}: weights of {bits} bits by {method} are not modelled, expected 4 or 8 by bitsandbytes")
    compute = normal.get("quantization_compute")
    return Quantization(
        int(bits),
        bool(normal.get("quantization_double", False)) and int(bits) == 4,
        normal.get("prepared", True),
        "bfloat16" if compute in (None, "auto") else dtype_of(compute, where),
    )


# BitsAndBytesConfig, transformers 5.23 utils/quantization_config.py: arguments that do not change what is held.
_HARMLESS = frozenset(
    "quant_method _load_in_4bit _load_in_8bit bnb_4bit_quant_type llm_int8_threshold llm_int8_enable_fp32_cpu_offload".split()
)
_READ = frozenset("load_in_4bit load_in_8bit bnb_4bit_use_double_quant bnb_4bit_compute_dtype".split())


def _bits_and_bytes(section: Any, where: str, *, prepared: bool) -> Quantization:
    if not isinstance(section, dict):
        raise QuestionError(f"{where}: expected the arguments of BitsAndBytesConfig")
    other = next((key for key, value in section.items() if key not in _HARMLESS | _READ and value not in (None, False, [], "uint8")), None)
    if other is not None or section.get("quant_method", "bitsandbytes") not in ("bitsandbytes", None):
        raise QuestionError(f"{where}: {other or 'quant_method'} is not modelled, expected load_in_4bit or load_in_8bit of bitsandbytes")
    if bool(section.get("load_in_4bit")) == bool(section.get("load_in_8bit")):
        raise QuestionError(f"{where}: expected one of load_in_4bit and load_in_8bit")
    compute = section.get("bnb_4bit_compute_dtype")
    return Quantization(
        4 if section.get("load_in_4bit") else 8,
        bool(section.get("bnb_4bit_use_double_quant")),
        prepared,
        "float32" if compute is None else dtype_of(compute, f"{where}.bnb_4bit_compute_dtype"),
    )
