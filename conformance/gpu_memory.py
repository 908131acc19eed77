"""One command on a machine with a GPU: predictions first, written down, then the same steps for real.

    python conformance/gpu_memory.py --out FOLDER [--rows ROWS.jsonl --models DIR --strategies DIR [--sample N]] [--only REGEX] [--predict-only]

Cases: a sample of a measured file's rows again on the versions that this machine has, and cases that are in no file (NEW below), the three stages of
Qwen2-VL with a 448 x 448 image among them. predictions.jsonl is written and closed before anything is measured; measured.jsonl grows as the cases
end; table.md holds both. Needs llmdoctor on the path and torch with CUDA. Traps: DeepSpeed needs TORCH_CUDA_ARCH_LIST=9.0 on Hopper (9.0a crashes its
builder); without a compiler take DS_BUILD_OPS=0 and the cases with torch_adam.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.demo.shapes import QWEN2_VL_2B
from llmdoctor.mem.components import by_component
from llmdoctor.mem.measure import run_case
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predictor import Predictor

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192,
}
MODELS: dict[str, dict[str, Any]] = {
    "qwen2-vl-2b": QWEN2_VL_2B,
    "llama-1.7b-untied": {**LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
                          "num_key_value_heads": 4, "vocab_size": 64000, "tie_word_embeddings": False},
    "gpt2-large": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 1280, "n_layer": 36, "n_head": 20,
                   "n_positions": 1024, "vocab_size": 50257},
    "qwen3-0.6b": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
                   "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
                   "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096},
    "pythia-1b": {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 2048,
                  "intermediate_size": 8192,
                  "num_hidden_layers": 16, "num_attention_heads": 8, "vocab_size": 50304, "max_position_embeddings": 2048,
                  "tie_word_embeddings": False},
}  # fmt: skip
VISION = {"image": "448x448", "batch": 2, "seq_len": 512}
TORCH_ADAM = {"type": "AdamW", "params": {"lr": 1e-5, "torch_adam": True}}
ZERO2 = {"bf16": {"enabled": True}, "gradient_clipping": 1.0, "optimizer": TORCH_ADAM, "zero_optimization": {"stage": 2}}
# (model, strategy: a name or a file's content, options): shapes and settings that are in no measured file.
NEW: list[tuple[str, Any, dict[str, Any]]] = [
    ("qwen2-vl-2b", "trainer:adamw_torch_fused,bf16", {**VISION, "stage": "vision"}),
    ("qwen2-vl-2b", "trainer:adamw_torch_fused,bf16", {**VISION, "stage": "all"}),
    ("qwen2-vl-2b", "trainer:adamw_torch_fused,bf16", {**VISION, "stage": "llm"}),
    ("qwen2-vl-2b", ZERO2, {**VISION, "stage": "vision"}),
    ("qwen2-vl-2b", ZERO2, {**VISION, "stage": "all"}),
    ("qwen2-vl-2b", ZERO2, {**VISION, "stage": "llm"}),
    ("qwen2-vl-2b", {**ZERO2, "zero_optimization": {"stage": 3}}, {**VISION, "stage": "llm"}),
    ("llama-1.7b-untied", "trainer:adamw_torch,bf16", {"batch": 3, "seq_len": 768}),
    ("llama-1.7b-untied", "trainer:adamw_torch_fused,amp_bf16,gc", {"batch": 4, "seq_len": 1024}),
    ("llama-1.7b-untied", "trainer:adafactor,bf16", {"batch": 2, "seq_len": 512}),
    ("llama-1.7b-untied", {**ZERO2, "gradient_accumulation_steps": 2}, {"batch": 2, "seq_len": 640}),
    ("llama-1.7b-untied", {**ZERO2, "zero_optimization": {"stage": 1, "overlap_comm": True}}, {"batch": 2, "seq_len": 640}),
    ("llama-1.7b-untied", {**ZERO2, "zero_optimization": {"stage": 3, "sub_group_size": 200000000}}, {"batch": 2, "seq_len": 640}),
    ("llama-1.7b-untied", {**ZERO2, "zero_optimization": {"stage": 0}}, {"batch": 2, "seq_len": 640}),
    ("gpt2-large", "trainer:adamw_torch_fused,amp_bf16", {"batch": 2, "seq_len": 1024}),
    ("gpt2-large", "trainer:adamw_torch,fp32", {"batch": 1, "seq_len": 640}),
    ("gpt2-large", "trainer:sgd,amp_fp16", {"batch": 4, "seq_len": 384}),
    ("gpt2-large", ZERO2, {"batch": 2, "seq_len": 1024}),
    ("qwen3-0.6b", "trainer:adamw_torch,bf16", {"batch": 1, "seq_len": 4096}),
    ("qwen3-0.6b", "trainer:adamw_torch,bf16", {"batch": 4, "seq_len": 512, "attn": "eager"}),
    ("qwen3-0.6b", "trainer:adamw_torch_fused,fp32", {"batch": 2, "seq_len": 512}),
    ("pythia-1b", "trainer:adamw_torch_fused,amp_bf16", {"batch": 2, "seq_len": 1024}),
    ("pythia-1b", {**ZERO2, "bf16": {"enabled": False}, "fp16": {"enabled": True}}, {"batch": 2, "seq_len": 1024}),
]
NAMES = {"--batch": "batch", "--seq-len": "seq_len", "--image": "image", "--attn": "attn", "--stage": "stage", "--lora": "lora"}


def main() -> int:
    """Predict, write, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--strategies", type=Path)
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--predict-only", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = [(name, asked) for name, asked in [*_new(options.out), *_again(options)] if re.search(options.only, name)]
    predictions = {}
    with (options.out / "predictions.jsonl").open("w") as file:
        for name, asked in cases:
            predictions[name] = _predict(name, asked)
            file.write(json.dumps(predictions[name]) + "\n")
    print(f"{len(predictions)} predictions written to {options.out / 'predictions.jsonl'} at {time.strftime('%H:%M:%S')}", flush=True)
    if options.predict_only:
        return 0
    return _measure(cases, predictions, options.out)


