"""One representative question a command, asked for real in this process, on inputs that are made on the spot: what screens and pages are tested on."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from llmdoctor.cli.main import main
from llmdoctor.core.report import Report
from tests.conftest import END, write_model
from tests.mask.models import write_config
from tests.mem.conftest import write_config as write_sizes

CALL = {"max_new_tokens": 512, "temperature": 1.0, "top_k": 0.0, "do_sample": True, "return_dict_in_generate": True}
V5 = ("--transformers", "5.23.0")
RECORDED = ("logits.npy", "--tokens", "tokens.json", "--claim", "claim.json")
TWO = ("--strategy", "trainer:adamw_torch,bf16", "--strategy", "deepspeed:zero2", "--static", "--gpu-memory", "1GiB")
COMMANDS: dict[str, tuple[str, ...]] = {
    "gencfg-show": ("gencfg", "show", "chat", "--config", "call.json", "--preset", "trl-ppo@1.0.0", *V5),
    "gencfg-diff": ("gencfg", "diff", "chat", "--config", "call.json", "--right-preset", "trl-ppo@1.0.0", *V5),
    "gencfg-check": ("gencfg", "check", "chat", "endless", *V5),
    "gencfg-trace": ("gencfg", "trace", "--summary", "train.jsonl"),
    "gencfg-runaway": ("gencfg", "runaway", "outputs.jsonl", "--model", "chat"),
    "mask-inspect": ("mask", "inspect", "gemma2", "--lengths", "5,8"),
    "mask-map": ("mask", "inspect", "mistral", "--shape", "1,32768"),
    "mask-test": ("mask", "test", "qwen2_vl", "--packed", "3,5", "--cache", "dynamic", "--static"),
    "mem-compare": ("mem", "compare", "llama-sized", *TWO),
    "mem-kvcache": ("mem", "kvcache", "llama-sized", "--batch", "2", "--length", "100", "--cache", "static:4096"),
    "mem-measure": ("mem", "measure", "--summary", "memory.jsonl"),
    "sample-replay": ("sample", "replay", *RECORDED),
    "sample-step": ("sample", "replay", *RECORDED, "--step", "1"),
    "sample-engines": ("sample", "engines", "--logits", "4,3,2.5,2,1,0", "--temperature", "0.7", "--top-p", "0.9"),
    "sample-draw": ("sample", "draw", "--probs", ".5,.3,.2", "--draws", "draws.json"),
    "check": ("check", "."),
    "look": ("look", "chat"),
}


# The other commands, whose JSON is held against the types; their screens have no snapshot.
MORE: dict[str, tuple[str, ...]] = {
    "gencfg-presets": ("gencfg", "presets", "trl-ppo@1.0.0"),
    "mem-fit": ("mem", "fit", "llama-sized", "--strategy", "trainer:adamw_torch,bf16", "--gpu-memory", "64GiB", "--seq-len", "64"),
    "mem-oom": ("mem", "oom", "train.log"),
    "sample-compare": ("sample", "compare", "trainer.json", "engine.json"),
    "labels-inspect": ("labels", "inspect", "tokenizer", "rows.jsonl"),
    "labels-audit": ("labels", "audit", "tokenizer", "rows.jsonl"),
    "prompt-diff": ("prompt", "diff", "tokenizer", "--messages", "messages.json"),
    "rule": ("rule", "GEN"),
    "env": ("env",),
}
OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.72 GiB is free. "
    "Including non-PyTorch memory, this process has 21.91 GiB memory in use.\n"
)


def make_inputs(folder: Path) -> None:
    """Everything that COMMANDS name."""
    write_model(folder / "chat")
    write_model(folder / "endless", generation_config={})
    (folder / "call.json").write_text(json.dumps(CALL, indent=2))
    trace = Path(__file__).parents[1] / "gencfg" / "trace" / "data" / "train.jsonl"
    (folder / "train.jsonl").write_bytes(trace.read_bytes())
    (folder / "train.py").write_text("model.generation_config.eos_token_id = None\nmodel.generate(**inputs)\n")
    for name in ("gemma2", "mistral", "qwen2_vl"):
        write_config(folder, name)
    write_sizes(folder / "llama-sized", "llama", vocab_size=32000, hidden_size=512, intermediate_size=1536, num_attention_heads=8)
    shutil.copytree(Path(__file__).parents[1] / "labels" / "models" / "chatml_pad_eos", folder / "tokenizer")
    chat = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}]
    (folder / "messages.json").write_text(json.dumps(chat[:1]))
    for side, shift in (("trainer", 0.0), ("engine", 0.4)):
        (folder / f"{side}.json").write_text(json.dumps({"logprobs": [[-0.1 * at - shift for at in range(1, 21)]] * 8}))
    (folder / "rows.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    (folder / "train.log").write_text(OUT_OF_MEMORY)
    _outputs(folder)
    _measured(folder)
    _sampled(folder)


def _outputs(folder: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [[*rng.integers(100, 5000, 20 + at).tolist(), END, *rng.integers(100, 5000, 107 - at).tolist()] for at in range(20)]
    lines = [json.dumps({"token_ids": row, "finish_reason": "length", "max_tokens": 128}) for row in rows]
    (folder / "outputs.jsonl").write_text("\n".join(lines) + "\n")


def _measured(folder: Path) -> None:
    """What `mem measure -- COMMAND` writes, of one process on a GPU."""
    held = {
        "forward": {"params": 4e9, "activations": 3e9},
        "backward": {"params": 4e9, "grads": 4e9},
        "step": {"params": 4e9, "optimizer_state": 8e9},
    }
    lines = []
    for phase, parts in held.items():
        sizes = {name: int(size) for name, size in parts.items()}
        record = {"schema": "llmdoctor.mem/1", "kind": "phase", "rank": 0, "step": 2, "device": "cuda:0", "phase": phase}
        lines.append(json.dumps({**record, "peak_bytes": sum(sizes.values()), "components": sizes}))
    (folder / "memory.jsonl").write_text("\n".join(lines) + "\n")


def _sampled(folder: Path) -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2.5, (80, 60)).astype(np.float32)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    tokens = [int(rng.choice(60, p=row / row.sum())) for row in probs]
    np.save(folder / "logits.npy", logits)
    (folder / "tokens.json").write_text(json.dumps(tokens))
    (folder / "claim.json").write_text(json.dumps({"engine": "transformers", "temperature": 1.0, "top_p": 0.7}))
    (folder / "draws.json").write_text(json.dumps([0] * 150 + [1] * 60 + [2] * 90))


def report_of(arguments: tuple[str, ...]) -> Report:
    """The report that a command comes to, taken where it would be written."""
    caught: list[Report] = []

    def take(report: Report, *_: Any, **__: Any) -> None:
        caught.append(report)

    patched = mock.patch.object(sys, "argv", ["llmdoctor", *arguments]), mock.patch("llmdoctor.cli.output.write", take)
    with patched[0], patched[1], contextlib.suppress(SystemExit):
        main()
    (report,) = caught
    assert report.error is None, report.error
    return report
