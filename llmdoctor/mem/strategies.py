"""Strategies as people have them: a name, a DeepSpeed JSON, TrainingArguments as JSON or YAML, an accelerate config."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.deepspeed_config import deepspeed_strategy
from llmdoctor.mem.fields import Given, read_mapping
from llmdoctor.mem.optimizers import DEFAULT_TRAINER, trainer_optimizer
from llmdoctor.mem.settings import Strategy, dtype_of, validated
from llmdoctor.mem.trainer_config import accelerate_strategy, trainer_strategy
from llmdoctor.mem.workload import Lora

DEEPSPEED_KEYS = {
    "zero_optimization",
    "train_micro_batch_size_per_gpu",
    "train_batch_size",
    "zero_allow_untested_optimizer",
    "data_types",
    "torch_autocast",
}
TRAINER_KEYS = {
    "optim",
    "per_device_train_batch_size",
    "learning_rate",
    "deepspeed",
    "gradient_checkpointing",
    "output_dir",
    "num_train_epochs",
    "max_steps",
}


def read_strategy(text: str, given: Given) -> Strategy:
    """The strategy that `text` names, a file or "RUNNER:SETTING,...".

    Raises QuestionError, one sentence, for what cannot be read, is contradictory or not known.
    """
    if not text:
        raise QuestionError("--strategy is empty; expected a name such as trainer:adamw_torch,bf16 or deepspeed:zero2, or a file")
    runner, colon, rest = text.partition(":")
    if colon and runner in ("trainer", "deepspeed") and not os.path.exists(text):
        strategy = _named(text, runner, rest, given)
    elif text.endswith((".json", ".yaml", ".yml")) or os.path.isfile(text):
        strategy = _from_file(text, given)
    else:
        raise QuestionError(
            f"--strategy {text}: neither a file nor a name; expected trainer:OPTIM[,...], deepspeed:zeroN[,...] or a JSON or YAML file"
        )
    if given.checkpointing:
        strategy = replace(strategy, checkpointing=True)
    world = given.world_size if strategy.world_size == 1 else strategy.world_size  # an accelerate config says how many processes there are
    return validated(replace(strategy, world_size=world, lora=_lora(strategy, given)))


def _lora(strategy: Strategy, given: Given) -> Lora | None:
    """The file's adapters, else the option's; peft's fp32 adapters become the model's dtype under DeepSpeed's casting (engine.py:1391)."""
    lora = strategy.lora
    if given.lora is not None:
        if given.lora < 1:
            raise QuestionError(f"--lora {given.lora}: expected a rank of at least 1")
        if lora is not None and lora.rank != given.lora:
            raise QuestionError(f"--lora {given.lora} contradicts {strategy.name}: its peft_config has r {lora.rank}")
        lora = lora or Lora(given.lora)
    half = strategy.engine is not None and strategy.dtype != "float32"
    return replace(lora, float32=not half) if lora is not None else None


def _named(text: str, runner: str, rest: str, given: Given) -> Strategy:
    words = [word for word in rest.split(",") if word]
    return _named_trainer(text, words, given) if runner == "trainer" else _named_deepspeed(text, words, given)


def _named_trainer(text: str, words: list[str], given: Given) -> Strategy:
    optim, dtype, autocast, checkpointing = DEFAULT_TRAINER, None, None, False
    for word in words:
        if word in ("bf16", "fp32", "fp16", "bfloat16", "float32", "float16"):
            dtype = _once(dtype, dtype_of(word, text), text)
        elif word in ("amp_bf16", "amp_fp16"):
            autocast = _once(autocast, dtype_of(word.removeprefix("amp_"), text), text)
        elif word in ("gc", "gradient_checkpointing"):
            checkpointing = True
        else:
            optim = word
    dtype = dtype or ("float32" if autocast else given.model_dtype or "float32")
    return Strategy(text, "trainer", dtype, trainer_optimizer(optim, None, text), autocast, checkpointing=checkpointing)


def _named_deepspeed(text: str, words: list[str], given: Given) -> Strategy:
    stage, dtype, optim, offload, extra = None, None, "AdamW", [], {}
    for word in words:
        if word.startswith("zero") and word[4:].isdigit():
            stage = _once(stage, int(word[4:]), text)
        elif word in ("bf16", "fp32", "fp16"):
            dtype = _once(dtype, word, text)
        elif word in ("offload", "offload_optimizer", "offload_param"):
            offload.append("offload_optimizer" if word == "offload" else word)
        elif word in ("bf16_states", "gc"):
            extra[word] = True
        elif word == "torch_adam":
            extra["torch_adam"] = True
        else:
            optim = word
    if stage is None:
        raise QuestionError(f"{text}: which ZeRO stage? Expected deepspeed:zero0 to deepspeed:zero3")
    config: dict[str, Any] = {"zero_optimization": {"stage": stage}, "gradient_clipping": 1.0}
    config["optimizer"] = {"type": optim, "params": {"torch_adam": True} if extra.get("torch_adam") else {}}
    for name in offload:
        config["zero_optimization"][name] = {"device": "cpu"}
    dtype = dtype or "bf16"
    if dtype != "fp32":
        config[dtype] = {"enabled": True}
    if extra.get("bf16_states"):
        config["bf16"] = {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    strategy = deepspeed_strategy(text, config, given, None)
    return replace(strategy, checkpointing=extra.get("gc", False))


def _once(before: Any, now: Any, text: str) -> Any:
    if before is not None and before != now:
        raise QuestionError(f"{text}: {before} and {now} exclude each other")
    return now


def _from_file(path: str, given: Given) -> Strategy:
    value = read_mapping(path)
    if "compute_environment" in value or "distributed_type" in value:
        return accelerate_strategy(path, value, given)
    if DEEPSPEED_KEYS & set(value) or isinstance(value.get("bf16"), dict) or isinstance(value.get("fp16"), dict):
        return deepspeed_strategy(path, value, given, path)
    if TRAINER_KEYS & set(value) or isinstance(value.get("bf16", value.get("fp16")), bool):
        return trainer_strategy(path, value, given)
    raise QuestionError(f"{path}: neither a DeepSpeed config nor TrainingArguments nor an accelerate config: none of their keys is in it")
