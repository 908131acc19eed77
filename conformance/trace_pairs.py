"""Hold `llmdoctor gencfg trace` against the trainers of other releases: each trl with the transformers it was made for.

    python conformance/trace_pairs.py [--home DIR] [--llmdoctor COMMAND] [TRL:TRANSFORMERS[:TRAINER] ...]

Each pair gets an environment of its own (one torch for all, the rest in a folder), in which ppo_run.py runs under `trace`. Right is: the first
generate() stops at eos, the second runs to its limit past <|im_end|>, and the cause names the file of the trainer and the line on which that
release takes the policy's eos_token_id away. With stop_token="eos", where the release has it, the second one stops as well or runs past the id that
was lost, and nothing names a cause that is not there. Exit status 1 where one of it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conformance.conform import TORCH, run  # noqa: E402

PAIRS = ("0.13.0:4.49.0", "0.15.2:4.49.0", "0.24.0:4.57.6")
_TAKES = re.compile(r"(policy|model)\w*\.generation_config\.eos_token_id\s*=.*\(?")


def main() -> int:
    """Run the pairs named on the command line, else PAIRS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", metavar="TRL:TRANSFORMERS[:TRAINER]")
    parser.add_argument("--home", type=Path, default=Path("/tmp/llmdoctor-conformance"), help="where the environments are kept")
    chosen = parser.parse_args()
    failed = False
    for pair in chosen.pairs or PAIRS:
        trl, transformers, trainer = (*pair.split(":"), "ppo")[:3]
        python, overlay = environment(trl, transformers, chosen.home)
        problem, detail = judge(trl, transformers, python, overlay, trainer)
        print(f"{'WRONG' if problem else 'right'}  trl {trl}, transformers {transformers}, {trainer}: {problem or detail}", flush=True)
        failed |= problem is not None
    return int(failed)


def environment(trl: str, transformers: str, home: Path) -> tuple[Path, Path]:
    """The interpreter with torch, and the folder with that trl and transformers; made where they are not there yet."""
    home.mkdir(parents=True, exist_ok=True)
    python = home / "base" / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", str(home / "base"))
        run(str(python), "-m", "pip", "install", "--quiet", TORCH)
    overlay = home / "trl" / f"{trl}-{transformers}"
    if not (overlay / "trl").is_dir():
        wanted = [f"trl=={trl}", f"transformers=={transformers}", "accelerate<1.12" if transformers.startswith("4.") else "accelerate"]
        wanted += [
            "datasets<4.5" if transformers.startswith("4.") else "datasets",
            "rich",
            TORCH,
            *(["numpy<2", "pyarrow<22"] if transformers.startswith("4.4") else ["numpy"]),
        ]
        run(str(python), "-m", "pip", "install", "--quiet", "--target", str(overlay), *wanted)
    return python, overlay


def judge(trl: str, transformers: str, python: Path, overlay: Path, trainer: str) -> tuple[str | None, str]:
    """What is wrong with the trace of a pair (None: nothing), and what it told."""
    trace = overlay.parent / f"{overlay.name}-{trainer}.jsonl"
    env = {**os.environ, "PYTHONPATH": str(overlay), "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    script = [str(python), str(HERE / "ppo_run.py"), "--trainer", trainer]
    command = [sys.executable, "-m", "llmdoctor", "gencfg", "trace", "-o", str(trace), "--", *script]
    done = subprocess.run(command, cwd=HERE.parent, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-1500:]}", ""
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    faults = [record for record in records if record["kind"] == "fault"]
    calls = [record for record in records if record["kind"] == "generate"]
    if faults:
        return f"the tracer failed: {faults[0]['error']} at {faults[0]['at']}", ""
    if [call["transformers"] for call in calls] != [transformers] * 2:
        return f"{len(calls)} calls under {[call['transformers'] for call in calls]}", ""
    ends = [(sequence["stop_reason"], sequence["passed_terminator_at"]) for call in calls for sequence in call["sequences"]]
    if ends != [("eos", None), ("length", 0)]:
        return f"the sequences ended as {ends}", ""
    lines = eos_lines(overlay)
    cause = summary(trace)["cause"] or ""
    named = re.match(r"trl (\S+) (\w+\.py):(\d+) set ", cause)
    if named is None or named[1] != trl or (named[2], int(named[3])) not in lines:
        return f"the cause is {cause!r}, expected one of {sorted(lines)}", ""
    return None, cause.partition(";")[0]


def eos_lines(overlay: Path) -> set[tuple[str, int]]:
    """Every line of that trl's trainers on which a generation config's eos_token_id is assigned: read from the source, not from the trace."""
    found = set()
    for source in sorted((overlay / "trl").rglob("*.py")):
        for number, line in enumerate(source.read_text().splitlines(), 1):
            if _TAKES.search(line):
                found.add((source.name, number))
    return found


def summary(trace: Path) -> dict[str, Any]:
    """`gencfg trace --summary`, as a program reads it."""
    command = [sys.executable, "-m", "llmdoctor", "gencfg", "trace", "--summary", str(trace), "--format", "json"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result


if __name__ == "__main__":
    sys.exit(main())
