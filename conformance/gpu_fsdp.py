"""FSDP measured on one GPU: the process is rank 0 of N in torch's fake process group, whose collectives move nothing and allocate nothing.

    python conformance/gpu_fsdp.py --predict OUT              writes OUT/predictions.jsonl; needs llmdoctor and no GPU
    python conformance/gpu_fsdp.py --measure OUT              reads it and writes OUT/measured.jsonl and OUT/table.md; needs a GPU

The Trainer, accelerate and torch's FSDP are the real ones, and so is the allocator; what the values of gradients are plays no part in memory. On two
real GPUs the same two cases (../shared/oracle/memory_two.jsonl, two.x2.fsdp*) gave the peaks that this gives: the first lines of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu_memory_cases import MODELS

TWO, ONE = {"version": 2}, {"version": 1}
AMP: dict[str, Any] = {
    "optim": "adamw_torch_fused",
    "bf16": True,
    "learning_rate": 1e-5,
    "fsdp": "full_shard auto_wrap",
    "model_init": {"dtype": "float32"},
}
PURE = {**AMP, "bf16": False, "model_init": {"dtype": "bfloat16"}}
LORA = {"r": 16, "target_modules": "all-linear"}
LAUNCHED: dict[str, Any] = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "FSDP",
    "mixed_precision": "bf16",
    "num_machines": 1,
}
WRAPPED = {"fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}


def _launched(**fsdp: Any) -> dict[str, Any]:
    """Return what `accelerate config` writes; the keys of fsdp_config without their prefix."""
    section = {**WRAPPED, **{f"fsdp_{key}": value for key, value in fsdp.items()}}
    return {**LAUNCHED, "fsdp_config": section, "model_init": {"dtype": "float32"}}


# (model, arguments, or the file of `accelerate launch`, processes, batch, tokens)
CASES: list[tuple[str, dict[str, Any], int, int, int]] = [
    ("qwen3-0.6b", {**AMP, "fsdp_config": TWO}, 2, 2, 512),
    ("qwen3-0.6b", {**AMP, "fsdp_config": ONE}, 2, 2, 512),
    ("qwen3-0.6b", {**AMP, "fsdp_config": TWO}, 2, 1, 64),
    ("qwen3-0.6b", {**AMP, "fsdp_config": ONE}, 2, 1, 64),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": TWO}, 4, 1, 64),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": ONE}, 4, 1, 64),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": {**TWO, "reshard_after_forward": False}}, 8, 1, 128),
    ("llama-1.7b-untied", {**AMP, "fsdp": "shard_grad_op auto_wrap", "fsdp_config": ONE}, 8, 1, 128),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": {**TWO, "activation_checkpointing": True}}, 8, 4, 1024),
    ("llama-1.7b-untied", {**AMP, "gradient_checkpointing": True, "fsdp_config": TWO}, 8, 4, 1024),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": {**ONE, "activation_checkpointing": True, "backward_prefetch": "backward_pre"}}, 8, 4, 1024),
    ("llama-1.7b-untied", {**PURE, "fsdp_config": TWO}, 4, 2, 512),
    ("llama-1.7b-untied", {**PURE, "fsdp_config": ONE}, 4, 2, 512),
    ("llama-1.7b-untied", {**AMP, "model_init": {"dtype": "bfloat16"}, "optim": "adamw_torch", "fsdp_config": TWO}, 2, 1, 128),
    ("qwen3-0.6b", {**AMP, "gradient_accumulation_steps": 2, "fsdp_config": TWO}, 2, 1, 128),
    ("qwen3-0.6b", {**AMP, "gradient_accumulation_steps": 2, "fsdp_config": ONE}, 2, 1, 128),
    ("llama-1.7b-untied", {**AMP, "fsdp": "full_shard auto_wrap offload", "fsdp_config": TWO}, 4, 1, 512),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": TWO, "model_init": {"dtype": "bfloat16", "peft_config": LORA}}, 4, 2, 512),
    ("gemma3-1b", {**AMP, "fsdp_config": TWO}, 3, 1, 512),
    ("gpt2-large", {**AMP, "fsdp_config": ONE}, 8, 2, 512),
    ("gpt2-large", {**AMP, "fsdp_config": TWO}, 8, 2, 512),
    # The cases above were used while the prediction was made, those below were predicted before they were measured.
    ("pythia-1b", {**AMP, "fsdp_config": TWO}, 2, 2, 512),
    ("mistral-window", {**AMP, "fsdp_config": {**TWO, "activation_checkpointing": True}}, 8, 1, 4096),
    ("phi3-window", {**AMP, "fsdp_config": ONE}, 4, 1, 1024),
    ("opt-1.3b", {**AMP, "fsdp_config": TWO}, 4, 2, 256),
    ("starcoder2-1b", {**AMP, "fsdp_config": TWO}, 16, 1, 1024),
    ("qwen3-0.6b", {**AMP, "gradient_accumulation_steps": 4, "fsdp_config": {**TWO, "reshard_after_forward": False}}, 4, 1, 256),
    ("llama-1.7b-untied", {**PURE, "gradient_accumulation_steps": 2, "fsdp_config": {**ONE, "backward_prefetch": "backward_pre"}}, 4, 1, 512),
    ("mistral-window", {**AMP, "fsdp_config": {**TWO, "activation_checkpointing": True},
                        "model_init": {"dtype": "bfloat16", "peft_config": LORA}}, 8, 2, 2048),
    ("qwen3-0.6b", {**AMP, "optim": "sgd", "fsdp_config": TWO}, 4, 1, 128),
    ("llama-1.7b-untied", {**AMP, "optim": "adamw_torch", "fsdp": "full_shard auto_wrap offload",
                           "fsdp_config": {**TWO, "activation_checkpointing": True}}, 8, 2, 1024),
    ("gemma3-1b", {**AMP, "optim": "adamw_torch", "fsdp_config": ONE}, 8, 1, 256),
    ("qwen2-moe", {**AMP, "fsdp_config": TWO}, 4, 1, 256),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": {**ONE, "transformer_layer_cls_to_wrap": ["LlamaMLP", "LlamaAttention"]}}, 4, 1, 256),
    ("llama-1.7b-untied", {**AMP, "fsdp_config": {**TWO, "transformer_layer_cls_to_wrap": ["LlamaMLP"]}}, 4, 1, 256),
    # Files of `accelerate launch`
    ("llama-1.7b-untied", _launched(version=2, reshard_after_forward=True), 4, 1, 512),
    ("llama-1.7b-untied", _launched(version=2, activation_checkpointing=True, offload_params=True), 8, 2, 1024),
    ("qwen3-0.6b", _launched(sharding_strategy="FULL_SHARD", backward_prefetch="BACKWARD_PRE"), 4, 2, 256),
    ("qwen3-0.6b", _launched(version=2, reshard_after_forward=False, transformer_layer_cls_to_wrap="Qwen3DecoderLayer"), 8, 1, 512),
    ("gpt2-large", _launched(), 4, 1, 512),
]  # fmt: skip


def main() -> int:
    """Predict on any machine, measure on one with a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predict", type=Path)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--case", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=6)
    options = parser.parse_args()
    if options.case is not None:
        return _run(*CASES[options.case])
    return _predict(options.predict, options.first) if options.predict is not None else _measure(options.measure, options.jobs)


