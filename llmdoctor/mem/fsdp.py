"""Fully sharded data parallel as the Trainer sets it up: `fsdp` and `fsdp_config` become a FullySharded, or are refused by name.

Source: transformers 5.23, training_args.py, _process_fsdp_args; accelerate 1.15.0, utils/fsdp_utils.py, fsdp2_prepare_model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmdoctor.configs.reading import linked_path
from llmdoctor.configs.types import Configuration
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.settings import FullySharded, Strategy

# Of `fsdp_config`: what has no influence on the bytes of a training step.
_IGNORED = frozenset(
    "cpu_ram_efficient_loading state_dict_type sync_module_states min_num_params xla xla_fsdp_v2 xla_fsdp_grad_ckpt limit_all_gathers".split()
)
_USED = frozenset(
    "version reshard_after_forward cpu_offload auto_wrap_policy transformer_layer_cls_to_wrap activation_checkpointing".split()
)
# They hand fsdp and fsdp_config to TrainingArguments as they are; accelerate's launcher sets the same plugin by the environment.
_TRAINERS = ("transformers", "trl", "llamafactory", "accelerate")
_OF_FIRST = frozenset("forward_prefetch backward_prefetch use_orig_params".split())


def fully_sharded(configuration: Configuration) -> FullySharded | None:
    """Return what `fsdp` and `fsdp_config` of a file say; None if the run does not use FSDP. Raises QuestionError for what is not modelled."""
    path, normal = configuration.path, configuration.normal
    wanted = normal.get("fsdp")
    if normal.is_neutral("fsdp") or wanted is None:
        return None
    if configuration.format.name not in _TRAINERS:
        raise QuestionError(f"{path}: fsdp: fully sharded data parallel (FSDP) through {configuration.format.title} is not modelled")
    given = normal.get("fsdp_config") or {}
    where = f"{path}: fsdp_config"
    if isinstance(given, str):
        given = _read(linked_path(path, given), where)
    if not isinstance(given, Mapping):
        raise QuestionError(f"{where}: expected an object or the path of one, found {type(given).__name__}")
    options = {str(name).removeprefix("fsdp_"): value for name, value in given.items()}
    version = _version(options.get("version", 2), where)
    for word in wanted.split() if isinstance(wanted, str) else wanted if isinstance(wanted, list) else ():
        _legacy(str(word), version, options, f"{path}: fsdp")
    _check(options, version, where)
    return FullySharded(
        version=version,
        reshard=version == 1 or _reshards(options.get("reshard_after_forward", True), where),
        layers=_names(options.get("transformer_layer_cls_to_wrap")),
        offload=_true(options.get("cpu_offload", False)),
        checkpointing=_true(options.get("activation_checkpointing", False)),
        prefetch=version == 2 or str(options.get("backward_prefetch", "NO_PREFETCH")).upper() == "BACKWARD_PRE",
        stated="version" in options,
        overruled=version == 1 and _overruled(options.get("reshard_after_forward", "full_shard"), where),
    )


def limits_of(sharded: FullySharded | None) -> tuple[str, ...]:
    """Return the clauses of the verdict about what was assumed of FSDP."""
    if sharded is None:
        return ()
    found = [] if sharded.stated else ["FSDP version 2, the default of transformers 5 (fsdp_config.version is not set)"]
    if sharded.overruled:
        found.append("weights are freed after the forward, because accelerate 1.15 takes FULL_SHARD for version 1 whatever the file says")
    return tuple(found)


def check_sharded(strategy: Strategy) -> None:
    """Raise QuestionError if a strategy combines FSDP with something that is not modelled under it."""
    sharded, name = strategy.fsdp, strategy.name
    if sharded is None:
        return
    if strategy.world_size < 2:
        raise QuestionError(
            f"{name}: fsdp: FSDP on a single process shares nothing and is not modelled: give the number of devices (--world-size N)"
        )
    unmodelled = {
        "DeepSpeed beside FSDP": strategy.engine is not None,
        "quantized weights under FSDP": strategy.quantization is not None,
        "adapters under version 1 of FSDP": strategy.lora is not None and sharded.version == 1,
        "a reference model under FSDP": strategy.reference is not None,
        "the loss of preferences under FSDP": strategy.objective in ("dpo", "kto", "reward"),
        "modules_to_save under FSDP": strategy.lora is not None and bool(strategy.lora.saved),
        "DoRA under FSDP": strategy.lora is not None and strategy.lora.dora,
        "a fused loss under FSDP, which reads the weight of the output layer outside of its forward,": strategy.loss is not None,
        "fp16 under FSDP, with its own scaler of gradients,": strategy.autocast == "float16",
        f"{strategy.optimizer.name} under FSDP": strategy.optimizer.kind in ("adafactor", "bitsandbytes"),
        "an offload to the host under version 1 of FSDP": sharded.offload and sharded.version == 1,
    }
    found = next((what for what, there in unmodelled.items() if there), None)
    if found is not None:
        raise QuestionError(f"{name}: {found} is not modelled")


def _read(path: str, where: str) -> Any:
    from llmdoctor.files.opening import Refusal, read_bytes

    data = read_bytes(path, 2**20)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{where}: {path}: no such file" if data is None else f"{where}: {path} {data.reason}")
    try:
        return json.loads(data)
    except ValueError as error:
        raise QuestionError(f"{where}: {path} is no JSON: {error}") from None


def _version(value: Any, where: str) -> int:
    if str(value) not in ("1", "2"):
        raise QuestionError(f"{where}.version: expected 1 or 2, found {value!r}")
    return int(value)


def _legacy(word: str, version: int, options: dict[str, Any], where: str) -> None:
    """Put a word of `fsdp` into `options`, as _apply_legacy_fsdp_to_config does."""
    strategies = {"full_shard": True, "shard_grad_op": False}
    if word in strategies:
        options.setdefault("reshard_after_forward", strategies[word] if version == 2 else word)
    elif word == "offload":
        options.setdefault("cpu_offload", True)
    elif word not in ("auto_wrap", "true", "True"):
        raise QuestionError(f"{where}: {word} is not modelled, expected full_shard or shard_grad_op, offload and auto_wrap")


def _check(options: Mapping[str, Any], version: int, where: str) -> None:
    for name, value in options.items():
        if name in _OF_FIRST and version == 2:
            continue  # read for version 1 only
        if name not in _IGNORED | _USED | _OF_FIRST:
            raise QuestionError(f"{where}.{name} is not modelled")
        if name == "auto_wrap_policy" and value != "TRANSFORMER_BASED_WRAP":
            raise QuestionError(f"{where}.auto_wrap_policy: {value} is not modelled, expected TRANSFORMER_BASED_WRAP")
        if name == "xla" and _true(value):
            raise QuestionError(f"{where}.xla: training on TPUs is not modelled")
        if name == "forward_prefetch" and _true(value):
            raise QuestionError(f"{where}.forward_prefetch: weights that are gathered ahead in the forward are not modelled")
        if name == "use_orig_params" and not _true(value):
            raise QuestionError(f"{where}.use_orig_params: flat parameters in the optimizer are not modelled")
        if name == "backward_prefetch" and str(value).upper() not in ("NO_PREFETCH", "BACKWARD_PRE", "NONE"):
            raise QuestionError(f"{where}.backward_prefetch: {value} is not modelled, expected NO_PREFETCH or BACKWARD_PRE")


def _overruled(value: Any, where: str) -> bool:
    """Return whether version 1 is wanted to keep the weights after the forward.

    The plugin's default sharding_strategy goes before reshard_after_forward, and the Trainer sets only the latter (accelerate 1.15.0,
    utils/dataclasses.py:1845, accelerator.py:1947; measured with the cases of conformance/gpu_fsdp.py).
    """
    text = str(value).lower()
    if text not in ("full_shard", "shard_grad_op", "1", "2"):
        raise QuestionError(f"{where}.reshard_after_forward: {value} is not modelled, expected full_shard or shard_grad_op")
    return text not in ("full_shard", "1")


def _reshards(value: Any, where: str) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise QuestionError(f"{where}.reshard_after_forward: {value} is not modelled for version 2, expected true or false")
    return text == "true"


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(value.split(",")) if isinstance(value, str) else tuple(str(one) for one in value)


def _true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes", "y", "t", "on")
