"""Rows of labels from a real TRL release: what SFTTrainer gives to its model for a dataset and a configuration.

    python conformance/make_labels.py 0.17.0 -o rows.jsonl [--transformers 4.51.3] [--models DIR] [--keep ENVIRONMENT]

Makes a throw-away environment with that release (pip, CPU torch), runs the real trainer over every scenario of SCENARIOS with every tokenizer
of DIR (default: tests/labels/models), and writes one row a line: {"id", "trainer", "version", "libraries", "model", "data", "config",
"expected": {"rows": [{"ids", "labels"}]} or {"error": class name}}. Compare with
`LABELS_ROWS=rows.jsonl pytest tests/labels/test_rows.py`. Nothing here imports llmdoctor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TALK = {"messages": [{"role": "user", "content": "What is two plus two?"}, {"role": "assistant", "content": "It is four."}]}
TWO = {"messages": [*TALK["messages"], {"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Ebro."}]}
PAIR = {"prompt": "Question: What is two plus two?\nAnswer:", "completion": " It is four."}
SPACE = {"prompt": "Name a river in France. ", "completion": "The Loire."}
CHAT_PAIR = {"prompt": TALK["messages"][:1], "completion": TALK["messages"][1:]}
SCENARIOS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([TALK, TWO], {}),
    ([TALK, TWO], {"assistant_only_loss": True}),
    ([TALK, TWO], {"max_length": 16}),
    ([TALK, TWO], {"packing": True, "max_length": 32}),
    ([{"text": "The Loire is a river in France."}, {"text": "Rome."}], {}),
    ([PAIR, SPACE], {}),
    ([PAIR, SPACE], {"completion_only_loss": False}),
    ([PAIR, SPACE], {"max_length": 12}),
    ([CHAT_PAIR], {}),
    ([CHAT_PAIR], {"eos_token": "<|missing|>"}),
]
# Runs inside the environment: real trainer, random weights, each sequence through the trainer's own collator.
WORKER = r"""
import json, sys, tempfile, os
import torch, transformers, datasets, trl
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
request = json.load(open(sys.argv[1]))
def one(data, config, model):
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "data.jsonl")
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in data)
    dataset = datasets.load_dataset("json", data_files=path, split="train", cache_dir=folder)
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    arguments = trl.SFTConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, dataset_num_proc=1, **config)
    trainer = trl.SFTTrainer(model=network, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    rows = []
    wanted = {"input_ids", "labels", "seq_lengths", "completion_mask", "assistant_masks", "attention_mask"}
    columns = [name for name in trainer.train_dataset.column_names if name in wanted]
    for row in trainer.train_dataset.select_columns(columns):
        batch = trainer.data_collator([row])
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))[0].bool()
        rows.append({"ids": batch["input_ids"][0][mask].tolist(), "labels": batch["labels"][0][mask].tolist()})
    return {"rows": rows}
libraries = {name: __import__(name).__version__ for name in ("trl", "transformers", "tokenizers", "datasets", "torch")}
for number, (data, config) in enumerate(request["scenarios"]):
    for model in request["models"]:
        try:
            expected = one(data, config, model)
        except Exception as error:
            expected = {"error": type(error).__name__}
        name = os.path.basename(model)
        row = {"id": f"trl-sft-{trl.__version__}-{name}-{number}", "trainer": "trl-sft", "version": trl.__version__, "libraries": libraries}
        print(json.dumps({**row, "model": name, "data": data, "config": config, "expected": expected}), flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="the trl release")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--transformers", help="a transformers release; default: the newest that trl accepts")
    parser.add_argument("--models", type=Path, default=ROOT / "tests/labels/models")
    parser.add_argument("--keep", type=Path, help="the environment to make or to use again")
    parser.add_argument("--here", action="store_true", help="use the environment that runs this script")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists")
    with tempfile.TemporaryDirectory(prefix="llmdoctor-labels-") as folder:
        python = Path(sys.executable) if options.here else _environment(options.keep or Path(folder) / "venv", options)
        request, worker = Path(folder) / "request.json", Path(folder) / "worker.py"
        models = [str(path) for path in sorted(options.models.iterdir()) if (path / "config.json").exists()]
        request.write_text(json.dumps({"scenarios": SCENARIOS, "models": models}))
        worker.write_text(WORKER)
        done = subprocess.run([str(python), str(worker), str(request)], stdout=subprocess.PIPE, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith('{"id"')]  # libraries print too
    options.output.write_text("".join(row + "\n" for row in rows))
    print(f"{options.output}: {len(rows)} rows")
    return 0


def _environment(folder: Path, options: argparse.Namespace) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        wanted = [f"trl=={options.version}", "torch", "datasets", "accelerate"]
        wanted.append(f"transformers=={options.transformers}" if options.transformers else "transformers")
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