def _name(number: int) -> str:
    model, arguments, world, batch, tokens = CASES[number]
    config = arguments["fsdp_config"]
    if "distributed_type" in arguments:
        parts = ["accelerate launch", model, f"{world} processes", f"{batch} x {tokens}"]
        return ", ".join(parts + [f"{key} {value}" for key, value in config.items() if key not in WRAPPED])
    parts = [f"FSDP{config['version']}", model, f"{world} processes", f"{batch} x {tokens}"]
    parts += [word for word in str(arguments["fsdp"]).split() if word in ("shard_grad_op", "offload")]
    parts += [f"{key} {value}" for key, value in config.items() if key != "version"]
    parts += ["bf16 alone"] if not arguments["bf16"] else []
    parts += [key for key in ("gradient_checkpointing", "gradient_accumulation_steps") if key in arguments]
    parts += ["LoRA"] if "peft_config" in arguments["model_init"] else []
    return ", ".join(parts)


def _predict(out: Path, first: int) -> int:
    from llmdoctor.core.errors import QuestionError
    from llmdoctor.mem.options import MemOptions
    from llmdoctor.mem.predictor import Predictor

    out.mkdir(parents=True, exist_ok=True)
    with (out / "predictions.jsonl").open("w") as file:
        for number, (model, arguments, world, batch, tokens) in list(enumerate(CASES))[first:]:
            (out / model).mkdir(exist_ok=True)
            (out / model / "config.json").write_text(json.dumps(MODELS[model]))
            path = out / f"case-{number:02d}.json"
            launched = "distributed_type" in arguments
            path.write_text(json.dumps({**arguments, **({"num_processes": world} if launched else {"per_device_train_batch_size": batch})}))
            row: dict[str, Any] = {"case": number, "name": _name(number)}
            try:
                predictor = Predictor(
                    MemOptions(model=str(out / model), strategy=(str(path),), seq_len=tokens, world_size=world, batch=batch)
                )
                prediction = predictor.estimate(predictor.strategy(str(path))).prediction
                phases = {name: moment.total for name, moment in prediction.phases.items()}
                row |= {"peak": prediction.peak.total, "steady": prediction.steady.total, "phases": phases}
            except QuestionError as error:
                row["refused"] = str(error)
            file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    return 0


