"""200,000 mutated inputs over every reader and command, 1,000 of them as processes, and 200 kills: tried, refused, reported, crashed, hung, slowest.

    .venv/bin/python benchmarks/reliability.py [--inputs N] [--processes N] [--kills N] [--seed N] [--workers N] [--keep DIR] [--minutes N]

The whole inputs, the mutations, other kinds of file (a FIFO, a device, a link on itself, 8 GiB of nothing) and options of no use are tests/reliability.
The same seed tries the same inputs again. A failing one is written below DIR, with its command. Of the processes a part gets a signal at a random
moment, and a part a standard stream that is closed, full or not read. The kills are tests/reliability/kills.py. Times are seconds of the processor.
Exit 1 if something crashed or hung, the slowest took 2 s, a static command took 300 MB, or a kill left a damaged file or a process.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.reliability.cases import Case  # noqa: E402
from tests.reliability.harness import Corpus, Outcome, Tally, arrange, judge, try_inputs, until, write, write_failing  # noqa: E402
from tests.reliability.kills import kill_all  # noqa: E402

LIMIT = 2.0  # seconds, of the slowest
MEMORY = 300_000_000  # bytes, of the hungriest
ALLOWED = 8 * 2**30  # bytes of address space
SIGNALS = {
    "SIGINT": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "SIGKILL": signal.SIGKILL,
    "SIGPIPE": signal.SIGPIPE,
}
STREAMS = {"stdout not read": "", "stdout closed": ">&-", "stderr closed": "2>&-", "stdin closed": "<&-", "stdout full": ">/dev/full"}
WAYS = ("whole", "whole", *SIGNALS, *STREAMS)


def main() -> int:
    """Try, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="processes that share the inputs, each with a seed of its own")
    parser.add_argument("--seed", type=int, default=20_261_130)
    parser.add_argument("--keep", type=Path, default=Path("failing"), help="where failing inputs are written")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of the clock for each of the three parts, which then try fewer")
    options = parser.parse_args()
    seconds = 60 * options.minutes
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ALLOWED, ALLOWED))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmdoctor-reliability-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        tally = in_turn(options.inputs, options.workers, options.seed, Path(folder) / "inputs", options.keep, seconds)
        middle = time.monotonic()
        processes, ways = as_processes(options.processes, options.seed, Path(folder) / "processes", options.keep, seconds)
        last = time.monotonic()
        kills = kill_all(options.kills, options.seed, Path(folder) / "kills", seconds)
    print(
        f"seed {options.seed}, {options.workers} workers, Python {sys.version.split()[0]}, {os.cpu_count()} cores with other work on them\n"
    )
    print(f"{'':14} {'tried':>8} {'refused':>8} {'reported':>8} {'crashed':>8} {'hung':>8}   slowest")
    _row("in process", tally, middle - start)
    _row("processes", processes, last - middle)
    grown, which = tally.hungriest
    print(f"{'':14} the most memory that an input took in process: {grown / 1e6:.0f} MB, {which}")
    print("\nBy command, in process:\n")
    for name, counts in sorted(tally.by_command.items()):
        print(f"{name:14} {_counts(counts)}")
    print("\nProcesses:\n")
    for name, counts in sorted(ways.items()):
        print(f"{name:14} {_counts(counts)}")
    print("\nKills at random moments:\n")
    for name, found in sorted(kills.items()):
        print(
            f"{name:14} {found.killed:4} killed, {found.ended:4} had ended; {len(found.faults)} damaged files, unreadable traces or processes left"
        )
        print("".join(f"    {fault}\n" for fault in found.faults[:5]), end="")
    for tried, outcome in [*tally.failed, *processes.failed][:20]:
        print(f"\n{tried}\n    {outcome.fault[:300]}")
    bad = any(each.counts["crashed"] + each.counts["hung"] or each.slowest[0][0] >= LIMIT for each in (tally, processes) if each.slowest)
    bad = bad or grown >= MEMORY or any(found.faults for found in kills.values())
    print(
        f"\n{'MISS' if bad else 'ok'}: nothing crashed, nothing hung, the slowest under {LIMIT:g} s, memory under 300 MB, no damage by kills"
    )
    return int(bad)


