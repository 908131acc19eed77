"""`labels audit` as a ratio to tokenizing the same texts with `tokenizers` alone, within one run.

    .venv/bin/python benchmarks/labels.py [--rows N] [--rounds N]

The model is one of tests/labels/models, the rows are conversations of two short messages. Both are whole processes from which the start of
a bare one is subtracted: a script that renders nothing and tokenizes the texts in batches of 1,000 for the one, `llmdoctor labels audit` for
the other; interleaved, the median of the rounds, in CPU seconds of all
processes (the worker that renders the template included). Exit 1 if a limit of the project is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = Path(__file__).parent.parent / "tests/labels/models/chatml_gen"
WORDS = "What is two plus four The Loire river Spain Italy capital Answer one word Name".split()
MOST_TIMES, LEAST_ROWS, MOST_MEGABYTES = 1.5, 20_000, 300
TOKENIZE = """
import json, os, sys
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
texts = [json.loads(line) for line in open(sys.argv[2])]
for start in range(0, len(texts), 1000):
    for one in tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False):
        one.ids
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=4, help="words of a message")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmdoctor-bench-") as folder:
        return _run(Path(folder), options)


def _run(folder: Path, options: argparse.Namespace) -> int:
    rows, texts, one_row, one_text = (folder / name for name in ("rows.jsonl", "texts.jsonl", "one.jsonl", "one_text.jsonl"))
    _write(rows, texts, options.rows, options.words)
    _write(one_row, one_text, 1, options.words)
    audit = [sys.executable, "-m", "llmdoctor", "labels", "audit", str(MODEL), "--trainer", "transformers-clm", "--fail-on", "never"]
    tokenize = [sys.executable, "-c", TOKENIZE, str(MODEL / "tokenizer.json")]
    commands = {
        "tokenize": [*tokenize, str(texts)],
        "tokenize one": [*tokenize, str(one_text)],
        "audit": [*audit, str(rows)],
        "audit one": [*audit, str(one_row)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            times[name].append(_seconds(command))
    median = {name: statistics.median(values) for name, values in times.items()}
    alone, audited = median["tokenize"] - median["tokenize one"], median["audit"] - median["audit one"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"rows {options.rows:,}; tokenizing alone {options.rows / alone:,.0f} rows/s; audit {options.rows / audited:,.0f} rows/s (limit {LEAST_ROWS:,})"
    )
    print(
        f"audit over tokenizing alone: {audited / alone:.2f} x (limit {MOST_TIMES}); largest process {peak:.0f} MB (limit {MOST_MEGABYTES})"
    )
    return int(audited / alone > MOST_TIMES or options.rows / audited < LEAST_ROWS or peak > MOST_MEGABYTES)


def _seconds(command: list[str]) -> float:
    """CPU seconds of a command and of the processes it started: neighbours on the machine do not count."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime


def _write(rows: Path, texts: Path, count: int, words: int) -> None:
    random.seed(0)
    with rows.open("w") as one, texts.open("w") as two:
        for _ in range(count):
            user_text, answer = (" ".join(random.choices(WORDS, k=words)) for _ in range(2))
            one.write(json.dumps({"messages": [{"role": "user", "content": user_text}, {"role": "assistant", "content": answer}]}) + "\n")
            text = f"<|im_start|>user\n{user_text}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
            two.write(json.dumps(text) + "\n")


if __name__ == "__main__":
    sys.exit(main())