def _measure(out: Path, jobs: int) -> int:
    predicted = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]

    def one(row: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        command = [sys.executable, __file__, "--case", str(row["case"])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        found = json.loads(lines[-1][7:]) if lines else {"failed": " ".join((done.stderr or done.stdout)[-700:].split())}
        return {**row, "measured": found, "seconds": round(time.time() - began)}

    lines = ["| case | predicted peak | measured | error | steady error |", "|---|---|---|---|---|"]
    with (out / "measured.jsonl").open("w") as file, ThreadPoolExecutor(jobs) as pool:
        for row in pool.map(one, predicted):
            file.write(json.dumps(row) + "\n")
            file.flush()
            lines.append(_line(row))
            print(lines[-1], row["measured"], flush=True)
    (out / "table.md").write_text("\n".join(lines) + "\n")
    return 0


def _line(row: dict[str, Any]) -> str:
    found = row["measured"]
    if "peak" not in found or "peak" not in row:
        return f"| {row['name']} | {row.get('peak', row.get('refused'))} | {found.get('peak', found.get('failed'))} | | |"
    errors = [100 * (row[key] / found[key] - 1) for key in ("peak", "steady")]
    return f"| {row['name']} | {row['peak'] / 1e9:.3f} GB | {found['peak'] / 1e9:.3f} GB | {errors[0]:+.2f}% | {errors[1]:+.2f}% |"


def _run(model: str, arguments: dict[str, Any], world: int, batch: int, tokens: int) -> int:
    """Run one case: three steps of the Trainer as rank 0 of `world` processes."""
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"})
    sys.modules["deepspeed"] = None  # type: ignore[assignment]
    import tempfile

    import torch
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.cuda.set_device(0)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    given = {key: value for key, value in arguments.items() if key != "model_init"}
    if "distributed_type" in arguments:
        given = {"bf16": True, "learning_rate": 1e-5}
        _launch({key: value for key, value in arguments.items() if key != "model_init"}, world)
    config = AutoConfig.for_model(**MODELS[model])
    made = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, arguments["model_init"]["dtype"]))
    made.config.use_cache = False
    if "peft_config" in arguments["model_init"]:
        from peft import LoraConfig, get_peft_model

        made = get_peft_model(made, LoraConfig(**arguments["model_init"]["peft_config"]))
    marks: list[list[Any]] = []

    class Marks(TrainerCallback):  # type: ignore[misc]
        """What is held at the end of each step, and the largest moment since the mark before."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            mark("step_end")

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            mark("pre_opt")

    def mark(what: str) -> None:
        torch.cuda.synchronize()
        marks.append([what, torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()])
        torch.cuda.reset_peak_memory_stats()

    class Marked(Trainer):  # type: ignore[misc]
        """The Trainer, with a mark before and after each forward."""

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            mark("fwd_start")
            out = super().compute_loss(*args, **kwargs)
            mark("fwd_end")
            return out

    row = {"input_ids": torch.ones(tokens, dtype=torch.int64), "labels": torch.ones(tokens, dtype=torch.int64)}
    steps = 3
    with tempfile.TemporaryDirectory() as folder:
        trainer = Marked(
            made,
            TrainingArguments(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, report_to=[], save_strategy="no", logging_strategy="no",
                disable_tqdm=True, remove_unused_columns=False, **given,
            ),
            train_dataset=[row] * (batch * world * steps * 8), callbacks=[Marks()],
        )  # fmt: skip
        trainer.train()
    ends = [place for place, one in enumerate(marks) if one[0] == "step_end"]
    later = marks[ends[0] + 1 : ends[2] + 1]
    found = {"peak": max(one[2] for one in later), "steady": marks[ends[1]][1], "marks": marks[ends[0] + 1 : ends[1] + 1],
             "wrapped": type(trainer.model_wrapped).__name__}  # fmt: skip
    print("RESULT " + json.dumps(found), flush=True)
    return 0


def _launch(file: dict[str, Any], world: int) -> None:
    """Set the environment that accelerate's own launcher makes of its file."""
    import tempfile

    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accelerate.json"
        path.write_text(
            json.dumps(
                {**file, "num_processes": world, "machine_rank": 0, "main_training_function": "main", "use_cpu": False, "debug": False}
            )
        )
        arguments = launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
        made = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    os.environ.update({name: value for name, value in made.items() if name.startswith(("FSDP_", "ACCELERATE_"))})


if __name__ == "__main__":
    sys.exit(main())
