"""PEFT's LoRA on a meta model: the same modules and operations (peft 0.21, tuners/lora/layer.py, Linear.forward), without PEFT."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmdoctor.configs.peft import default_targets, is_saved, matches
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.workload import ALL_LINEAR

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Lora

HEADS = ("score", "classifier")  # SEQ_CLS_HEAD_NAMES of PEFT: a classification head gets no adapters


def add_adapters(model: Any, lora: Lora, dtype: str) -> None:
    """Replace the target layers of a meta model by layers with adapters, and freeze everything else but copies of the modules that are saved.

    Raises QuestionError if no layer is a target.
    """
    import torch

    wanted = target_names(model, lora)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    kind = _dora_layer() if lora.dora else _layer()
    for name in wanted:
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, last, kind(getattr(owner, last), lora, torch.float32 if lora.float32 else getattr(torch, dtype)))
    if lora.saved:
        _save(model, lora.saved)


def _save(model: Any, names: tuple[str, ...]) -> None:
    """Put a copy that is trained beside each module whose name ends with one of `names`, tied ones too (peft 0.21, utils/other.py, _set_trainable).

    Raises QuestionError if a name is the end of no module's name, or means a quantized layer.
    """
    kind, known = _saved_module(), [name for name, _ in model.named_modules(remove_duplicate=False)]
    missing = next((end for end in names if not any(name.endswith(end) for name in known)), None)
    if missing is not None:
        raise QuestionError(f"modules_to_save: the model has no module {missing}, so that nothing of that name would be trained")
    for name in [name for name in known if name.endswith(names)]:
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        module = getattr(owner, last)
        if any(hasattr(part, "stands_for") for part in module.modules()):
            raise QuestionError(f"modules_to_save: {name} is quantized, and a copy of it that is trained is not modelled")
        setattr(owner, last, kind(module))


def _saved_module() -> Any:
    import copy

    from torch import nn

    class SavedModule(nn.Module):  # type: ignore[misc]
        """A module and the copy of it that is trained, in the dtype of the module (ModulesToSaveWrapper)."""

        def __init__(self, module: Any) -> None:
            super().__init__()
            self.original_module = module
            self.modules_to_save = nn.ModuleDict({"default": copy.deepcopy(module)})
            self.modules_to_save.requires_grad_(True)
            self.disabled = False

        @property
        def weight(self) -> Any:
            """Return the weight in use, which models read of their embeddings."""
            return (self.original_module if self.disabled else self.modules_to_save["default"]).weight

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return (self.original_module if self.disabled else self.modules_to_save["default"])(*args, **kwargs)

    return SavedModule


def target_names(model: Any, lora: Lora) -> list[str]:
    """Return the names of the layers that get adapters, as PEFT chooses them (tuners/tuners_utils.py, check_target_module_exists).

    Raises QuestionError if there are none, or if one of them is of a kind that is not modelled.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D, *{type(module) for module in model.modules() if hasattr(module, "stands_for")})
    modules = [(name, module) for name, module in model.named_modules() if not is_saved(name, lora.saved)]
    kind = str(model.config.model_type)
    targets = (lora.targets[0] if lora.pattern else lora.targets) or default_targets(kind)
    if targets is None:
        raise QuestionError(f"target_modules is not set, and PEFT has no default for models of type {kind}: set target_modules")
    if targets == (ALL_LINEAR,):
        output = model.get_output_embeddings()
        heads = {getattr(model, name, None) for name in HEADS} if output is None else {output}
        return [name for name, module in modules if isinstance(module, linear) and not any(module is head for head in heads)]
    found = [(name, module) for name, module in modules if name and matches(name, targets)]
    other = next((name for name, module in found if not isinstance(module, linear)), None)
    if other is not None:
        raise QuestionError(f"LoRA on {other}, which is no linear layer, is not modelled")
    if not found:
        raise QuestionError(
            f"LoRA: the model has none of the target modules {targets if isinstance(targets, str) else ', '.join(targets)}: set target_modules"
        )
    return [name for name, _ in found]