def in_turn(count: int, workers: int, seed: int, scratch: Path, keep: Path, seconds: float) -> Tally:
    """All inputs, one after another in this process, or an equal share in each of several."""
    if workers == 1:
        return try_inputs(count, seed, scratch, keep, _progress, seconds=seconds)
    total = Tally()
    with ProcessPoolExecutor(workers) as pool:
        shares = [
            pool.submit(try_inputs, count // workers, seed + place, scratch / str(place), keep, _progress, seconds=seconds)
            for place in range(workers)
        ]
        for share in shares:
            total.add(share.result())
    return total


def _progress(number: int, tally: Tally) -> None:
    print(f"\r{number:,} tried, {len(tally.failed)} failed", end="", file=sys.stderr, flush=True)


def _row(name: str, tally: Tally, seconds: float) -> None:
    slowest, what = tally.slowest[0] if tally.slowest else (0.0, "")
    print(f"{name:14} {_counts(tally.counts)}   {slowest:.2f} s; all of it took {seconds:.0f} s\n{'':14} the slowest: {what}")


def _counts(counts: Counter[str]) -> str:
    return f"{sum(counts.values()):8,} " + " ".join(f"{counts[name]:8,}" for name in ("refused", "reported", "crashed", "hung"))


def as_processes(count: int, seed: int, scratch: Path, keep: Path, seconds: float) -> tuple[Tally, dict[str, Counter[str]]]:
    """Inputs as a person has them: a process each, two at a time. Also what the one process leaves out, parquet and a hungry template."""
    corpus, tally, ways = Corpus(seed + 1, live=False), Tally(), dict[str, Counter[str]]()
    choice = random.Random(seed)
    corpus.groups.append(_only_processes())
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "80", "HF_HUB_OFFLINE": "1", "LLMDOCTOR_DEBUG": ""}
    for number in until(count, seconds):
        tried, way, delay = corpus.next(number), choice.choice(WAYS), choice.uniform(0.05, 0.6)
        folder = scratch / str(number)
        folder.mkdir(parents=True)
        os.chdir(folder)
        write({**tried.case.files, **tried.changed})
        arrange(tried)
        outcome = _process(tried.command, way, delay, env)
        os.chdir(scratch)
        before = tally.counts.copy()
        tally.note(tried, outcome)
        ways.setdefault(way, Counter()).update(tally.counts - before)
        if outcome.fault:
            write_failing(tried, outcome, keep / f"process-{seed}-{number}")
    os.chdir(ROOT)
    return tally, ways


def _process(command: tuple[str, ...], way: str, delay: float, env: dict[str, str]) -> Outcome:
    arguments = [sys.executable, "-m", "llmdoctor", *(word.replace("\0", "") for word in command)]
    if STREAMS.get(way):
        arguments = ["bash", "-c", f'exec "$@" {STREAMS[way]}', "-", *arguments]
    read, written = os.pipe() if way == "stdout not read" else (-1, subprocess.PIPE)
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.PIPE, env=env)
    if read >= 0:
        os.close(read)
        os.close(written)
    if way in SIGNALS:
        time.sleep(delay)
        process.send_signal(SIGNALS[way])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Outcome(-9, "", "", 60.0, "hung")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    texts = [(data or b"").decode("utf-8", "surrogateescape") for data in (out, err)]
    outcome = Outcome(process.returncode, texts[0], texts[1], after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    # Before main() runs, Python answers a Ctrl-C with a traceback of its own.
    ended = way in SIGNALS and process.returncode in (130, -SIGNALS[way], 1)
    if not ended or ", in entry" in texts[1]:
        outcome.fault = judge((*command, "json") if way in STREAMS and not outcome.out else command, outcome)
    return outcome


def _only_processes() -> list[Case]:
    rules = ROOT / "tests" / "rules" / "DIR009" / "bad"
    hungry = {f"model/{path.name}": path.read_bytes() for path in sorted(rules.iterdir())}
    cases = [Case("hungry template", hungry, ("model/generation_config.json",), (("gencfg", "check", "model"),))]
    try:
        import io

        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return cases
    out = io.BytesIO()
    table = pyarrow.Table.from_pylist(
        [{"token_ids": [5, 6, 11], "finish_reason": "stop"}, {"token_ids": [9] * 40, "finish_reason": "length"}]
    )
    pyarrow.parquet.write_table(table, out)
    return [*cases, Case("parquet", {"outputs.parquet": out.getvalue()}, ("outputs.parquet",), (("gencfg", "runaway", "outputs.parquet"),))]


if __name__ == "__main__":
    sys.exit(main())
