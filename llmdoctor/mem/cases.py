"""Runs the cases of `mem measure MODEL`: the real Trainer or DeepSpeed, each in a fresh process (`live/worker.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import clean
from llmdoctor.files.writing import write_file
from llmdoctor.mem.components import component_of
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.settings import Strategy

TIMEOUT = 1800  # seconds
_RUN_MODULE = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; del sys.argv[0]; "
    "import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def run_case(options: MemOptions, strategy: Strategy, steps: int) -> list[dict[str, Any]]:
    """Run one strategy in a fresh process, or in one per rank under torchrun; return its records, those of the peaks last.

    Raises QuestionError if the case is refused or its process ends without records.
    """
    with tempfile.TemporaryDirectory(prefix="llmdoctor-mem-") as folder:
        case = Path(folder) / "case"
        case.write_text(json.dumps({"options": asdict(options), "strategy": strategy.name, "steps": steps, "at": [2], "folder": folder}))
        done = _execute(strategy.world_size, case)
        records = [json.loads(line) for part in sorted(Path(folder).glob("*.jsonl")) for line in part.read_text().splitlines()]
    refused = next((record["message"] for record in records if record["kind"] == "refused"), None)
    if refused is not None:
        raise QuestionError(refused)
    ended = [record for record in records if record["kind"] in ("finished", "failed")]
    if (done.returncode and not ended) or len(ended) < strategy.world_size:
        raise QuestionError(f"{strategy.name}: {_end(done)}")
    phases = [phase_record(record) for record in records if record["kind"] == "phase"]
    failed = [record for record in records if record["kind"] == "failed"]
    return [*phases, *_peaks(phases), *failed]


def _execute(world: int, case: Path) -> subprocess.CompletedProcess[str]:
    command = _module("llmdoctor.mem.live.worker", str(case))
    if world > 1:
        command = _module("torch.distributed.run", "--standalone", f"--nproc_per_node={world}", "--no-python", *command)
    home = str(Path(__file__).parents[2])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = child.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        _kill(child)
        raise QuestionError(f"a measured case did not end within {TIMEOUT} s") from None
    except BaseException:
        _kill(child)
        raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module like `python -m`, but never imports from the working directory: it may hold a stranger's logging.py."""
    return [sys.executable, "-c", _RUN_MODULE, name, *arguments]


def _kill(child: subprocess.Popen[str]) -> None:
    """Kill the launcher and the ranks that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """Return one sentence about a process that ended without records."""
    if done.returncode < 0 or "Signal 9" in done.stderr or "SIGKILL" in done.stderr:
        return f"its process was killed by signal {-done.returncode if done.returncode < 0 else 9} (out of host memory?), so there is no result"
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("=", "-"))]
    message = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it wrote nothing")
    return f"its process ended with status {done.returncode}: {clean(message)[:300]}"


def phase_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the components of the published schema: those on the run's own device, and the host's apart."""
    device = record.get("device", "cpu")
    found = record.get("components")
    if not found:
        return record
    mine = found.get(device, {})
    detail = {name: size for name, size in mine.items() if "." in name}
    host = {} if device == "cpu" else _summed(found.get("cpu", {}))
    return {**record, "components": _summed(mine), "detail": detail, "host": host}


def _summed(parts: dict[str, int]) -> dict[str, int]:
    out: dict[str, int] = {}
    for name, size in parts.items():
        key = component_of(name)
        out[key] = out.get(key, 0) + size
    return out


def _peaks(phases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the largest peak of each rank after the first step, if the device has an allocator that counts.

    The listing of a step's tensors can keep one of them alive, so that autograd does not add in place: a step that was listed counts only if
    there is no other.
    """
    out = []
    for rank in sorted({record["rank"] for record in phases}):
        mine = [record for record in phases if record["rank"] == rank and record["step"] > 1 and record.get("peak_bytes")]
        if mine:
            mine = [record for record in mine if not record.get("components")] or mine
            most = max(mine, key=lambda record: record["peak_bytes"])
            kept = {key: most[key] for key in ("schema", "kind", "strategy", "rank", "world_size", "device", "step", "peak_bytes")}
            out.append({**kept, "phase": "peak", "peak_phase": most["phase"]})
    return out


def write_records(path: str, records: Sequence[dict[str, Any]]) -> None:
    """Write all records to `path`, one per line, or nothing. Raises QuestionError if the file cannot be written."""
    write_file(Path(path), "".join(json.dumps(record) + "\n" for record in records))
