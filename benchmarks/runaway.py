"""`gencfg runaway` on recorded outputs, as a ratio to parsing the same file with orjson, within one run; and its peak memory.

    .venv/bin/python benchmarks/runaway.py [--sequences N] [--tokens N] [--rounds N] [--keep FILE]

The file has lines {"token_ids": [...], "finish_reason": ..., "max_tokens": ...} with ids as large as a Qwen2's: half of the rows stop, a
quarter pass the terminator, a quarter run out in a loop. Both are whole processes from which the start of a bare one is subtracted:
`python -c pass` with orjson imported for the one, `llmdoctor gencfg runaway` on an empty file for the other; interleaved, the median of the
rounds. Exit 1 where a limit of the project is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARSE = "import orjson, sys\nfor line in open(sys.argv[1], 'rb'): orjson.loads(line)"
END, VOCABULARY = 151645, 151643
MOST_TIMES, MOST_MEGABYTES = 3.0, 64


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="llmdoctor-bench-") as folder:
        file = options.keep or Path(folder) / "outputs.jsonl"
        if not file.exists():
            _write(file, options.sequences, options.tokens)
        empty = Path(folder) / "empty.jsonl"
        empty.touch()
        return _run(file, empty, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="write the outputs here, or use the file that is there")
    return parser.parse_args()


def _run(file: Path, empty: Path, options: argparse.Namespace) -> int:
    doctor = [sys.executable, "-m", "llmdoctor", "gencfg", "runaway", "--fail-on", "never", "--terminator", str(END)]
    parse = [sys.executable, "-c", PARSE]
    commands = {"parse": [*parse, str(file)], "bare": [*parse, str(empty)], "runaway": [*doctor, str(file)], "start": [*doctor, str(empty)]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    peaks: list[float] = []
    for _ in range(options.rounds):
        for name, command in commands.items():
            seconds, peak = _timed(command)
            times[name].append(seconds)
            if name == "runaway":
                peaks.append(peak)
    middle = {name: statistics.median(values) for name, values in times.items()}
    parsing, work = middle["parse"] - middle["bare"], middle["runaway"] - middle["start"]
    print(
        f"{options.sequences:,} sequences of {options.tokens} ids, {file.stat().st_size / 1e6:.0f} MB; orjson parses them in {parsing:.2f} s"
    )
    rows = [
        ("gencfg runaway", work / parsing, MOST_TIMES, "x orjson's time"),
        ("  with the start of its process", middle["runaway"] / parsing, MOST_TIMES, "x orjson's time"),
        ("peak memory", max(peaks), MOST_MEGABYTES, "MB"),
    ]
    for name, value, limit, unit in rows:
        print(f"{'ok  ' if value <= limit else 'MISS'} {name:<34} {value:6.2f} {unit} (at most {limit:g})")
    print(f"     {options.sequences / middle['runaway']:,.0f} sequences a second")
    return int(any(value > limit for _, value, limit, _ in rows))


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def _write(path: Path, sequences: int, tokens: int) -> None:
    chance = random.Random(512)
    with path.open("w") as file:
        for number in range(sequences):
            file.write(json.dumps(_row(chance, number % 4, tokens)) + "\n")


def _row(chance: random.Random, kind: int, tokens: int) -> dict[str, object]:
    ids = chance.choices(range(VOCABULARY), k=tokens)
    if kind < 2:
        ids = [*ids[:-1], END]
    elif kind == 2:
        ids[chance.randrange(tokens // 8, tokens // 2)] = END
    else:
        period = chance.randrange(1, 40)
        ids = [*ids[: tokens // 4], *ids[:period] * tokens][:tokens]
    return {"token_ids": ids, "finish_reason": "stop" if kind < 2 else "length", "max_tokens": tokens}


if __name__ == "__main__":
    sys.exit(main())
