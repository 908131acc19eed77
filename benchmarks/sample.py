"""Numbers of `sample`: ratios within one run, against transformers' processors and softmax, numpy's searchsorted, a bare pass over the file.

python benchmarks/sample.py [--steps 4096] [--only filters|draws|replay]   (torch and transformers for the filters)
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llmdoctor.sample.draws import draw, draw_counts, generator
from llmdoctor.sample.stages import run
from llmdoctor.sample.tables import TRANSFORMERS
from llmdoctor.sample.types import SamplingParams

VOCAB = 151_936
FAILED: list[str] = []


def usual(work: Callable[[], object], times: int) -> float:
    """The median of several runs, in seconds: torch's sort of a masked row is now and then ten times as fast as it usually is."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return sorted(spent)[len(spent) // 2]


def say(name: str, ratio: float, least: float, more: str, at_most: bool = False) -> None:
    """One line, with whether the bound holds."""
    good = ratio <= least if at_most else ratio >= least
    if not good:
        FAILED.append(name)
    print(f"{'ok  ' if good else 'MISS'} {name:<46} {ratio:8.2f} x ({'at most' if at_most else 'at least'} {least:g})   {more}", flush=True)


def normal_rows(count: int) -> np.ndarray:
    return (4 * np.random.default_rng(0).standard_normal((count, VOCAB))).astype(np.float32)


def zipf_rows(count: int) -> np.ndarray:
    """Logits falling with the logarithm of the rank, as language models' do, with noise, in random order."""
    random = np.random.default_rng(0)
    ranks = np.log(np.arange(1, VOCAB + 1))
    rows = -(random.uniform(1.0, 2.5, (count, 1)) * ranks) + 0.5 * random.standard_normal((count, VOCAB))
    return random.permuted(rows, axis=1).astype(np.float32)


def filters() -> None:
    """The filter chain with and without k, batch 1 and 64, on both row sets."""
    import torch
    from transformers.generation.logits_process import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; V = {VOCAB:,}")
    bounds = {(50, 1): 25.0, (50, 64): 20.0, (None, 1): 40.0, (None, 64): 4.0}
    for name, make in (("4 x N(0,1)", normal_rows), ("Zipf-like", zipf_rows)):
        rows = make(64)
        for k in (50, None):
            settings = SamplingParams(top_k=k, top_p=0.9)
            warpers = LogitsProcessorList([*([TopKLogitsWarper(k)] if k else []), TopPLogitsWarper(0.9)])
            for batch in (1, 64):
                tensor = torch.from_numpy(rows[:batch])
                theirs = usual(lambda t=tensor, w=warpers: torch.softmax(w(None, t), -1), 3 if batch == 64 else 7)
                mine = usual(lambda r=rows[:batch], s=settings: [chain(s, row) for row in r], 3 if batch == 64 else 15)
                probs = torch.softmax(warpers(None, tensor), -1).numpy()
                kept = [chain(settings, row)[0] for row in rows[:batch]]
                same = sum(np.array_equal(np.flatnonzero(p), ids) for p, ids in zip(probs, kept, strict=True))
                sizes = [len(ids) for ids in kept]
                what = f"{name}, {'k 50, ' if k else ''}p .9, batch {batch}"
                more = f"{1e3 * theirs:.1f} ms / {1e3 * mine:.2f} ms, nucleus {min(sizes)}-{max(sizes)}, support equal in {same} of {batch}"
                say(what, theirs / mine, bounds[k, batch], more)
                if same != batch:
                    FAILED.append(f"{what}: support")


