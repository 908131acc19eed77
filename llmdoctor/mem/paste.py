"""Changes of a strategy in the words of the configuration that it came from; what is printed is read again and predicted again first."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.moves import Move
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.settings import Strategy, validated
from llmdoctor.mem.types import Estimate

Keys = dict[str, Any]
LORA = {"peft_type": "LORA", "r": 16, "target_modules": "all-linear"}
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"}
_TRAINER: dict[str, Keys] = {
    "fused": {"optim": "adamw_torch_fused"},
    "eight_bit": {"optim": "adamw_bnb_8bit"},
    "liger": {"use_liger_kernel": True},
    "checkpointing": {"gradient_checkpointing": True},
    "batch": {"per_device_train_batch_size": "{batch}", "gradient_accumulation_steps": "{steps}"},
    "half": {"bf16": False, "fp16": False, "model_init": {"dtype": "bfloat16"}},
    "lora": {"model_init": {"peft_config": LORA}},
    "qlora": {
        "bf16": True,
        "fp16": False,
        "gradient_checkpointing": True,
        "model_init": {"peft_config": LORA, "quantization_config": FOUR_BIT},
    },
    "stage3": {"deepspeed": {"zero_optimization": {"stage": 3}}},
    "offload": {"deepspeed": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}},
}
_MODEL_CONFIG = {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear"}
# By format: what to set for each move of moves.py. A move that is missing is not expressed in keys.
WORDS: dict[str, dict[str, Keys]] = {
    "transformers": _TRAINER,
    "ms-swift": {name: _TRAINER[name] for name in ("fused", "eight_bit", "liger", "checkpointing", "batch")},
    "trl": {
        **_TRAINER,
        "half": {"bf16": False, "fp16": False, "dtype": "bfloat16"},
        "lora": _MODEL_CONFIG,
        "qlora": {**_MODEL_CONFIG, "load_in_4bit": True, "use_bnb_nested_quant": True, "gradient_checkpointing": True, "bf16": True},
    },
    "axolotl": {
        "fused": {"optimizer": "adamw_torch_fused"},
        "eight_bit": {"optimizer": "adamw_bnb_8bit"},
        "liger": {
            "plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_rope": True, "liger_rms_norm": True, "liger_glu_activation": True,
            "liger_fused_linear_cross_entropy": True,
        },
        "checkpointing": {"gradient_checkpointing": True},
        "batch": {"micro_batch_size": "{batch}", "gradient_accumulation_steps": "{steps}"},
        "lora": {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True},
        "qlora": {"adapter": "qlora", "load_in_4bit": True, "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True, "gradient_checkpointing": True},
    },
    "llamafactory": {
        **{name: _TRAINER[name] for name in ("fused", "eight_bit", "batch")},
        "liger": {"enable_liger_kernel": True},
        "checkpointing": {"disable_gradient_checkpointing": False},
        "half": {"pure_bf16": True},
        "lora": {"finetuning_type": "lora", "lora_rank": 16, "lora_target": "all"},
        "qlora": {"finetuning_type": "lora", "lora_rank": 16, "lora_target": "all", "quantization_bit": 4, "quantization_method": "bnb"},
    },
    "deepspeed": {
        "batch": {"train_micro_batch_size_per_gpu": "{batch}", "gradient_accumulation_steps": "{steps}"},
        "stage3": {"zero_optimization": {"stage": 3}},
        "offload": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
    },
}  # fmt: skip
# What a script has to do for a move that its configuration file cannot express.
IN_SCRIPT = {
    "fused": 'optim="adamw_torch_fused", or torch.optim.AdamW(..., fused=True)',
    "checkpointing": "model.gradient_checkpointing_enable()",
    "liger": "liger_kernel.transformers: apply the kernels of the model's type before it is made",
    "half": "from_pretrained(..., dtype=torch.bfloat16), without autocast",
    "lora": 'peft.LoraConfig(r=16, target_modules="all-linear")',
    "qlora": "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16) with LoRA",
}


@dataclass(frozen=True, slots=True)
class Pasted:
    """A changed configuration: `text` to paste, the `keys` in it, `whole` if the text is a whole file, what remains for the script.

    `estimate` is the prediction of the configuration as it was read again.
    """

    estimate: Estimate
    keys: Keys = field(default_factory=dict)
    text: str = ""
    whole: bool = False
    script: tuple[str, ...] = ()


def pasted(predictor: Predictor, estimate: Estimate, moves: Sequence[Move]) -> Pasted | None:
    """Return `moves` in the format of the strategy of `estimate`, as read and predicted again; None if the format cannot express one of them.

    What only a script can do is applied to the strategy that was read. `estimate` is the one before the moves.
    """
    source = _source(estimate.strategy)
    if source is None:
        return None
    words, inline = WORDS.get(source.format, {}), source.script
    keys: Keys = {}
    rest: list[Move] = []
    for move in moves:
        wanted = None if inline and move.name in ("half", "lora", "qlora") else words.get(move.name)
        if wanted is None or (source.linked and "deepspeed" in wanted):
            rest.append(move)
        else:
            keys = merged(keys, _filled(wanted, move))
    if any(move.name not in IN_SCRIPT for move in rest):
        return None
    try:
        strategy = predictor.strategy(source.path, json.dumps(merged(source.value, keys)))
        for move in rest:
            strategy = move.change(strategy) or strategy
        batch = next((move.batch for move in moves if move.batch), estimate.workload.batch)
        if strategy.batch is not None and any(move.batch for move in moves) and strategy.batch != batch:
            return None
        again = predictor.estimate(validated(replace(strategy, name=estimate.strategy.name)), batch, estimate.workload.seq_len)
    except QuestionError:
        return None
    shown = merged(source.value, keys) if source.whole else keys
    return Pasted(again, keys, _text(shown, source) if shown else "", source.whole, tuple(IN_SCRIPT[move.name] for move in rest))


@dataclass(frozen=True, slots=True)
class _Source:
    """What a strategy was read from: `value` its settings, `path` a name under which a changed text is read, `format` its format.

    `whole`: it was no file, so that all of it is shown. `script`: it is a Python script. `linked`: it names another file for DeepSpeed.
    """

    format: str
    path: str
    value: Mapping[str, Any]
    whole: bool = False
    script: bool = False
    linked: bool = False

    @property
    def yaml(self) -> bool:
        return self.path.endswith((".yaml", ".yml"))


def _source(strategy: Strategy) -> _Source | None:
    """Return where the settings of a strategy stand; None if its format has no words here."""
    if strategy.file is None:
        return _named(strategy)
    from llmdoctor.configs.reading import opened, read

    configuration = read(strategy.file)
    script = strategy.file.endswith(".py")
    value = dict(configuration.values) if script else opened(strategy.file).value
    if configuration.format.name not in WORDS or not isinstance(value, Mapping):
        return None
    stem, ending = os.path.splitext(strategy.file)
    path = strategy.file if ending in (".json", ".yaml", ".yml") else f"{stem}.json"
    linked = isinstance(value.get("deepspeed"), str)
    return _Source(configuration.format.name, path, value, script=script, linked=linked)


def _named(strategy: Strategy) -> _Source:
    """Return the settings of a strategy that was given by name."""
    if not strategy.entry.trainer:
        return _Source("deepspeed", "strategy.json", strategy.config, whole=True)
    value: Keys = {
        "optim": strategy.optimizer.name,
        "bf16": strategy.autocast == "bfloat16",
        "fp16": strategy.autocast == "float16",
        "gradient_accumulation_steps": strategy.accumulation,
        "gradient_checkpointing": strategy.checkpointing,
        "model_init": {"dtype": strategy.dtype},
    }
    return _Source("transformers", "strategy.json", value, whole=True)


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> Keys:
    """Return `base` with the keys of `more`, sections merged."""
    out = dict(base)
    for key, value in more.items():
        before = out.get(key)
        out[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return out


def _filled(wanted: Keys, move: Move) -> Keys:
    numbers = {"{batch}": move.batch, "{steps}": move.steps}
    return {key: numbers[value] if isinstance(value, str) and value in numbers else value for key, value in wanted.items()}


def _text(keys: Keys, source: _Source) -> str:
    if source.script:
        return "\n".join(f"{name}={value!r}," for name, value in keys.items())
    if not source.yaml:
        return json.dumps(keys, indent=2)
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump(keys, sort_keys=False)
    return text.rstrip()
