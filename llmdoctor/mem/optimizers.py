"""The optimizers known here, by the names that the Trainer, DeepSpeed and torch give them. Any other is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.settings import Optimizer

# transformers 5.23 training_args.py, OptimizerNames, and trainer_optimizer.py: (kind, how)
TRAINER = {
    "adamw_torch": ("adamw", "foreach"),
    "adamw_torch_fused": ("adamw", "fused"),
    "sgd": ("sgd", "foreach"),
    "adagrad": ("adagrad", "foreach"),
    "rmsprop": ("rmsprop", "foreach"),
    "adafactor": ("adafactor", "loop"),
    "adamw_bnb_8bit": ("adamw8bit", "loop"),
    "adamw_8bit": ("adamw8bit", "loop"),
}
DEFAULT_TRAINER = "adamw_torch_fused"
TORCH = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd", "adagrad": "adagrad", "rmsprop": "rmsprop"}
STATES = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": (), "adagrad": ("sum",), "rmsprop": ("square_avg",), "lion": ("exp_avg",)}
SHOWN = sorted(TRAINER)


def trainer_optimizer(name: Any, args: Any, where: str) -> Optimizer:
    """TrainingArguments.optim and optim_args; QuestionError for an optimizer that is not known here."""
    if not isinstance(name, str) or name not in TRAINER:
        raise QuestionError(
            f"{where}: the optimizer {name!r} is not known here, so its memory is not guessed; known are {', '.join(SHOWN)}"
        )
    kind, how = TRAINER[name]
    wanted = {}
    if args:
        pairs = args.items() if isinstance(args, Mapping) else (item.partition("=")[::2] for item in str(args).replace(" ", "").split(","))
        wanted = dict(pairs)
    momentum = kind == "sgd" and str(wanted.get("momentum", 0) or 0) not in ("0", "0.0")
    return Optimizer(kind, how, str(name), where, momentum=momentum, amsgrad=str(wanted.get("amsgrad", "")).lower() == "true", groups=2)


def torch_optimizer(path: Any, kwargs: Mapping[str, Any], where: str) -> Optimizer:
    """An optimizer object that the caller made: "torch.optim.AdamW" and its keyword arguments."""
    name = str(path).rpartition(".")[2]
    if name == "FusedAdam":
        return Optimizer("adamw", "FusedAdam", name, where)
    if name == "DeepSpeedCPUAdam":
        return Optimizer("adamw", "CPUAdam", name, where)
    kind = TORCH.get(name.lower())
    if kind is None or "torch" not in str(path):
        raise QuestionError(
            f"{where}: the optimizer {path!r} is not known here, so its memory is not guessed; known are torch.optim.AdamW, Adam, SGD, Adagrad, RMSprop"
        )
    how = "fused" if kwargs.get("fused") else "loop" if kwargs.get("foreach") is False else "foreach"
    return Optimizer(kind, how, name, where, momentum=bool(kwargs.get("momentum")), amsgrad=bool(kwargs.get("amsgrad")))


def deepspeed_optimizer(name: Any, params: Mapping[str, Any], *, offload: bool, half_states: bool, where: str) -> Optimizer:
    """DeepSpeed's optimizer.type, as engine.py:2476 (_configure_basic_optimizer) and :2380 choose its class."""
    known = str(name).lower()
    if known in ("adam", "adamw"):
        if params.get("torch_adam"):
            how = "loop" if params.get("foreach") is False else "foreach"
            return Optimizer("adamw", how, f"torch.optim.{name}", where)
        if offload:
            half = half_states or params.get("fp32_optimizer_states") is False
            return Optimizer("adamw", "CPUAdam", "DeepSpeedCPUAdam", where, half_states=half)
        return Optimizer("adamw", "FusedAdam", "FusedAdam", where)
    if known == "lion":
        return Optimizer("lion", "CPUAdam" if offload else "FusedAdam", "Lion", where)
    if known == "adagrad":
        return Optimizer("adagrad", "CPUAdam" if offload else "foreach", "Adagrad", where)
    if known in ("sgd", "rmsprop"):
        how = "fused" if params.get("fused") else "loop" if params.get("foreach") is False else "foreach"
        return Optimizer(TORCH[known], how, str(name), where, momentum=bool(params.get("momentum")))
    raise QuestionError(
        f"{where}: the optimizer {name!r} is not known here, so its memory is not guessed; known are Adam, AdamW, Lion, Adagrad, SGD, RMSprop"
    )


def state_keys(optimizer: Optimizer) -> tuple[str, ...]:
    """The keys of a parameter's state that are as large as the parameter."""
    keys = STATES.get(optimizer.kind, ())
    if optimizer.momentum:
        keys = (*keys, "momentum_buffer")
    return (*keys, "max_exp_avg_sq") if optimizer.amsgrad else keys
