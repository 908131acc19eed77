"""Rows of labels from the real ms-swift: what `swift sft` gives to its model for a dataset and arguments.

    python conformance/make_ms_swift_labels.py REQUEST.json ROWS.jsonl

Runs in an environment with ms-swift (pip, CPU torch). REQUEST holds {"runs": [[data, arguments, model directory]]}; without a file of this name the
scenarios of labels_scenarios.py run over every model of tests/labels/models with the template of its family. Writes one row a line, as
make_labels.py does. SftArguments, the dataset loader, the template and the collator are ms-swift's own; no weights are loaded.
Nothing here imports llmdoctor.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("MODELSCOPE_CACHE", tempfile.mkdtemp())

import datasets
import swift
import transformers
from labels_scenarios import SCENARIOS
from swift.arguments import SftArguments
from swift.pipelines import SwiftSft

MODELS = Path(__file__).parent.parent / "tests/labels/models"
TEMPLATES = {
    "chatml_qwen25": "qwen2_5",
    "qwen3_think": "qwen3",
    "llama3": "llama3",
    "gemma": "gemma",
    "mistral_inst": "mistral_nemo",
    "base_plain": "default",
    "bos_eos_base": "chatml",
    "deepseek_r1": "deepseek_r1",
    "llama2_sp": "llama",
}
FIXED = {
    "dataset_shuffle": False,
    "train_dataloader_shuffle": False,
    "split_dataset_ratio": 0,
    "load_from_cache_file": False,
    "torch_dtype": "float32",
}


def sequences(data: list[dict[str, Any]], config: dict[str, Any], model: str, folder: str) -> list[dict[str, list[int]]]:
    """Return what the collator makes of each row that is left, alone in a batch."""
    path = os.path.join(folder, "data.jsonl")
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in data))
    arguments = SftArguments(model=model, model_type="qwen2", dataset=[path], output_dir=f"{folder}/out", **FIXED, **config)
    run = object.__new__(SwiftSft)  # its constructor loads the weights
    run.args, run.train_msg, run.model = arguments, {}, None
    run.processor = arguments.get_model_processor(load_model=False)[1]
    run.template = arguments.get_template(run.processor)
    run.template.set_mode("train")
    train, _ = run._encode_dataset(*run._get_dataset())
    out = []
    for row in train or []:
        batch = run.template.data_collator([dict(run.template.encode(row, return_length=True))])
        out.append({"ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()})
    return out


def expected(data: list[dict[str, Any]], config: dict[str, Any], model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return {"rows": sequences(data, config, model, folder)}
        except Exception as error:  # the exception is the answer
            return {"error": type(error).__name__, "message": str(error)[:300]}


def runs() -> list[tuple[list[dict[str, Any]], dict[str, Any], str]]:
    """Return the scenarios of supervised fine-tuning without settings of TRL's, for each model with its template."""
    data = [rows for trainer, rows, config in SCENARIOS if trainer == "trl-sft" and not config]
    return [(rows, {"template": template}, str(MODELS / name)) for rows in data for name, template in TEMPLATES.items()]


def main() -> None:
    datasets.disable_progress_bars()
    wanted = json.loads(Path(sys.argv[1]).read_text())["runs"] if os.path.exists(sys.argv[1]) else runs()
    libraries = {"ms-swift": swift.__version__, "transformers": transformers.__version__}
    with open(sys.argv[2], "w", buffering=1) as out:
        for number, (data, config, model) in enumerate(wanted):
            name = os.path.basename(model)
            row = {
                "id": f"ms-swift-{swift.__version__}-{name}-{number}",
                "trainer": "ms-swift",
                "version": swift.__version__,
                "libraries": libraries,
            }
            out.write(json.dumps({**row, "model": name, "data": data, "config": config, "expected": expected(data, config, model)}) + "\n")


if __name__ == "__main__":
    main()
