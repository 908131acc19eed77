"""What watching a training run costs: the same small training loop with the probe attached and without it, in pairs.

    python benchmarks/memory_attach.py [--pairs 7] [--steps 120] [--width 768]

CPU seconds of the loop's own steps after the one whose tensors are listed (step 2), on one thread, in processes of their own. Prints the median of
the pairs' ratios; at most 1.03. Exit 1 where it is larger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LOOP = """
import sys, time, torch
torch.set_num_threads(1)
steps, width = int(sys.argv[1]), int(sys.argv[2])
model = torch.nn.Sequential(*[layer for _ in range(8) for layer in (torch.nn.Linear(width, width), torch.nn.GELU())])
optimizer = torch.optim.AdamW(model.parameters())
batch = torch.randn(64, width)
for step in range(steps):
    if step == 3:
        start = time.process_time()
    model(batch).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
print((time.process_time() - start) / (steps - 3))
"""


def main() -> int:
    """Print the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--width", type=int, default=768)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmdoctor-bench-") as folder:
        script = Path(folder, "loop.py")
        script.write_text(LOOP)
        plain = [sys.executable, str(script), str(options.steps), str(options.width)]
        watched = [sys.executable, "-m", "llmdoctor", "mem", "measure", "-o", str(Path(folder, "run.jsonl")), "--", *plain]
        pairs = []
        for number in range(options.pairs):
            order = (plain, watched) if number % 2 else (watched, plain)
            seconds = {id(command): _seconds(command) for command in order}
            pairs.append((seconds[id(plain)], seconds[id(watched)]))
    ratio = statistics.median(after / before for before, after in pairs)
    step = 1000 * statistics.median(before for before, _ in pairs)
    verdict = "ok  " if ratio <= 1.03 else "MISS"
    print(
        f"{verdict} a watched step takes {ratio:.4f} of a plain one's CPU time (at most 1.03); {options.pairs} pairs, a step is {step:.1f} ms"
    )
    return 0 if ratio <= 1.03 else 1


def _seconds(command: list[str]) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
