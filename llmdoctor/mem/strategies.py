"""Strategies as users name them: a file of settings, or a text such as trainer:adamw_torch,bf16 or deepspeed:zero2."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.deepspeed import deepspeed_strategy
from llmdoctor.mem.fsdp import check_sharded
from llmdoctor.mem.keys import StrategyContext, UnmodelledSetting
from llmdoctor.mem.optimizers import DEFAULT_TRAINER, trainer_optimizer
from llmdoctor.mem.settings import Strategy, dtype_of, validated
from llmdoctor.mem.translation import file_strategy, loaded_dtype, with_assumed_dtype
from llmdoctor.mem.workload import Lora

FILES = (".json", ".yaml", ".yml", ".bin", ".py")


def read_strategy(text: str, context: StrategyContext, content: str | None = None) -> Strategy:
    """Return the strategy that `text` names, a file or "RUNNER:SETTING,...", combined with the options in `context`.

    `content` stands in for the content of the file.

    Raises QuestionError, one sentence, for what cannot be read, is contradictory or is not modelled.
    """
    if not text:
        raise QuestionError("--strategy is empty; expected a name such as trainer:adamw_torch,bf16 or deepspeed:zero2, or a file")
    runner, colon, rest = text.partition(":")
    if colon and runner in _NAMED and not os.path.exists(text):
        strategy = replace(_NAMED[runner](text, [word for word in rest.split(",") if word], context), world_size=context.processes)
    elif text.endswith(FILES) or os.path.isfile(text):
        strategy = file_strategy(text, context, content)
        if not strategy.entry.trainer:
            strategy = replace(strategy, world_size=context.processes)
    else:
        raise QuestionError(
            f"--strategy {text}: neither a file nor a name; expected trainer:OPTIM[,...], deepspeed:zeroN[,...] or a JSON or YAML file"
        )
    checkpointing = strategy.checkpointing or context.checkpointing
    lora = _lora(strategy, context)
    reference = strategy.reference if lora is None else None  # DPOTrainer without its adapters is the reference
    whole = replace(strategy, checkpointing=checkpointing, lora=lora, reference=reference)
    try:
        check_sharded(whole)
        return validated(whole)
    except QuestionError as error:
        raise UnmodelledSetting(str(error), whole.inputs) from None


def _lora(strategy: Strategy, context: StrategyContext) -> Lora | None:
    """Return the adapters of the file, else of --lora. DeepSpeed casts PEFT's float32 adapters to the model's dtype (engine.py:1391)."""
    lora = strategy.lora
    if context.lora is not None:
        if context.lora < 1:
            raise QuestionError(f"--lora {context.lora}: expected a rank of at least 1")
        if lora is not None and lora.rank != context.lora:
            raise QuestionError(f"--lora {context.lora} contradicts {strategy.name}, whose adapters have rank {lora.rank}")
        lora = lora or Lora(context.lora)
    if lora is None:
        return None
    half = strategy.engine is not None and strategy.dtype != "float32"
    return replace(lora, float32=lora.float32 and not half)


def _named_trainer(text: str, words: list[str], context: StrategyContext) -> Strategy:
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
    loaded = dtype or ("float32" if autocast else loaded_dtype(context))
    strategy = Strategy(text, "trainer", loaded, trainer_optimizer(optim, None, text), autocast, checkpointing=checkpointing)
    return strategy if dtype or autocast else with_assumed_dtype(strategy, context)


def _named_deepspeed(text: str, words: list[str], context: StrategyContext) -> Strategy:
    from llmdoctor.configs.deepspeed import FORMAT
    from llmdoctor.configs.reading import read_value

    stage, dtype, optim, offload, extra = None, None, "AdamW", [], set()
    for word in words:
        if word.startswith("zero") and word[4:].isdigit():
            stage = _once(stage, int(word[4:]), text)
        elif word in ("bf16", "fp16", "fp32"):
            dtype = _once(dtype, word, text)
        elif word in ("offload", "offload_optimizer", "offload_param"):
            offload.append("offload_optimizer" if word == "offload" else word)
        elif word in ("bf16_states", "gc", "torch_adam"):
            extra.add(word)
        else:
            optim = word
    if stage is None:
        raise QuestionError(f"{text}: the ZeRO stage is missing; expected deepspeed:zero0 to deepspeed:zero3")
    zero: dict[str, Any] = {"stage": stage, **{name: {"device": "cpu"} for name in offload}}
    params = {"torch_adam": True} if "torch_adam" in extra else {}
    config: dict[str, Any] = {"zero_optimization": zero, "gradient_clipping": 1.0, "optimizer": {"type": optim, "params": params}}
    if dtype != "fp32":
        config[dtype or "bf16"] = {"enabled": True}
    if "bf16_states" in extra:
        config["bf16"] = {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    strategy = deepspeed_strategy(read_value(config, text, FORMAT.of(context.releases)), context)
    return replace(strategy, file=None, config=config, checkpointing="gc" in extra)


def _once(before: Any, now: Any, text: str) -> Any:
    if before is not None and before != now:
        raise QuestionError(f"{text}: {before} and {now} exclude each other")
    return now


_NAMED = {"trainer": _named_trainer, "deepspeed": _named_deepspeed}
