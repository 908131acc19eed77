"""TrainingArguments and accelerate configs as memory sees them (transformers 5.23, integrations/deepspeed.py; accelerate 1.15)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.deepspeed_config import deepspeed_strategy
from llmdoctor.mem.fields import Given, client_optimizer, count_of, flag_of, init_dtype, number_of, peft_adapters, read_mapping, section_of
from llmdoctor.mem.optimizers import DEFAULT_TRAINER, trainer_optimizer
from llmdoctor.mem.settings import Optimizer, Strategy

REFUSED_TRAINER = {"fsdp": "fully sharded data parallel", "torch_compile": "torch.compile", "use_liger_kernel": "liger kernels"}


def trainer_strategy(path: str, value: Mapping[str, Any], given: Given) -> Strategy:
    """TrainingArguments, with the DeepSpeed config that they name."""
    for key, what in REFUSED_TRAINER.items():
        if value.get(key):
            raise QuestionError(f"{path}: {key}: {what} changes what is held in memory and is not modelled")
    if flag_of(path, value, "bf16") and flag_of(path, value, "fp16"):
        raise QuestionError(f"{path}: bf16 and fp16 are both true, the Trainer takes one of them")
    autocast = "bfloat16" if flag_of(path, value, "bf16") else "float16" if flag_of(path, value, "fp16") else None
    dtype = init_dtype(path, value) or given.model_dtype or "float32"
    optimizer = _trainer_optimizer(path, value)
    strategy = Strategy(
        path, "trainer", dtype, optimizer, autocast,
        accumulation=count_of(path, value, "gradient_accumulation_steps", 1),
        clip=number_of(path, value, "max_grad_norm", 1.0),
        checkpointing=flag_of(path, value, "gradient_checkpointing"),
        lora=peft_adapters(path, value), batch=count_of(path, value, "per_device_train_batch_size", 8), file=path, client=value.get("client_optimizer"),
    )  # fmt: skip
    config = value.get("deepspeed")
    if not config:
        return strategy
    if isinstance(config, str):
        beside = os.path.join(os.path.dirname(path), config)  # after the working directory, where accelerate looks (utils/deepspeed.py:141)
        config = read_mapping(config if os.path.exists(config) else beside)
    if not isinstance(config, dict):
        raise QuestionError(f"{path}: deepspeed: expected a config or the path of one, found {type(config).__name__}")
    return _under_trainer(path, strategy, config, value, given)


def _trainer_optimizer(path: str, value: Mapping[str, Any]) -> Optimizer:
    client = value.get("client_optimizer")
    if client is not None:
        return client_optimizer(path, client)
    found = trainer_optimizer(value.get("optim", DEFAULT_TRAINER), value.get("optim_args"), f"{path}: optim")
    return replace(found, decay=found.decay or bool(number_of(path, value, "weight_decay", 0.0)))


def _under_trainer(path: str, strategy: Strategy, config: dict[str, Any], value: Mapping[str, Any], given: Given) -> Strategy:
    """A DeepSpeed config with every "auto" filled in as transformers 5.23 does (integrations/deepspeed.py, trainer_config_process)."""
    batch, steps = strategy.batch or 8, strategy.accumulation
    fill = {
        ("train_micro_batch_size_per_gpu",): batch,
        ("gradient_accumulation_steps",): steps,
        ("train_batch_size",): batch * steps * given.world_size,
        ("gradient_clipping",): strategy.clip,
        ("bf16", "enabled"): flag_of(path, value, "bf16"),
        ("fp16", "enabled"): flag_of(path, value, "fp16"),
        ("zero_optimization", "reduce_bucket_size"): _square(given, 1.0),
        ("zero_optimization", "stage3_prefetch_bucket_size"): _square(given, 0.9),
        ("zero_optimization", "stage3_param_persistence_threshold"): None if given.hidden_size is None else 10 * given.hidden_size,
    }
    resolved = _filled(path, config, fill)
    for (section, key), wanted in ((("bf16", "enabled"), fill["bf16", "enabled"]), (("fp16", "enabled"), fill["fp16", "enabled"])):
        said = resolved.get(section, {}).get(key) if isinstance(resolved.get(section), dict) else None
        if said is not None and bool(said) != wanted:
            raise QuestionError(
                f"{path}: deepspeed has {section}.enabled {said} and TrainingArguments {section} {wanted}: the Trainer refuses this, set it to auto"
            )
    engine = deepspeed_strategy(path, {**resolved, "model_init": value.get("model_init")}, given, path, client=strategy.optimizer)
    return replace(
        engine,
        client=strategy.client,
        runner="trainer+deepspeed",
        accumulation=steps,
        checkpointing=strategy.checkpointing,
        lora=strategy.lora,
        batch=batch,
        clip=strategy.clip,
    )


def _square(given: Given, factor: float) -> int | None:
    return None if given.hidden_size is None else int(factor * given.hidden_size * given.hidden_size)


def _filled(path: str, config: dict[str, Any], fill: Mapping[tuple[str, ...], Any], at: tuple[str, ...] = ()) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        place = (*at, key)
        if isinstance(value, dict):
            out[key] = _filled(path, value, fill, place)
        elif value == "auto":
            if place[0] in ("scheduler", "optimizer") and place[-1] != "type":
                continue  # lr, betas, eps, weight_decay, warm-up: nothing that is held
            if fill.get(place) is None:
                raise QuestionError(f"{path}: deepspeed has {'.'.join(place)}: auto, which the Trainer does not fill in for this model")
            out[key] = fill[place]
        else:
            out[key] = value
    return out


def accelerate_strategy(path: str, value: Mapping[str, Any], given: Given) -> Strategy:
    """`accelerate config`'s YAML: precision and ZeRO stage; the optimizer is the Trainer's default, for the file names none."""
    kind = str(value.get("distributed_type", "NO")).upper()
    processes = count_of(path, value, "num_processes", given.world_size)
    if given.asked_world and processes != given.world_size:
        raise QuestionError(f"--world-size {given.world_size} contradicts {path}, whose num_processes is {processes}")
    given = replace(given, world_size=processes)
    return replace(_accelerate(path, value, given, kind), world_size=processes)


def _accelerate(path: str, value: Mapping[str, Any], given: Given, kind: str) -> Strategy:
    precision = str(value.get("mixed_precision", "no")).lower()
    if precision not in ("no", "bf16", "fp16"):
        raise QuestionError(f"{path}: mixed_precision {precision!r} is not modelled, expected no, bf16 or fp16")
    arguments: dict[str, Any] = {
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "model_init": value.get("model_init"),
        "per_device_train_batch_size": 1,
    }
    if kind in ("NO", "MULTI_GPU"):
        return replace(trainer_strategy(path, arguments, given), batch=None)
    if kind != "DEEPSPEED":
        raise QuestionError(f"{path}: distributed_type {kind} is not modelled, expected NO, MULTI_GPU or DEEPSPEED")
    section = section_of(path, value, "deepspeed_config")
    named = section.get("deepspeed_config_file")
    if named:
        arguments["deepspeed"] = str(named)
        return replace(trainer_strategy(path, arguments, given), batch=None)
    zero: dict[str, Any] = {"stage": section.get("zero_stage", 2)}
    for key in ("offload_optimizer", "offload_param"):
        device = section.get(f"{key}_device", "none")
        if device != "none":
            zero[key] = {"device": device}
    steps = section.get("gradient_accumulation_steps", 1)
    arguments["gradient_accumulation_steps"] = 1 if steps == "auto" else steps
    arguments["deepspeed"] = {
        "zero_optimization": zero, "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"},
        "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
    }  # fmt: skip
    return replace(trainer_strategy(path, arguments, given), batch=None)
