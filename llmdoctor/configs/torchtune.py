"""torchtune's recipes. Their keys are those of the recipes that torchtune 0.6.1 ships; the models are torchtune's own and are not modelled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmdoctor.configs.normal import Normal
from llmdoctor.configs.schema import Meanings, declared, keys_of
from llmdoctor.configs.types import Format, Variant

MEANINGS = Meanings(
    uses={
        "batch_size": "batch",
        "gradient_accumulation_steps": "accumulation",
        "dtype": "load_dtype",
        "enable_activation_checkpointing": "checkpointing",
        "enable_activation_offloading": "activation_offloading",
        "tokenizer.max_seq_len": "sequence_length",
        "optimizer._component_": "optimizer",
        "clip_grad_norm": "clip",
        "compile": "compile",
    },
    ignored={
        "it names files, or where results are written": "output_dir *checkpointer* resume_from_checkpoint metric_logger* checkpointer* ref_* value_* reward_* teacher_*",
        "it names the data or decides how examples become tokens": "dataset* shuffle tokenizer* dataloader* collate_fn prompt* tasks limit",
        "the number of steps does not change what one step holds": "epochs max_steps_per_epoch num_steps",
        "logging and profiling do not change memory": "log_* profiler*",
        "the learning rate and its schedule have no influence on what is held": "optimizer.lr optimizer.weight_decay lr_scheduler*",
        "random numbers do not change memory": "seed device",
        "saving does not belong to a training step": "save_adapter_weights_only",
        "a factor of the loss": "loss.* kd_ratio kl_coeff gamma lmbda whiten_rewards penalise_no_eos reward_penalty",
    },
    refused={
        "torchtune's own implementation of the model and of the loss is not modelled": "model* policy_model* loss._component_ teacher_model* reward_and_value_model*"
    },
    labels={"dataset.train_on_input": "train_on_prompt", "dataset.packed": "packing", "tokenizer.max_seq_len": "sequence_length"},
)


@cache
def _variant() -> Variant:
    return Variant(name="", keys=keys_of("torchtune", ("recipe",), (MEANINGS,)))


def variant(_value: Mapping[str, Any]) -> Variant:
    """Return the keys of torchtune's recipes."""
    return _variant()


def settle(_normal: Normal) -> None:
    """Nothing: a recipe has no defaults."""


def is_torchtune(value: Any) -> bool:
    """Return whether `value` names components to build, a tokenizer or a checkpointer among them."""
    if not isinstance(value, dict):
        return False
    built = {key for key, item in value.items() if isinstance(item, dict) and isinstance(item.get("_component_"), str)}
    return bool(built & {"tokenizer", "checkpointer", "model"}) and len(built) >= 2


FORMAT = Format(
    name="torchtune",
    title="torchtune recipe",
    library="torchtune",
    version=declared("torchtune")["version"],
    recognise=is_torchtune,
    variant=variant,
    settle=settle,
    unknown=lambda _key: "ignores",
)
