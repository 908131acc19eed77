"""How long `mask inspect` takes, by length, and beside it what the library needs for the same answer.

    python benchmarks/mask.py [--library] [--slow]

The whole command, its picture included, for a Llama-70B-shaped config from 4k to 1M tokens: seconds and peak megabytes; and, without start-up,
the exponent of a straight line through the logarithms (S log S over this span is 1.09). `--library` adds transformers'
create_causal_mask under eager at 16k
and its AttentionMaskVisualizer at 1k tokens in the same run; `--slow` the visualizer at 4k. Exit 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "dtype": "bfloat16",
}  # fmt: skip
LENGTHS = (2**12, 2**14, 2**16, 2**17, 2**18, 2**20)
LIMITS = {2**17: (2.0, 1000.0), 2**20: (5.0, math.inf)}  # seconds, megabytes
MEASURED = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
LIBRARY = """
import resource, time, torch
torch.set_num_threads(2)
from transformers import LlamaConfig
from transformers.masking_utils import create_causal_mask
config = LlamaConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=1)
config._attn_implementation = "eager"
embeds = torch.zeros(1, 16384, 64)
start = time.perf_counter()
create_causal_mask(config, embeds, None, None)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""
VISUALIZER = """
import contextlib, io, json, os, resource, sys, time
length, folder = int(sys.argv[1]), sys.argv[2]
from transformers.utils.attention_visualizer import AttentionMaskVisualizer
shown = AttentionMaskVisualizer(folder)
out = io.StringIO()
start = time.perf_counter()
with contextlib.redirect_stdout(out):
    shown(" ".join(["a"] * length))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, len(out.getvalue()) / 1e6)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", action="store_true")
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        seconds = {}
        print("   tokens   seconds    MB   the whole command with its picture, four backends, best of 3")
        for length in LENGTHS:
            seconds[length], megabytes = command(folder, length)
            most_seconds, most_megabytes = LIMITS.get(length, (math.inf, math.inf))
            held = seconds[length] <= most_seconds and megabytes <= most_megabytes
            missed |= not held
            limit = f"{'ok  ' if held else 'MISS'} at most {most_seconds:g} s, {most_megabytes:g} MB" if length in LIMITS else ""
            print(f"{length:9,} {seconds[length]:9.2f} {megabytes:5.0f}   {limit}")
        inside, ceiling = exponent(in_process(folder)), exponent({length: length * math.log(length) for length in LENGTHS})
        missed |= inside > ceiling
        print(f"exponent {inside:.2f} from 4k to 1M of the report and its text, start-up left out; S log S has {ceiling:.2f}")
        if options.library or options.slow:
            library(folder, seconds, slow=options.slow)
    return int(missed)


def command(folder: str, length: int) -> tuple[float, float]:
    """(best seconds of three, megabytes) of one command in a process of its own."""
    arguments = [sys.executable, "-m", "llmdoctor", "mask", "inspect", folder, "--shape", f"1,{length}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    best, peak = math.inf, 0.0
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, check=True, env=environment)
        best = min(best, time.perf_counter() - start)
        peak = int(done.stdout) * (1024 if sys.platform != "darwin" else 1) / 1e6
    return best, peak


def in_process(folder: str) -> dict[int, float]:
    """Best seconds of five, in this process, of the report and its text: what is left when nothing has to start."""
    sys.path.insert(0, str(ROOT))
    from llmdoctor.mask.inspect import inspect_report
    from llmdoctor.mask.options import MaskInspectOptions
    from llmdoctor.report import Style, render

    best = dict.fromkeys(LENGTHS, math.inf)
    for _ in range(5):
        for length in LENGTHS:
            start = time.perf_counter()
            render(inspect_report(MaskInspectOptions(model=folder, shape=f"1,{length}")), "text", Style())
            best[length] = min(best[length], time.perf_counter() - start)
    return best


def exponent(seconds: dict[int, float]) -> float:
    """The slope of a least-squares line through the logarithms."""
    points = [(math.log(length), math.log(each)) for length, each in seconds.items() if each > 0]
    mean_x, mean_y = (sum(point[axis] for point in points) / len(points) for axis in (0, 1))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def library(folder: str, seconds: dict[int, float], *, slow: bool) -> None:
    taken, megabytes = map(float, subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, check=True).stdout.split())
    print(
        f"create_causal_mask, eager, 16k: {taken:.2f} s and {megabytes:.0f} MB beyond its imports: {taken / seconds[2**14]:.1f} x the whole command"
    )
    model = visualizer_model(Path(folder) / "tiny")
    for length in (1024, 4096) if slow else (1024,):
        done = subprocess.run([sys.executable, "-c", VISUALIZER, str(length), str(model)], capture_output=True, check=False)
        if done.returncode:
            print(f"AttentionMaskVisualizer at {length}: {done.stderr.decode().strip().splitlines()[-1][:120]}")
            continue
        taken, megabytes, text = map(float, done.stdout.split())
        print(f"AttentionMaskVisualizer, {length} tokens: {taken:.1f} s, {megabytes:.0f} MB, {text:.1f} MB of text: "
              f"{taken / seconds[2**12]:.0f} x the whole command at 4,096")  # fmt: skip


def visualizer_model(path: Path) -> Path:
    """A tiny llama with a tokenizer of one word, which is all that the visualizer can be given without a network."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    LlamaConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=8, architectures=["LlamaForCausalLM"]
    ).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<unk>").save_pretrained(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