def chain(settings: SamplingParams, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that are left and their probabilities."""
    last = run(TRANSFORMERS, settings, row)[-1].row
    e, total = last.weights()
    return last.tokens(), e / np.float32(total)


def draws() -> None:
    """A million draws from one distribution, and their counts alone."""
    count = 1_000_000
    for name, make in (("4 x N(0,1)", normal_rows), ("Zipf-like", zipf_rows)):
        row = make(1)[0].astype(np.float64)
        probs = np.exp(row - row.max())
        probs /= probs.sum()

        def plain(probs: np.ndarray = probs) -> np.ndarray:
            cumulated = np.cumsum(probs)
            return np.searchsorted(cumulated / cumulated[-1], generator(1).random(count), "right")

        theirs = usual(plain, 5)
        mine = usual(lambda p=probs: draw(p, count, generator(1)), 5)
        only = usual(lambda p=probs: draw_counts(p, count, generator(1)), 5)
        equal = np.array_equal(plain(), draw(probs, count, generator(1)))
        say(f"{name}, 1,000,000 draws", theirs / mine, 1.0, f"{1e3 * theirs:.0f} ms / {1e3 * mine:.0f} ms, the same tokens: {equal}")
        say(f"{name}, counts only", theirs / only, 5.0, f"{1e3 * only:.1f} ms")


def replay(steps: int) -> None:
    """The per-step table from a file, against reading it and one float32 log-sum-exp a row; memory in a process of its own."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_TMP")) as folder:
        path = Path(folder) / "logits.npy"
        file = np.lib.format.open_memmap(path, "w+", np.float32, (steps, VOCAB))
        for start in range(0, steps, 64):
            file[start : start + 64] = zipf_rows(min(64, steps - start))
        file.flush()
        tokens = [int(file[step].argmax()) for step in range(steps)]
        np.save(Path(folder) / "tokens.npy", np.array(tokens))
        del file
        for parts in (["table"], ["estimates"]):
            done = subprocess.run([sys.executable, __file__, "--worker", parts[0], folder], capture_output=True, text=True, check=False)
            print(done.stdout.strip() or done.stderr[-800:])
            if "MISS" in done.stdout or done.returncode:
                FAILED.append(f"replay {parts[0]}")


def worker(part: str, folder: str) -> None:
    """One part of the replay, timed; its peak memory without the mapped file is printed."""
    from llmdoctor.sample.claim import Claim
    from llmdoctor.sample.judge import run_tests
    from llmdoctor.sample.logits import open_logits
    from llmdoctor.sample.sketch import make_sketch
    from llmdoctor.sample.steps import Tolerance, replay_steps

    path = str(Path(folder) / "logits.npy")
    tokens = np.load(Path(folder) / "tokens.npy").tolist()
    claim = Claim(TRANSFORMERS, SamplingParams(temperature=0.7, top_p=0.9), "the benchmark")
    logits = open_logits(path)

    def bare() -> None:
        array = np.load(path, mmap_mode="r")
        for row in array:
            values = np.asarray(row)
            top = values.max()
            float(top + np.log(np.exp(values - top).sum()))

    if part == "table":
        theirs = usual(bare, 2)
        start = time.perf_counter()
        replay_steps(logits, tokens, claim, Tolerance(1e-4, 1e-4, ""))
        mine = time.perf_counter() - start
        more = f"{len(tokens)} steps: {theirs:.2f} s / {mine:.2f} s; {_memory()}"
        say("replay: the per-step table", mine / theirs, 4.0, more, at_most=True)
        return
    steps = replay_steps(open_logits(path), tokens, claim, Tolerance(1e-4, 1e-4, ""))
    start = time.perf_counter()
    sketch = make_sketch(logits, tokens, claim)
    made = time.perf_counter() - start
    run_tests(steps, sketch, claim)
    print(f"     replay: estimates apart: sketch {made:.2f} s, tests {time.perf_counter() - start - made:.2f} s; {_memory()}")


def _memory() -> str:
    status = Path("/proc/self/status")
    anonymous = (
        next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("RssAnon")), "0") if status.exists() else "0"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"anonymous memory {int(anonymous) / 1024:.0f} MB now, peak with the mapped file {peak:.0f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--only", choices=["filters", "draws", "replay"])
    parser.add_argument("--worker", nargs=2)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*arguments.worker)
        return 1 if FAILED else 0
    for name, work in (("filters", filters), ("draws", draws), ("replay", lambda: replay(arguments.steps))):
        if arguments.only in (None, name):
            work()
    print("every bound holds" if not FAILED else f"missed: {', '.join(FAILED)}")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
