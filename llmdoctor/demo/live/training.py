"""The tiny Qwen2-VL trained for a moment by the real Trainer and the real collator, and what it then generates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS, BATCH, RATE, LIMIT = 60, 3, 5e-3, 32


@dataclass(frozen=True, slots=True)
class Trained:
    """What a trained model does with a question: whether it stopped, after how many tokens, and the text."""

    stopped: bool
    new_tokens: int
    text: str


def train_and_ask(model: Path, talks: list[list[dict[str, str]]], pad_token: str, user_text: str, folder: Path) -> Trained:
    """Train a Qwen2-VL of `model`'s config with random weights on `talks`, with `pad_token` as the tokenizer's, then ask `question` greedily.

    The data are what a plain script makes of them: apply_chat_template, then DataCollatorForLanguageModeling(mlm=False).
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        PrinterCallback,
        Qwen2VLForConditionalGeneration,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(model))
    tokenizer.pad_token = pad_token
    network: Any = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(str(model)))
    rows = [{"input_ids": tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]} for talk in talks]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(model=network, args=arguments, train_dataset=rows, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    network.eval()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": user_text}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        out = network.generate(**prompt, do_sample=False, max_new_tokens=LIMIT, eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    new = out[0][prompt["input_ids"].shape[1] :].tolist()
    return Trained(end in new, len(new), tokenizer.decode(new))