def _new(out: Path) -> list[tuple[str, MemOptions]]:
    cases = []
    for number, (model, strategy, given) in enumerate(NEW):
        folder = out / "models" / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(MODELS[model]))
        text = strategy
        if not isinstance(strategy, str):
            path = out / f"strategy-{number:02d}.json"
            path.write_text(json.dumps({**strategy, "train_micro_batch_size_per_gpu": given["batch"]}))
            text = str(path)
        cases.append((f"new-{number:02d}.{model}", MemOptions(model=str(folder), strategy=(text,), **given)))
    return cases


def _again(options: argparse.Namespace) -> list[tuple[str, MemOptions]]:
    if options.rows is None:
        return []
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    chosen = random.Random(0).sample(rows, min(options.sample, len(rows)))
    cases = []
    for row in chosen:
        words = [word.replace("{models}", str(options.models)).replace("{strategies}", str(options.strategies)) for word in row["args"]]
        given = dict(zip(words[3::2], words[4::2], strict=True))
        asked = {NAMES[name]: int(value) if value.isdigit() else value for name, value in given.items() if name in NAMES}
        cases.append((f"again.{row['id']}", MemOptions(model=words[2], strategy=(given["--strategy"],), **asked)))
    return cases


def _predict(name: str, asked: MemOptions) -> dict[str, Any]:
    try:
        predictor = Predictor(asked)
        prediction = predictor.estimate(predictor.strategy(asked.strategies[0])).prediction
    except QuestionError as error:
        return {"id": name, "refused": str(error)}
    return {
        "id": name, "peak": prediction.peak.total, "steady": prediction.steady.total, "peak_phase": prediction.peak.phase,
        "reserved": prediction.reserved, "components": by_component(prediction.peak),
    }  # fmt: skip


def _measure(cases: list[tuple[str, MemOptions]], predictions: dict[str, Any], out: Path) -> int:
    lines = ["| case | predicted peak | measured | error | steady error |", "|---|---|---|---|---|"]
    with (out / "measured.jsonl").open("w") as file:
        for name, asked in cases:
            row = {"id": name, **_real(asked)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            lines.append(_line(name, predictions[name], row))
            print(lines[-1], flush=True)
    (out / "table.md").write_text("\n".join(lines) + "\n")
    return 0


def _real(asked: MemOptions) -> dict[str, Any]:
    try:
        predictor = Predictor(asked)
        records = run_case(asked, replace(predictor.strategy(asked.strategies[0])), steps=3)
    except QuestionError as error:
        return {"failed": str(error)}
    failed = next((record for record in records if record["kind"] == "failed"), None)
    if failed is not None:
        return {"failed": f"{failed['outcome']}: {failed['message']}", "step": failed["step"], "phase": failed["phase"]}
    peak = next((record for record in records if record.get("phase") == "peak"), {})
    steady = next((record for record in records if record.get("phase") == "between steps" and record["step"] == 2), {})
    return {
        "peak": peak.get("peak_bytes"), "peak_phase": peak.get("peak_phase"), "steady": steady.get("allocated_bytes"),
        "components": steady.get("components"),
        "nvml": steady.get("nvml_process_bytes"), "reserved": steady.get("reserved_bytes"), "peak_sites": (steady.get("peak") or {}).get("by_site"),
        "phases": {f"{record['step']} {record['phase']}": record.get("peak_bytes") for record in records if record["kind"] == "phase"},
    }  # fmt: skip


def _line(name: str, predicted: dict[str, Any], row: dict[str, Any]) -> str:
    if not row.get("peak") or not predicted.get("peak"):
        return f"| {name} | {predicted.get('peak', predicted.get('refused'))} | {row.get('failed', 'no allocator here')} | | |"
    errors = [100 * (predicted[key] / row[key] - 1) for key in ("peak", "steady")]
    return f"| {name} | {predicted['peak'] / 1e9:.3f} GB | {row['peak'] / 1e9:.3f} GB | {errors[0]:+.2f}% | {errors[1]:+.2f}% |"


if __name__ == "__main__":
    sys.exit(main())
