"""Runs one case of `mem measure MODEL` in a process of its own: random weights, the real Trainer or the real DeepSpeed engine.

python -m llmdoctor.mem.live.worker CASE.json      the records go to the folder that CASE.json names, one file per rank
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llmdoctor.attach.patches import Patches
from llmdoctor.attach.records import PartFile
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.batch import base_workload
from llmdoctor.mem.live.probe import Probe, watch_deepspeed, watch_torch
from llmdoctor.mem.live.real_model import real_model
from llmdoctor.mem.measured import SCHEMA
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predict import workload_of
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.workload import Workload

REFUSED = 2


def main(argv: list[str]) -> int:
    """Run one case; return 0, or 2 with a record that gives the reason if it cannot be run."""
    case = json.loads(Path(argv[1]).read_text())
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    sink = PartFile(case["folder"])

    def write(kind: str, **fields: Any) -> None:
        sink.write({"schema": SCHEMA, "kind": kind, "strategy": case["strategy"], "rank": rank, "world_size": world, **fields})

    names = {entry.name for entry in fields(MemOptions)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in case["options"].items() if name in names
    }
    options = MemOptions(**given)
    probe = Probe(write, at=tuple(case["at"]), resets=True)
    try:
        _run(options, case["strategy"], case["steps"], probe)
    except QuestionError as error:
        write("refused", message=str(error))
        return REFUSED
    except Exception as error:  # noqa: BLE001 what a real run can raise is a result
        write("failed", outcome=_outcome(error), message=" ".join(str(error).split())[:500], phase=probe.phase, step=probe.step)
        return 0
    write("finished", steps=probe.step, versions=_versions())
    return 0


def _outcome(error: Exception) -> str:
    import torch

    return "out_of_memory" if isinstance(error, torch.OutOfMemoryError | MemoryError) else type(error).__name__


def _versions() -> dict[str, str]:
    out: dict[str, str] = {}
    for name in ("torch", "transformers", "accelerate", "deepspeed"):
        if sys.modules.get(name) is not None:
            out[name] = str(getattr(importlib.import_module(name), "__version__", "?"))
    return out


def _run(options: MemOptions, text: str, steps: int, probe: Probe) -> None:
    import torch

    predictor = Predictor(options)
    strategy = predictor.strategy(text)
    if strategy.fsdp is not None:
        raise QuestionError(f"{text}: FSDP is not run here: measure your own script with `mem measure -- torchrun ... train.py`")
    if strategy.documents is not None:
        raise QuestionError(f"{text}: packed batches are not run here: measure your own script with `mem measure -- python train.py`")
    if strategy.engine is None:
        # accelerate imports deepspeed wherever the package is (utils/other.py:309): a broken one must not break a run without it.
        sys.modules["deepspeed"] = None  # type: ignore[assignment]
    workload = replace(workload_of(strategy, base_workload(options, strategy, predictor.config)), attention=options.attn)
    if strategy.engine is not None or strategy.world_size > 1:
        _rendezvous()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif strategy.engine is not None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.manual_seed(0)
    model = real_model(predictor.directory.path, workload, device)
    probe.models = [model]
    patches = Patches()
    watch_torch(probe, patches)
    try:
        if strategy.entry.trainer:
            run_trainer(model, strategy, workload=workload, steps=steps, probe=probe, patches=patches)
        else:
            run_engine(model, strategy, workload=workload, steps=steps, device=device, probe=probe, patches=patches)
    finally:
        patches.undo()


def _rendezvous() -> None:
    """What a launcher sets, for a single process without one."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})


def batches(model: Any, workload: Workload) -> dict[str, Any]:
    """Return the real inputs of one micro step on the CPU."""
    import torch

    from llmdoctor.mem.live.inputs import make_inputs

    inputs = make_inputs(model, model.config, workload, torch.no_grad())
    if "pixel_values" in inputs:
        inputs["pixel_values"].normal_()
    return inputs


