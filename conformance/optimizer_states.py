"""Hold what the Trainer's optimizers keep after one step against the prediction, for every name of transformers' OptimizerNames.

    python conformance/optimizer_states.py [--write docs/mem-optimizers.md]

Each optimizer is made by the real Trainer for a small model on the CPU and takes one step on random gradients; every tensor of its state is counted.
A name that `mem` refuses is listed with its sentence, and with the state of the real optimizer if its package is installed. Needs bitsandbytes for its
names, and galore-torch, apollo-torch, lomo-optim, schedulefree, torchao, torch-optimi and grokadamw for the state of the refused ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.components import parts_of
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predict import predict
from llmdoctor.mem.predictor import Predictor

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 4000, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
COUNTERS = 4096  # bytes: step counters, which the real run holds on the host, and bitsandbytes' tables of 256 values
DTYPES = ("fp32", "bf16")
TARGETS = {"galore": ["attn", "mlp"], "apollo": ["attn", "mlp"]}


def main() -> int:
    """Print the table; return 1 if a modelled optimizer keeps something else than was predicted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        predictor = Predictor(MemOptions(model=folder, seq_len=16))
        rows = []
        for name in _names():
            for dtype in DTYPES:
                rows.append(_row(predictor, folder, name, dtype))
                print(rows[-1][0], flush=True)
    lines = ["| optim | weights | state of the real optimizer, bytes | predicted | |", "|---|---|---|---|---|", *(row for row, _ in rows)]
    if options.write is not None:
        text = options.write.read_text()
        options.write.write_text(text[: text.index("| optim |")] + "\n".join(lines) + "\n")
    return int(any(wrong for _, wrong in rows))


def _names() -> list[str]:
    from transformers.training_args import OptimizerNames

    return [str(name.value) for name in OptimizerNames]


def _row(predictor: Predictor, folder: str, name: str, dtype: str) -> tuple[str, bool]:
    """Return the line of one optimizer, and whether the prediction is wrong."""
    try:
        estimate = predictor.estimate(predictor.strategy(f"trainer:{name},{dtype}"))
    except QuestionError as error:
        predicted, reason = None, str(error).partition(": ")[2].partition(";")[0]
    else:
        predicted = sum(parts_of(predict(replace(estimate.job, exact=True)).steady, "optimizer_state").values())
        predicted += sum(size for key, size in estimate.prediction.host.items() if key.startswith("optimizer_state"))
        reason = ""
    real, problem = _real(folder, name, dtype)
    if predicted is None:
        return f"| {name} | {dtype} | {problem or f'{real:,}'} | refused | {reason} |", False
    if problem:
        return f"| {name} | {dtype} | {problem} | {predicted:,} | not compared |", False
    same = real == predicted
    return (
        f"| {name} | {dtype} | {real:,} | {predicted:,} | {'equal' if same else f'{100 * (predicted / max(1, real) - 1):+.2f}%'} |",
        not same,
    )


def _real(folder: str, name: str, dtype: str) -> tuple[int, str]:
    """Return (bytes of the state after one step, "") of the real optimizer, or (0, the reason for which it did not run)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
    if name.startswith("adamw_torch_") and name.endswith("bit"):
        return 0, "not run: torchao compiles its step"
    targets = next((value for part, value in TARGETS.items() if name.startswith(part)), None)
    try:
        arguments = TrainingArguments(
            f"{folder}/out", optim=name, use_cpu=True, report_to=[], optim_target_modules=targets, optim_args="rank=16" if targets else None
        )
        trainer = Trainer(model, arguments)
        optimizer: Any = trainer.create_optimizer()
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * 1e-3
        if hasattr(optimizer, "train"):
            optimizer.train()
        optimizer.step()
    except Exception as error:
        return 0, f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
    seen: dict[int, int] = {}
    for held in optimizer.state.values():
        _count(held, seen)
    return sum(seen.values()), ""


def _count(value: Any, seen: dict[int, int]) -> None:
    """Add every storage in nested values to `seen`, by its address."""
    import torch

    if isinstance(value, torch.Tensor):
        inner = [getattr(value, name) for name in getattr(value, "tensor_attrs", ())] or [value]
        for tensor in inner:
            seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    elif isinstance(value, dict):
        for item in value.values():
            _count(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            _count(item, seen)
    elif hasattr(value, "ortho_matrix"):
        _count(value.ortho_matrix, seen)


if __name__ == "__main__":
    raise SystemExit(main())
