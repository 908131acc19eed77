"""Shapes of quantized weights and of LoRA adapters beside the weights of a checkpoint, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.weights import Weight
from llmdoctor.mem.workload import ALL_LINEAR, Lora, Workload

OUTPUTS = ("lm_head", "embed_out", "score", "classifier")


def _linear(weights: Sequence[Weight]) -> list[str]:
    """Return the names of the linear layers except the output layer, which gets neither adapters nor quantized weights."""
    names = [weight.name.removesuffix(".weight") for weight in weights if len(weight.shape) == 2 and not weight.embedding]
    return [name for name in names if name.rpartition(".")[2] not in OUTPUTS]


def quantized(weights: tuple[Weight, ...], workload: Workload) -> tuple[Weight, ...]:
    """Return the weights as bitsandbytes holds them; the scales, one or two percent more, are left out of this lower bound."""
    if workload.lora is not None:
        weights = tuple(replace(weight, trainable=False) for weight in weights)
    if workload.quantization is None:
        return weights
    linear, packed = set(_linear(weights)), 8 // workload.quantization.bits
    other = "float32" if workload.quantization.prepared else workload.dtype
    return tuple(
        replace(weight, shape=(-(-weight.numel // packed), 1), dtype="uint8", trainable=False, packed=packed)
        if weight.name.removesuffix(".weight") in linear
        else replace(weight, dtype=other, trainable=False)
        for weight in weights
    )


def adapters(weights: tuple[Weight, ...], family: str, workload: Workload) -> tuple[Weight, ...]:
    """Return the LoRA adapters beside the layers that PEFT selects."""
    lora = workload.lora
    if lora is None:
        return ()
    from llmdoctor.configs.peft import default_targets, is_saved, matches

    targets = (lora.targets[0] if lora.pattern else lora.targets) or default_targets(family)
    if targets is None:
        raise QuestionError(f"target_modules is not set, and PEFT has no default for models of type {family}: set target_modules")
    linear, dtype = set(_linear(weights)), "float32" if lora.float32 else workload.dtype
    names = {name for name in linear if (targets == (ALL_LINEAR,) or matches(name, targets)) and not is_saved(name, lora.saved)}
    found = [weight for weight in weights if weight.name.removesuffix(".weight") in names]
    if not found:
        raise QuestionError(f"LoRA: the model has none of the target modules {targets}: set target_modules")
    parts = [
        Weight(f"{weight.name.removesuffix('.weight')}.{part}", shape, dtype)
        for weight in found
        for part, shape in (
            ("lora_A.default.weight", (lora.rank, weight.shape[1])),
            ("lora_B.default.weight", (weight.shape[0], lora.rank)),
            *((("magnitude", (weight.shape[0],)),) if lora.dora else ()),
        )
    ]
    return (*parts, *_saved(weights, lora))


def _saved(weights: tuple[Weight, ...], lora: Lora) -> list[Weight]:
    """Return the copies that are trained of modules_to_save; of an output layer that is tied, one of the embedding."""
    owners = [(weight.name.rpartition(".")[0], weight) for weight in weights]
    found = [weight for name, weight in owners if lora.saved and any(part.endswith(lora.saved) for part in _prefixes(name))]
    untied = any(name.rpartition(".")[2] in OUTPUTS for name, _ in owners)
    if not untied and any(end in OUTPUTS for end in lora.saved):
        found += [weight for weight in weights if weight.embedding][:1]
    return [replace(weight, name=f"{weight.name}.modules_to_save", trainable=True) for weight in found]


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
