"""The optimizers that are modelled, by the names that the Trainer, DeepSpeed and torch give them. Any other is refused by name."""

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
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"), ("bitsandbytes", "loop")),
    **{f"{paged}lion_{bits}bit": ("bitsandbytes", "loop") for paged in ("", "paged_") for bits in (8, 32)},
    **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"), ("bitsandbytes", "loop")),
    **dict.fromkeys(("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"), ("bitsandbytes", "loop")),
}
# States of bitsandbytes' optimizers (0.50.2, optim/optimizer.py and ademamix.py): their key and its size in parameters, by a part of the name.
BITSANDBYTES = (
    ("ademamix", (("state1", 2), ("state2", 1))),
    ("adam", (("state1", 1), ("state2", 1))),
    ("lion", (("state1", 1),)),
    ("rmsprop", (("state1", 1),)),
)
DEFAULT_TRAINER = "adamw_torch_fused"
TORCH = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd", "adagrad": "adagrad", "rmsprop": "rmsprop"}
STATES = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": (), "adagrad": ("sum",), "rmsprop": ("square_avg",), "lion": ("exp_avg",)}
SHOWN = sorted(TRAINER)
# Arguments that change nothing that is held, or whose change is known here.
ARGUMENTS = frozenset(
    "lr betas eps weight_decay momentum dampening nesterov maximize foreach fused amsgrad alpha centered lr_decay initial_accumulator_value "
    "beta1 beta2 clip_threshold decay_rate scale_parameter relative_step warmup_init adam_w_mode bias_correction".split()
)


def _check_arguments(kwargs: Mapping[str, Any], where: str) -> None:
    unknown = next((name for name in kwargs if name not in ARGUMENTS), None)
    if unknown is not None:
        raise QuestionError(f"{where}: the optimizer's argument {unknown!r} is not modelled")


def _true(value: Any) -> bool:
    """Return whether a flag or a number is set, also if optim_args holds it as text."""
    return str(value or 0).lower() not in ("0", "0.0", "false", "none")


def trainer_optimizer(name: Any, args: Any, where: str) -> Optimizer:
    """Return the optimizer of TrainingArguments.optim and optim_args. Raises QuestionError for one that is not modelled."""
    if not isinstance(name, str) or name not in TRAINER:
        raise QuestionError(f"{where}: the optimizer {name!r} is not modelled; modelled are {', '.join(SHOWN)}")
    kind, how = TRAINER[name]
    wanted = {}
    if args:
        pairs = args.items() if isinstance(args, Mapping) else (item.partition("=")[::2] for item in str(args).replace(" ", "").split(","))
        wanted = dict(pairs)
    _check_arguments(wanted, where)
    if kind == "bitsandbytes":
        return bitsandbytes_optimizer(name, where)
    return Optimizer(
        kind, how, str(name), where, momentum=kind in ("sgd", "rmsprop") and _true(wanted.get("momentum")), amsgrad=_true(wanted.get("amsgrad")),
        centered=_true(wanted.get("centered")), decay=_true(wanted.get("weight_decay")), groups=2,
    )  # fmt: skip


def bitsandbytes_optimizer(name: str, where: str) -> Optimizer:
    """Return an optimizer of bitsandbytes: 8 bit if its name contains 8bit, else 32 bit (transformers 5.23, trainer_optimizer.py:257)."""
    states = next(states for part, states in BITSANDBYTES if part in name)
    bits = 8 if "8bit" in name else 32
    return Optimizer("bitsandbytes", "loop", name, where, groups=2, bits=bits, paged=name.startswith("paged_"), states=states)


def torch_optimizer(path: Any, kwargs: Mapping[str, Any], where: str) -> Optimizer:
    """Return the optimizer object that a caller makes: "torch.optim.AdamW" and its keyword arguments."""
    name = str(path).rpartition(".")[2]
    if name == "FusedAdam":
        return Optimizer("adamw", "FusedAdam", name, where)
    if name == "DeepSpeedCPUAdam":
        return Optimizer("adamw", "CPUAdam", name, where)
    kind = TORCH.get(name.lower())
    if kind is None or "torch" not in str(path):
        raise QuestionError(f"{where}: the optimizer {path!r} is not modelled; modelled are torch.optim.AdamW, Adam, SGD, Adagrad, RMSprop")
    _check_arguments(kwargs, where)
    how = "fused" if kwargs.get("fused") else "loop" if kwargs.get("foreach") is False else "foreach"
    return Optimizer(
        kind, how, name, where, momentum=bool(kwargs.get("momentum")), amsgrad=bool(kwargs.get("amsgrad")), centered=bool(kwargs.get("centered")),
        decay=bool(kwargs.get("weight_decay")),
    )  # fmt: skip


def client_optimizer(client: Any, where: str) -> Optimizer:
    """Return the optimizer object that the caller makes: {"class": "torch.optim.AdamW", "kwargs": {...}}."""
    if not isinstance(client, dict) or "class" not in client:
        raise QuestionError(f"{where}: expected an object with class and kwargs")
    kwargs = client.get("kwargs") or {}
    return torch_optimizer(client["class"], kwargs if isinstance(kwargs, dict) else {}, f"{where}.class")


def deepspeed_optimizer(name: Any, params: Mapping[str, Any], *, offload: bool, half_states: bool, where: str) -> Optimizer:
    """Return the optimizer of DeepSpeed's optimizer.type, as engine.py:2476 (_configure_basic_optimizer) and :2380 choose its class."""
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
        return Optimizer(
            TORCH[known], how, str(name), where, momentum=bool(params.get("momentum")), centered=bool(params.get("centered")),
            decay=bool(params.get("weight_decay")),
        )  # fmt: skip
    raise QuestionError(f"{where}: the optimizer {name!r} is not modelled; modelled are Adam, AdamW, Lion, Adagrad, SGD, RMSprop")


def state_keys(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the keys of a parameter's state that are as large as the parameter."""
    keys = STATES.get(optimizer.kind, ())
    if optimizer.momentum:
        keys = (*keys, "momentum_buffer")
    if optimizer.centered:
        keys = (*keys, "grad_avg")
    return (*keys, "max_exp_avg_sq") if optimizer.amsgrad else keys
