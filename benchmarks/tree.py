"""`check` over a tree of 100,000 files: peak resident memory and time, in a process of its own, against the stated bounds.

    python benchmarks/tree.py [--files N] [--dense] [--keep FOLDER]

What lies in it: JSON and YAML of other programs, chats of a data set as JSON lines, text files, Python, and every hundredth file something that
is checked (a DeepSpeed config, arguments that name it, a request, a batch), one model directory for each 5,000 files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LIMITS = {False: (128, 30), True: (800, 90)}  # MiB of resident memory, wall-clock seconds; a dense tree's 100,000 findings take 5 KiB each
MESSAGES = [{"role": "user", "content": "hello " * 20}]
DEEPSPEED = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}
REQUEST = {"model": "m", "messages": MESSAGES, "temperature": 0, "top_p": 0.9, "max_tokens": 9}
LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": REQUEST}
CONFIG = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 16, "eos_token_id": 11}


def files(count: int, dense: bool) -> Iterator[tuple[str, str]]:
    """Name and content of each file; in a `dense` tree every one is checked."""
    for number in range(count if dense else 0):
        folder, kind = f"part{number // 1000:03d}", number % 4
        yield (
            (f"{folder}/ds{number}.json", json.dumps(DEEPSPEED)),
            (f"{folder}/train{number}.yaml", f"output_dir: o\nper_device_train_batch_size: 2\ndeepspeed: ds{number - 1}.json\n"),
            (
                f"{folder}/args{number}.json",
                json.dumps({"output_dir": "o", "per_device_train_batch_size": 2, "deepspeed": f"ds{number - 2}.json"}),
            ),
            (f"{folder}/request{number}.json", json.dumps(REQUEST)),
        )[kind]
    if dense:
        return
    plain = json.dumps({"id": 1, "values": list(range(40)), "note": "nothing of ours"})
    for number in range(count):
        folder = f"part{number // 1000:03d}/{number // 50 % 20:02d}"
        if number % 5000 == 0:
            yield f"{folder}/model/config.json", json.dumps(CONFIG)
            yield f"{folder}/model/generation_config.json", json.dumps({"eos_token_id": 11, "do_sample": True, "temperature": 0.6})
        elif number % 400 == 100:
            yield f"{folder}/ds{number}.json", json.dumps(DEEPSPEED, indent=1)
        elif number % 400 == 101:
            yield (
                f"{folder}/train{number}.yaml",
                f"output_dir: o\nper_device_train_batch_size: 2\nbf16: true\ndeepspeed: ds{number - 1}.json\n",
            )
        elif number % 400 == 102:
            yield f"{folder}/request{number}.json", json.dumps(REQUEST)
        elif number % 400 == 103:
            yield f"{folder}/batch{number}.jsonl", (json.dumps(LINE) + "\n") * 50
        elif number % 20 == 7:
            yield f"{folder}/code{number}.py", "import os\n\n\ndef f(x):\n    return x + 1\n"
        elif number % 20 == 8:
            yield f"{folder}/values{number}.yaml", "services:\n  a:\n    image: b\n"
        elif number % 20 == 9:
            yield f"{folder}/chats{number}.jsonl", (json.dumps({"messages": MESSAGES}) + "\n") * 20
        elif number % 2:
            yield f"{folder}/notes{number}.txt", "text\n"
        else:
            yield f"{folder}/data{number}.json", plain


def main() -> int:
    """Make the tree, check it, print the numbers; 1 where a bound is passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--dense", action="store_true", help="every file is one that is checked")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.keep or Path(scratch)
        for name, content in files(options.files, options.dense):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "llmdoctor", "check", str(root), "--format", "json"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            check=False,
        )
        seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss / 1024
    report = json.loads(done.stdout)
    subjects, findings = len(report["result"]["subjects"]), len(report["findings"])
    print(
        f"{options.files:,} files, exit {done.returncode}: {subjects:,} subjects, {findings:,} findings, {len(report['skipped'])} skipped"
    )
    most_rss, most_time = LIMITS[options.dense]
    rss_ok, time_ok = peak <= most_rss, seconds <= most_time
    print(f"{'ok  ' if rss_ok else 'OVER'} peak resident memory of a process  {peak:.0f} MiB (at most {most_rss})")
    print(
        f"{'ok  ' if time_ok else 'OVER'} wall clock  {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU (at most {most_time} s)"
    )
    return 0 if rss_ok and time_ok else 1


if __name__ == "__main__":
    sys.exit(main())
