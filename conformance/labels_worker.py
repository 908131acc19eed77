"""Runs inside a throw-away environment of conformance/make_labels.py: the real TRL trainers, random weights, one sequence a collator call.

    python labels_worker.py REQUEST.json ROWS.jsonl

REQUEST holds {"runs": [[trainer, data, config, model directory]]}. Writes one JSON line for each.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile

import datasets
import torch
import transformers
import trl
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

RELEASE = tuple(int(part) for part in trl.__version__.split(".")[:2])
KEPT = {"input_ids", "labels", "seq_lengths", "position_ids", "completion_mask", "assistant_masks", "attention_mask"}


def settings_of(kind: type, config: dict) -> dict:
    """The names of this release: max_length was max_seq_length in SFTConfig before 0.16."""
    config = dict(config)
    if "max_length" in config and "max_length" not in inspect.signature(kind).parameters:
        config["max_seq_length"] = config.pop("max_length")
    return config


def arguments_of(kind: type, config: dict, folder: str):
    return kind(output_dir=folder, report_to=[], use_cpu=True, bf16=False, dataset_num_proc=1, **config)


def visible(batch: dict, at: int, ids: str = "input_ids", mask: str = "attention_mask") -> torch.Tensor:
    return batch[mask][at].bool() if mask in batch else torch.ones_like(batch[ids][at]).bool()


def sft(dataset, config: dict, model: str, folder: str) -> list[dict]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    trainer = trl.SFTTrainer(
        model=network, args=arguments_of(trl.SFTConfig, config, folder), train_dataset=dataset, processing_class=tokenizer
    )
    columns = [name for name in trainer.train_dataset.column_names if name in KEPT]
    rows = []
    for row in trainer.train_dataset.select_columns(columns):
        batch = trainer.data_collator([row])
        mask = visible(batch, 0)
        rows.append({"ids": batch["input_ids"][0][mask].tolist(), "labels": batch["labels"][0][mask].tolist()})
    return rows


def saved(model: str, folder: str):
    """A network with weights on disk: these trainers load a reference model from the path of the first."""
    path = os.path.join(folder, "network")
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path)


def dpo(dataset, config: dict, model: str, folder: str) -> list[dict]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = saved(model, folder)
    trainer = trl.DPOTrainer(
        model=network, args=arguments_of(trl.DPOConfig, config, folder), train_dataset=dataset, processing_class=tokenizer
    )
    rows = []
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        for at in range(2):
            mask = visible(batch, at)
            targets = batch["completion_mask"][at][mask].bool()
            ids = batch["input_ids"][at][mask]
            rows.append({"ids": ids.tolist(), "labels": torch.where(targets, ids, -100).tolist()})
    return rows


def kto(dataset, config: dict, model: str, folder: str) -> list[dict]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = saved(model, folder)
    trainer = trl.KTOTrainer(
        model=network,
        args=arguments_of(trl.KTOConfig, {**config, "per_device_train_batch_size": 2}, folder),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    rows = []
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        if "completion_input_ids" in batch:
            ids, labels = batch["completion_input_ids"][0], batch["completion_labels"][0]
            mask = batch["completion_attention_mask"][0].bool()
        else:
            ids, mask = batch["input_ids"][0], visible(batch, 0)
            labels = torch.where(batch["completion_mask"][0].bool(), ids, -100)
        rows.append({"ids": ids[mask].tolist(), "labels": labels[mask].tolist()})
    return rows


def reward(dataset, config: dict, model: str, folder: str) -> list[dict]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(model, num_labels=1))
    trainer = trl.RewardTrainer(
        model=network, args=arguments_of(trl.RewardConfig, config, folder), train_dataset=dataset, processing_class=tokenizer
    )
    rows = []
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        if "input_ids" in batch:
            sides = [batch["input_ids"][at][visible(batch, at)].tolist() for at in range(2)]
        else:
            sides = [batch[f"input_ids_{side}"][0][batch[f"attention_mask_{side}"][0].bool()].tolist() for side in ("chosen", "rejected")]
        rows += [{"ids": ids, "labels": [-100] * len(ids)} for ids in sides]
    return rows


RUN = {"trl-sft": (sft, "SFTConfig"), "trl-dpo": (dpo, "DPOConfig"), "trl-kto": (kto, "KTOConfig"), "trl-reward": (reward, "RewardConfig")}


def one(trainer: str, data: list, config: dict, model: str) -> dict:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "data.jsonl")
        with open(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in data)
        dataset = datasets.load_dataset("json", data_files=path, split="train", cache_dir=folder)
        try:
            return {"rows": RUN[trainer][0](dataset, config, model, folder)}
        except Exception as error:  # the exception is the answer
            if os.environ.get("LABELS_TRACE"):
                raise
            return {"error": type(error).__name__, "message": str(error)[:300]}


def main() -> None:
    with open(sys.argv[1]) as file:
        request = json.load(file)
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    libraries = {module.__name__: module.__version__ for module in (trl, transformers, datasets, torch)}
    with open(sys.argv[2], "w", buffering=1) as out:
        for number, (trainer, data, asked, model) in enumerate(request["runs"]):
            config = settings_of(getattr(trl, RUN[trainer][1]), asked)
            name = os.path.basename(model)
            expected = one(trainer, data, config, model)
            row = {
                "id": f"{trainer}-{trl.__version__}-{name}-{number}",
                "trainer": trainer,
                "version": trl.__version__,
                "libraries": libraries,
            }
            out.write(json.dumps({**row, "model": name, "data": data, "config": config, "expected": expected}) + "\n")


if __name__ == "__main__":
    main()
