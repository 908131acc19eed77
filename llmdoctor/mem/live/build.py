"""A model without weights: built on the meta device by transformers' own code, its long stacks cut short, then on fake tensors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.timeline import TRACED, Stack
from llmdoctor.mem.trained import check_patterns, is_trained
from llmdoctor.mem.weights import Weight
from llmdoctor.mem.workload import PREFERENCES

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Workload

IGNORED = ("layer_idx", "training", "layer_id", "_is_hf_initialized")


def read_config(path: str) -> Any:
    """The config as transformers reads it; QuestionError where it does not know the model type, code in the directory is never run."""
    from transformers import AutoConfig

    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 whatever a config can make the library raise
        text = " ".join(str(error).split())[:300]
        raise QuestionError(f"{path}: transformers cannot read this config: {type(error).__name__}: {text}") from None


def meta_model(config: Any, workload: Workload) -> Any:
    """The whole model on the meta device, in training mode, with adapters and frozen parameters as `workload` says."""
    import torch

    from llmdoctor.modeldir.live.classes import dtype_argument

    kind = _kind(config, workload)
    dtype = getattr(torch, workload.dtype)
    try:
        with torch.device("meta"):
            model = kind._from_config(config, **dtype_argument(dtype), attn_implementation=workload.attention)
    except (ValueError, ImportError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise QuestionError(f"{kind.__name__}: transformers cannot build this model: {text}") from None
    model.train()
    if workload.objective in PREFERENCES:
        without_dropout(model)
    if workload.quantization is not None:
        from llmdoctor.mem.live.quantized import quantize

        quantize(model, workload.quantization)
    if workload.lora is not None:
        from llmdoctor.mem.live.lora import add_adapters

        add_adapters(model, workload.lora, workload.dtype)
    freeze(model, workload)
    if workload.use_cache is not None:
        for part in {id(c): c for c in (config, getattr(config, "text_config", config))}.values():
            part.use_cache = workload.use_cache
    return model


def _kind(config: Any, workload: Workload) -> Any:
    """Return the class of the model: a reward model is a classifier of sequences with one label (trl 1.0.0, reward_trainer.py)."""
    from llmdoctor.modeldir.live.classes import class_of

    if workload.objective != "reward":
        return class_of(config)
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

    if type(config) not in CLASSIFIERS:
        raise QuestionError(f"a reward model of type {config.model_type}: transformers has no classifier of sequences for it")
    config.num_labels = 1
    config.pad_token_id = config.pad_token_id or 0
    return CLASSIFIERS[type(config)]


def without_dropout(model: Any) -> None:
    """Switch dropout off, as TRL's trainers of preferences do (disable_dropout_in_model)."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def reference_model(config: Any, workload: Workload) -> Any:
    """Return the reference model of a preference objective on the meta device; None if the workload has none."""
    if workload.reference is None:
        return None
    return meta_model(config, replace(workload, dtype=workload.reference, lora=None, trainable=(), frozen=())).eval()


def freeze(model: Any, workload: Workload) -> None:
    """Leave trainable what `trainable` names and `frozen` does not. Raises QuestionError if a pattern names nothing."""
    if not workload.trainable and not workload.frozen:
        return
    check_patterns(workload, [name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and is_trained(name, workload))


def weights_of(model: Any) -> tuple[Weight, ...]:
    """Every parameter once, in the model's order; a tied one where it comes first."""
    import torch

    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    packed = {id(module.weight): module.stands_for for module in model.modules() if hasattr(module, "stands_for")}
    return tuple(
        Weight(
            name=name,
            shape=tuple(p.shape),
            dtype=str(p.dtype).removeprefix("torch."),
            trainable=bool(p.requires_grad),
            embedding=id(p) in tables,
            packed=packed.get(id(p), 1),
        )
        for name, p in model.named_parameters()
    )


def shorten(model: Any) -> list[Stack]:
    """Cut every stack of more than TRACED alike layers down to TRACED, in place."""
    import torch

    stacks: list[Stack] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or len(module) == 0 or any(name.startswith(s.name + ".") for s in stacks):
            continue
        layers = len(module)
        if layers > TRACED and len({_signature(layer) for layer in module}) == 1:
            del module[TRACED:]
        if len(module) > 1 or layers > 1:
            stacks.append(Stack(name, layers, len(module)))
    for stack in stacks:
        if stack.layers != stack.traced:
            _tell_config(model, stack)
    return [stack for stack in stacks if stack.layers != stack.traced]


def _tell_config(model: Any, stack: Stack) -> None:
    """The configs of the modules around a shortened stack count its layers too."""
    owner = model.get_submodule(stack.name.rpartition(".")[0])
    config = getattr(owner, "config", None)
    for key in ("num_hidden_layers", "n_layer", "num_layers", "depth"):
        if config is not None and getattr(config, key, None) == stack.layers:
            setattr(config, key, stack.traced)
            break


def _signature(layer: Any) -> tuple[Any, ...]:
    """What makes two layers behave alike: classes, plain attributes, shapes and dtypes of parameters."""
    parts: list[Any] = []
    for name, module in layer.named_modules():
        plain = sorted((k, v) for k, v in vars(module).items() if isinstance(v, bool | int | float | str | type(None)) and k not in IGNORED)
        parts.append((name, type(module).__name__, repr(plain)))
    parts += [(name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in layer.named_parameters()]
    return tuple(parts)


def to_fake(models: Sequence[Any]) -> Any:
    """Make every parameter and buffer of `models` a fake tensor on "cpu"; tied ones stay tied. Return the FakeTensorMode."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    device = torch.device("cpu")
    made: dict[int, Any] = {}

    def fake(tensor: Any) -> Any:
        if id(tensor) not in made:
            new: Any = FakeTensor(mode, tensor.data, device)
            made[id(tensor)] = torch.nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else new
        return made[id(tensor)]

    for module in (module for model in models for module in model.modules()):
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = fake(tensor)
    return mode
