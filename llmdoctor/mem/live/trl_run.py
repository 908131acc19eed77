"""Runs a measured case with TRL's own trainer: examples of one word, cut to the length of the workload, and a tokenizer that knows that word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.workload import COMPARING

if TYPE_CHECKING:
    from llmdoctor.mem.live.probe import Probe
    from llmdoctor.mem.workload import Workload

PROMPT = 4  # tokens of a prompt; every other token belongs to the completion


def run_trl(model: Any, arguments: dict[str, Any], workload: Workload, rows: int, probe: Probe) -> None:
    """Train `model` with the trainer of the workload's objective (sft, dpo or kto) on `rows` examples. `arguments` are those of TrainingArguments.

    Raises QuestionError without TRL, or for another objective.
    """
    try:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
    except ImportError:
        raise QuestionError("a real run with TRL's trainers needs trl, which is not installed here") from None
    classes = {"sft": (SFTConfig, SFTTrainer), "dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer)}
    if workload.objective not in classes:
        raise QuestionError(f"a real run of the objective {workload.objective} is not made here, expected {', '.join(classes)}")
    config, trainer = classes[workload.objective]
    words = " ".join(["word"] * (workload.seq_len + PROMPT))
    prompt = " ".join(["word"] * PROMPT)
    kinds: dict[str | None, list[dict[str, Any]]] = {
        "sft": [{"text": words}],
        "dpo": [{"prompt": prompt, "chosen": f" {words}", "rejected": f" {words}"}],
        "kto": [{"prompt": prompt, "completion": f" {words}", "label": good} for good in (True, False)],
    }
    examples = kinds[workload.objective]
    reference = {"ref_model": _copy(model, workload.reference)} if workload.reference is not None else {}
    adapters = {}
    if workload.objective in COMPARING and workload.lora is not None:
        # Adapters that exist already are copied, and the copy is the reference (trl 1.0.0, dpo_trainer.py:581): hand over the base model.
        adapters = {"peft_config": model.peft_config["default"]}
        model = model.unload()
    made = trainer(
        model,
        args=config(
            **{**arguments, "remove_unused_columns": True}, max_length=workload.seq_len + (workload.objective == "kto")
        ),  # KTOTrainer counts a first token that is not there
        train_dataset=Dataset.from_list((examples * rows)[:rows]),
        processing_class=_tokenizer(),
        **reference,
        **adapters,
    )
    if getattr(made, "ref_model", None) is not None:
        probe.models = [*(probe.models or []), made.ref_model]
    made.train()
    probe.finish()


def _copy(model: Any, dtype: str) -> Any:
    """Return the reference model; TRL would load it from the model's checkpoint, which a random model does not have."""
    import copy

    import torch

    return copy.deepcopy(model).to(getattr(torch, dtype))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[EOS]"}
    inner = Tokenizer(WordLevel({"[PAD]": 0, "[EOS]": 1, "word": 2, "[UNK]": 3}, **{"unk_token": special["unk_token"]}))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
