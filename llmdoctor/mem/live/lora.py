"""peft's LoRA on a meta model: same modules, same operations (peft tuners/lora/layer.py, Linear.forward), without peft."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Lora


def add_adapters(model: Any, lora: Lora, dtype: str) -> None:
    """Replace the target linear layers by ones with adapters and freeze everything else; QuestionError where none is a target."""
    import torch

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    kind = _layer()
    found = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name in lora.targets:
                setattr(module, name, kind(child, lora, torch.float32 if lora.float32 else getattr(torch, dtype)))
                found += 1
    if not found:
        raise QuestionError(f"--lora {lora.rank}: the model has none of the linear layers {', '.join(lora.targets)}; name its own ones")


def _layer() -> Any:
    import torch
    from torch import nn

    class LoraLinear(nn.Module):  # type: ignore[misc]
        """base_layer(x) + lora_B(lora_A(dropout(x))) * scaling, the adapters in their own dtype."""

        def __init__(self, base: Any, lora: Lora, dtype: Any) -> None:
            super().__init__()
            self.base_layer = base
            with torch.device("meta"):
                self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, lora.rank, bias=False, dtype=dtype)})
                self.lora_B = nn.ModuleDict({"default": nn.Linear(lora.rank, base.out_features, bias=False, dtype=dtype)})
            self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(lora.dropout) if lora.dropout else nn.Identity()})
            self.scaling = 2.0 / math.sqrt(1.0)

        def forward(self, x: Any) -> Any:
            result = self.base_layer(x)
            dtype = result.dtype
            down, up, dropout = self.lora_A["default"], self.lora_B["default"], self.lora_dropout["default"]
            x = x.to(down.weight.dtype) if x.dtype != down.weight.dtype else x
            result = result + up(down(dropout(x))) * self.scaling
            return result.to(dtype)

    return LoraLinear


def add_real_adapters(model: Any, lora: Lora) -> Any:
    """peft's own adapters; QuestionError where peft is not installed."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise QuestionError("--lora: a real run with adapters needs peft, which is not installed here") from None
    return get_peft_model(
        model, LoraConfig(r=lora.rank, lora_dropout=lora.dropout, target_modules=list(lora.targets), task_type="CAUSAL_LM")
    )