def _layer() -> Any:
    import torch
    from torch import nn

    class LoraLinear(nn.Module):  # type: ignore[misc]
        """base_layer(x) + lora_B(lora_A(dropout(x))) * scaling, the adapters in their own dtype."""

        def __init__(self, base: Any, lora: Lora, dtype: Any) -> None:
            super().__init__()
            self.base_layer = base
            self.bits = {1: 8, 2: 4}.get(getattr(base, "stands_for", 0), 0)
            with torch.device("meta"):
                inner, outer = (base.in_features, base.out_features) if hasattr(base, "in_features") else base.weight.shape  # Conv1D
                self.lora_A = nn.ModuleDict({"default": nn.Linear(inner, lora.rank, bias=False, dtype=dtype)})
                self.lora_B = nn.ModuleDict({"default": nn.Linear(lora.rank, outer, bias=False, dtype=dtype)})
            self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(lora.dropout) if lora.dropout else nn.Identity()})
            self.turned = not hasattr(base, "in_features")  # Conv1D holds its weight as [in, out]
            self.scaling = 2.0 / math.sqrt(1.0)
            self.disabled = False

        def forward(self, x: Any) -> Any:
            result = self.base_layer(x)
            if self.disabled:
                return result
            dtype = result.dtype
            down, up, dropout = self.lora_A["default"], self.lora_B["default"], self.lora_dropout["default"]
            if self.bits == 4:
                result = result.clone()  # tuners/lora/bnb.py, Linear4bit.forward
            if not self.bits or not torch.is_autocast_enabled("cpu"):
                x = x.to(down.weight.dtype) if x.dtype != down.weight.dtype else x
            result = result + up(down(dropout(x))) * self.scaling
            return result.to(dtype)

    return LoraLinear


def _dora_layer() -> Any:
    import torch
    from torch import nn

    base = _layer()

    class DoraLinear(base):  # type: ignore[misc, valid-type]
        """A LoRA layer whose weight is scaled to a trained norm of each row (tuners/lora/dora.py, DoraLinearLayer.forward)."""

        def __init__(self, layer: Any, lora: Lora, dtype: Any) -> None:
            super().__init__(layer, lora, dtype)
            if self.bits:
                raise QuestionError("use_dora on quantized weights, which are dequantized for it, is not modelled")
            with torch.device("meta"):
                self.magnitude = nn.Parameter(torch.empty(self.lora_B["default"].out_features, dtype=dtype))

        def forward(self, x: Any) -> Any:
            result = self.base_layer(x)
            if self.disabled:
                return result
            given = result.dtype
            x = x.to(self.lora_A["default"].weight.dtype)
            result = self._varied(x, result)
            return result.to(given)

        def _varied(self, x: Any, result: Any) -> Any:
            if self.training and isinstance(self.lora_dropout["default"], nn.Dropout):
                inner = None
                x = self.lora_dropout["default"](x)
            else:
                inner = result
            return result + self._scaled(x, inner)

        def _scaled(self, x: Any, inner: Any) -> Any:
            """Return what is added to the output of the base layer; `inner` is that output, None if dropout comes before the adapters."""
            down, up = self.lora_A["default"], self.lora_B["default"]
            update = self._update(down, up).to(x.dtype)
            weight = self.base_layer.weight.to(x.dtype)
            weight = weight.T if self.turned else weight
            scale = (self.magnitude / self._norm(weight, update.detach()).detach()).view(1, -1)
            added = up(down(x))
            if inner is None:
                inner = nn.functional.linear(x, weight)
            elif self.base_layer.bias is not None:
                inner = inner - self.base_layer.bias
            return (scale - 1) * inner + scale * added * self.scaling

        def _update(self, down: Any, up: Any) -> Any:
            eye = torch.eye(down.in_features, dtype=down.weight.dtype)
            return up(down(eye)).T

        def _norm(self, weight: Any, update: Any) -> Any:
            weight = weight + self.scaling * update
            return torch.linalg.norm(weight, dim=1).to(weight.dtype)

    return DoraLinear


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """Run the base model alone, as PEFT's disable_adapter does."""
    layers = [module for module in model.modules() if hasattr(module, "disabled")]
    for layer in layers:
        layer.disabled = True
    try:
        yield
    finally:
        for layer in layers:
            layer.disabled = False


def add_real_adapters(model: Any, lora: Lora) -> Any:
    """Return the model with PEFT's own adapters. Raises QuestionError if PEFT is not installed."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise QuestionError("a real run with adapters needs peft, which is not installed here") from None
    targets = lora.targets[0] if lora.pattern or lora.targets == (ALL_LINEAR,) else list(lora.targets) or None
    config = LoraConfig(
        r=lora.rank, lora_dropout=lora.dropout, target_modules=targets, modules_to_save=list(lora.saved) or None, use_dora=lora.dora
    )
    return get_peft_model(model, config, autocast_adapter_dtype=lora.float32)
