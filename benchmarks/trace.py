"""What tracing costs: a generate() of 512 tokens on the tiny Qwen2-VL, with the recorder attached and without it, in pairs of one process.

    python benchmarks/trace.py [--pairs 15]

Times are CPU seconds of the process on one thread, so that a neighbour's load is not taken for the recorder's. Prints the median of the pairs'
ratios (at most 1.03), and the recorder's cost in microseconds a call and a token: the differences of the medians with 512 new tokens and with 1,
the batch one sequence. Exit status 1 where the ratio is larger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
TOKENS, MOST = 512, 1.03


def main() -> int:
    """Time the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as scratch:
        model, inputs = load(Path(scratch, "model"))
        long = [pair(model, inputs, TOKENS, Path(scratch, "run.jsonl"), index) for index in range(pairs)]
        short = [pair(model, inputs, 1, Path(scratch, "run.jsonl"), index) for index in range(pairs)]
    ratio = statistics.median(traced / plain for plain, traced in long)
    spread = [traced / plain for plain, traced in long]
    call = statistics.median(traced - plain for plain, traced in short)
    whole = statistics.median(traced - plain for plain, traced in long)
    good = ratio <= MOST
    seconds = statistics.median(plain for plain, _ in long)
    print(
        f"unit: generate() of {TOKENS} tokens untraced, {seconds:.2f} CPU s here; {pairs} pairs, ratios {min(spread):.3f} to {max(spread):.3f}"
    )
    print(f"{'ok  ' if good else 'OVER'} traced generate(), {TOKENS} tokens          {ratio:.4f} x the unit (at most {MOST})")
    print(f"     the recorder, a call                    {call * 1e6:8.0f} us")
    print(f"     the recorder, each of {TOKENS} tokens        {max(whole - call, 0) / TOKENS * 1e6:8.2f} us")
    return int(not good)


def load(folder: Path) -> tuple[Any, Any]:
    """The tiny model without an eos, so that it always runs to the limit, and a prompt."""
    import torch
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

    from llmdoctor.demo.live.tiny_qwen2_vl import build

    torch.set_num_threads(1)
    build(folder)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None  # llmdoctor: ignore[PYC001]
    inputs = AutoTokenizer.from_pretrained(folder)("Describe this image.", return_tensors="pt")
    model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)  # what is done once only is done
    return model, inputs


def pair(model: Any, inputs: Any, tokens: int, path: Path, index: int) -> tuple[float, float]:
    """CPU seconds of one generate() untraced and traced into a file; which comes first alternates."""
    from llmdoctor.gencfg.trace.recording import recording

    def traced() -> float:
        with recording(path):
            model.generate(**inputs, do_sample=False, max_new_tokens=2)  # the recorder's own first time
            return timed(model, inputs, tokens)

    if index % 2:
        first = traced()
        return timed(model, inputs, tokens), first
    return timed(model, inputs, tokens), traced()


def timed(model: Any, inputs: Any, tokens: int) -> float:
    """CPU seconds of one generate()."""
    start = time.process_time()
    model.generate(**inputs, do_sample=False, max_new_tokens=tokens)
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
