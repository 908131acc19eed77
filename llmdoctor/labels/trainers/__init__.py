"""The trainers, one file each. A new one is a file with a TRAINER, and its name here."""

from __future__ import annotations

from importlib import import_module

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.trainers.base import Trainer

NAMES = {
    "trl-sft": "trl_sft",
    "trl-dpo": "trl_dpo",
    "trl-kto": "trl_kto",
    "trl-reward": "trl_reward",
    "transformers-clm": "transformers_clm",
    "axolotl": "axolotl",
    "llama-factory": "llama_factory",
    "unsloth": "unsloth",
    "torchtune": "torchtune",
    "ms-swift": "ms_swift",
    "none": "untouched",
}


def trainer_named(name: str) -> Trainer:
    """Return a trainer. Raises QuestionError for a name that is not known."""
    if name not in NAMES:
        raise QuestionError(f"--trainer {name}: unknown trainer, expected one of {', '.join(NAMES)}, with @VERSION if not the newest")
    found: Trainer = import_module(f"llmdoctor.labels.trainers.{NAMES[name]}").TRAINER
    return found
