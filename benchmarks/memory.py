"""What a prediction costs, as ratios within one run: to importing torch and transformers, and of a 70B model to a 0.5B one.

    python benchmarks/memory.py [--rounds N] [--others]

Each command is a process of its own, the smallest CPU time of the rounds counts (user and system, one thread), so that a neighbour's load is
not taken for the tool's. --others also times torch's MemTracker under FakeTensorMode on two steps of the 0.5B model. Exit 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IMPORT = ["-c", "import torch, transformers"]
SIX = (
    "trainer:adamw_torch,bf16",
    "trainer:adamw_torch_fused,amp_bf16",
    "trainer:adafactor,bf16",
    "deepspeed:zero2",
    "deepspeed:zero3",
    "deepspeed:zero2,offload",
)
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
         "vocab_size": 128256, "max_position_embeddings": 8192}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "70b": {
        **LLAMA,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "0.5b": {
        **LLAMA,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
}
TRACKER = """
import torch, sys, time
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.from_pretrained(sys.argv[1])
with FakeTensorMode(allow_non_fake_inputs=True):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    ids = torch.zeros(2, 512, dtype=torch.int64)
    with tracker:
        for _ in range(2):
            model(input_ids=ids, labels=ids, use_cache=False, position_ids=torch.arange(512)[None]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
print(tracker.get_tracker_snapshot("peak"))
"""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", action="store_true", help="also torch's MemTracker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmdoctor-bench-") as folder:
        return _run(Path(folder), options)


def _run(folder: Path, options: argparse.Namespace) -> int:
    from llmdoctor.demo.shapes import QWEN2_VL_2B

    for name, config in {**MODELS, "vl": QWEN2_VL_2B}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    six = [word for name in SIX for word in ("--strategy", name)]
    commands = {
        "import": IMPORT,
        "six": ["-m", "llmdoctor", "mem", "compare", str(folder / "vl"), *six, "--batch", "2", "-f", "json"],
        "0.5b": ["-m", "llmdoctor", "mem", "compare", str(folder / "0.5b"), "--strategy", SIX[0], "-f", "json"],
        "70b": ["-m", "llmdoctor", "mem", "compare", str(folder / "70b"), "--strategy", SIX[0], "-f", "json"],
    }
    times: dict[str, float] = {}
    memory: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, command in commands.items():
            seconds, peak = _measured(command)
            times[name] = min(seconds, times.get(name, seconds))
            memory[name] = max(peak, memory.get(name, 0.0))
    print(f"unit: importing torch and transformers, {times['import']:.2f} s of CPU here")
    good = _limit("six strategies of Qwen2-VL-2B, over the import", times["six"] / times["import"], 4.0, "x")
    good &= _limit("a 70B model, over a 0.5B one", times["70b"] / times["0.5b"], 1.5, "x")
    good &= _limit("peak resident memory of the 70B prediction", memory["70b"] / 1e9, 2.0, "GB")
    if options.others:
        seconds, _ = _measured(["-W", "ignore", "-c", TRACKER, str(folder / "0.5b")])
        print(
            f"     {'MemTracker on two fake steps of the 0.5B model':52s} {seconds / times['import']:6.2f} x the import ({seconds:.0f} s)"
        )
    return 0 if good else 1


def _limit(what: str, value: float, most: float, unit: str) -> bool:
    print(f"{'ok  ' if value <= most else 'MISS'} {what:52s} {value:6.2f} {unit} (at most {most})")
    return value <= most


def _measured(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak resident bytes of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)[:80]}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(done.stdout.split()[-1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
