"""A user's PPO script in the trl and transformers that are installed where it runs: a tiny Llama with a tokenizer of its own.

    python conformance/ppo_run.py [--trainer ppo|ppov2|rloo] [--stop-token eos]

One generate() as a plain script would call it, the trainer's constructor, and the same generate() on its policy. Nothing is trained.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

EOS, END = 3, 4
PLACES = {
    "ppo": ("trl.experimental.ppo", "trl.trainer.ppo_trainer"),
    "ppov2": ("trl.trainer.ppov2_trainer",),
    "rloo": ("trl.trainer.rloo_trainer",),
}


def main() -> None:
    """Generate, construct the trainer, generate again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", choices=sorted(PLACES), default="ppo")
    parser.add_argument("--stop-token", choices=["eos"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch, "model"))
        tokenizer = AutoTokenizer.from_pretrained(Path(scratch, "model"))
        model = AutoModelForCausalLM.from_pretrained(Path(scratch, "model"))
        answer(model, tokenizer)
        policy = construct(options.trainer, options.stop_token, model, tokenizer, scratch)
        answer(policy, tokenizer)


def build(folder: Path) -> None:
    """A model that always proposes the token with which its turns end, saved as people have models: with a generation_config.json."""
    vocabulary = {"<unk>": 0, "<pad>": 1, "<s>": 2, "</s>": EOS, "<|im_end|>": END, **{f"w{index}": index + 5 for index in range(27)}}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", additional_special_tokens=["<|im_end|>"]
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama(vocab_size=32, eos_token_id=EOS, pad_token_id=1))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[END] = 1.0
        model.model.norm.weight.fill_(1.0)
        for parameter in model.model.embed_tokens.parameters():
            parameter.fill_(0.5)
    model.save_pretrained(folder)
    settings = {"eos_token_id": [END, EOS], "pad_token_id": 1, "transformers_version": "4.37.0"}
    Path(folder, "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def llama(**more: Any) -> LlamaConfig:
    """A config of one small layer."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaConfig(**sizes, bos_token_id=2, max_position_embeddings=256, **more)


def answer(model: Any, tokenizer: Any) -> None:
    """The call of the case, without its sampling: what is proposed is certain."""
    inputs = tokenizer(["w1 w2 w3"], return_tensors="pt")
    inputs.pop("token_type_ids", None)
    output = model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=24))
    print(output.shape[1] - inputs["input_ids"].shape[1], "new tokens")


def construct(name: str, stop_token: str | None, model: Any, tokenizer: Any, scratch: str) -> Any:
    """The trainer, with whatever its version calls its arguments; returns the policy that it would train."""
    module = next(found for place in PLACES[name] if (found := imported(place)) is not None)
    kind = {"ppo": "PPOTrainer", "ppov2": "PPOv2Trainer", "rloo": "RLOOTrainer"}[name]
    trainer = getattr(module, kind)
    settings = imported(module.__name__.replace("_trainer", "_config")) or module
    config = getattr(settings, kind.replace("Trainer", "Config"))
    wanted: dict[str, Any] = {
        "output_dir": scratch,
        "report_to": [],
        "per_device_train_batch_size": 2,
        "num_mini_batches": 1,
        "total_episodes": 2,
        "response_length": 8,
        "num_sample_generations": 0,
        "stop_token": stop_token,
        "bf16": False,
        "use_cpu": True,
        "rloo_k": 1,
    }
    known = inspect.signature(config).parameters
    arguments = config(**{key: value for key, value in wanted.items() if key in known})
    scores = [LlamaForSequenceClassification(llama(vocab_size=32, num_labels=1, pad_token_id=1)) for _ in range(2)]
    rows = Dataset.from_list([{"input_ids": [5, 6, 7]}] * 4)
    given: dict[str, Any] = {
        **dict.fromkeys(("args", "config"), arguments),
        **dict.fromkeys(("processing_class", "tokenizer"), tokenizer),
        **dict.fromkeys(("model", "policy"), model),
        **dict.fromkeys(("ref_model", "ref_policy"), copy.deepcopy(model)),
        "reward_model": scores[0],
        "value_model": scores[1],
        "train_dataset": rows,
        "eval_dataset": rows,
    }
    made = trainer(**{key: given[key] for key in inspect.signature(trainer.__init__).parameters if key in given})
    return getattr(made, "policy_model", None) or getattr(made, "policy", None) or model


def imported(place: str) -> Any:
    """The module, or None where this version has none."""
    try:
        return importlib.import_module(place)
    except ImportError:
        return None


if __name__ == "__main__":
    main()