def run_engine(model: Any, strategy: Strategy, workload: Workload, steps: int, device: Any, probe: Probe, patches: Patches) -> None:
    """deepspeed.initialize and its three calls, as a hand-written loop has them."""
    import deepspeed
    from deepspeed.runtime import engine as module

    watch_deepspeed(probe, patches, module)
    if device.type == "cpu":
        no_compiler()
    deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
    config = {**strategy.config, "train_micro_batch_size_per_gpu": workload.batch, "steps_per_print": 10**9}
    config.pop("train_batch_size", None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    client = _client(strategy, trained)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=config, optimizer=client)
    inputs = batches(model, workload)
    for _ in range(steps * strategy.accumulation):
        batch = {name: tensor.to(device) for name, tensor in inputs.items()}
        loss = engine(**batch).loss
        engine.backward(loss)
        engine.step()
        del loss, batch
    probe.finish()


def no_compiler() -> None:
    """On a CPU DeepSpeed compiles a shared-memory all-reduce at its first start, under a lock that a killed process leaves; gloo does without."""
    backend: Any = importlib.import_module("deepspeed.comm.torch")  # deepspeed.comm has another `torch` of its own: the library
    if hasattr(backend, "build_shm_op"):
        backend.build_shm_op = lambda: None


def _client(strategy: Strategy, parameters: list[Any]) -> Any:
    if strategy.client is None:
        return None
    import torch

    name = str(strategy.client["class"]).rpartition(".")[2]
    return getattr(torch.optim, name)(parameters, **(strategy.client.get("kwargs") or {}))


def _optimizer_arguments(strategy: Strategy) -> str | None:
    """Return optim_args with those arguments that decide what is held."""
    optimizer = strategy.optimizer
    wanted = [("momentum", "0.9", optimizer.momentum), ("centered", "true", optimizer.centered)]
    return ",".join(f"{name}={value}" for name, value, given in wanted if given) or None


def run_trainer(model: Any, strategy: Strategy, workload: Workload, steps: int, probe: Probe, patches: Patches) -> None:
    """transformers.Trainer on a list of the same batch."""
    import tempfile

    import torch
    from transformers import Trainer, TrainingArguments

    if strategy.engine is not None:
        from deepspeed.runtime import engine as module

        watch_deepspeed(probe, patches, module)
        if not torch.cuda.is_available():
            no_compiler()
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="llmdoctor-mem-") as folder:
        given = {"output_dir": folder, "max_steps": steps, **_arguments(strategy, workload, cuda=cuda)}
        if workload.objective is not None:
            from llmdoctor.mem.live.trl_run import run_trl

            run_trl(model, given, workload, workload.batch * steps * strategy.accumulation, probe)
            return
        inputs = batches(model, workload)
        rows = [
            {name: tensor[row] for name, tensor in inputs.items() if name not in ("pixel_values", "image_grid_thw")}
            for row in range(workload.batch)
        ]

        def collate(items: list[Any]) -> dict[str, Any]:
            out = {name: torch.stack([item[name] for item in items]) for name in items[0]}
            return {**out, **{name: inputs[name].clone() for name in ("pixel_values", "image_grid_thw") if name in inputs}}

        client = _client(strategy, [parameter for parameter in model.parameters() if parameter.requires_grad])
        trainer = Trainer(
            model,
            TrainingArguments(**given),
            train_dataset=rows * (steps * strategy.accumulation),
            data_collator=collate,
            optimizers=(client, None),
        )
        trainer.train()
        probe.finish()


def _arguments(strategy: Strategy, workload: Workload, *, cuda: bool) -> dict[str, Any]:
    """Return the TrainingArguments that a strategy stands for."""
    return {
        "per_device_train_batch_size": workload.batch,
        "gradient_accumulation_steps": strategy.accumulation,
        "gradient_checkpointing": strategy.checkpointing,
        "max_grad_norm": strategy.clip,
        "optim_args": _optimizer_arguments(strategy),
        "weight_decay": 0.01 if strategy.optimizer.decay else 0.0,
        "optim": strategy.optimizer.name if strategy.client is None and strategy.optimizer.groups > 1 else "adamw_torch",
        "bf16": strategy.autocast == "bfloat16" or (strategy.engine is not None and strategy.dtype == "bfloat16"),
        "fp16": strategy.autocast == "float16" or (strategy.engine is not None and strategy.dtype == "float16"),
        "learning_rate": 1e-5,
        "use_liger_kernel": strategy.loss == "liger",
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "deepspeed": strategy.config or None,
        **({} if cuda or strategy.engine is None else {"ddp_backend": "gloo"}),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv))
