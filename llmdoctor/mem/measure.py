"""`mem measure MODEL`: real steps with random weights, each case in a fresh process, set beside the prediction."""

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

from llmdoctor.core.document import Bar, Bars, Block, Cell, Headline, Note, Table, Tone
from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.report import Report
from llmdoctor.core.text import clean
from llmdoctor.files.writing import write_file
from llmdoctor.mem.components import Unit, component_of
from llmdoctor.mem.measured import Beside, set_beside
from llmdoctor.mem.options import Answer, Asked, ask
from llmdoctor.mem.screen import column_names
from llmdoctor.mem.settings import Strategy

STEPS, TIMEOUT = 3, 1800
ORDER = ("forward", "backward", "step", "between steps")


def measure_report(asked: Asked, output: str | None, steps: int = STEPS) -> Report:
    """Run every strategy and say what it held.

    Raises QuestionError where a case cannot be run or its process is killed; a step that runs out of memory is a result.
    """
    if steps < 2:
        raise QuestionError(f"--steps {steps}: expected at least 2, the first step has no optimizer state yet")
    if installed_version("torch") is None or installed_version("transformers") is None:
        raise MissingExtra("mem measure", "torch with transformers", "live")
    answer, predictor = ask(asked)
    for case in answer.cases:
        if case.strategy.engine is not None and installed_version("deepspeed") is None:
            raise MissingExtra(f"--strategy {case.strategy.name}", "deepspeed", "deepspeed")
    records = [record for case in answer.cases for record in run_case(asked, case.strategy, steps)]
    if output is not None:
        write_records(output, records)
    beside = _beside(answer, records)
    del predictor
    result = {"strategies": [_result(case.strategy.name, records) for case in answer.cases], "beside": [_plain(row) for row in beside]}
    subject = {"path": asked.model, "steps": steps, "world_size": asked.world_size or 1, "output": output}
    return Report("mem measure", subject, result, document=_document(answer, records, beside, output))


def run_case(asked: Asked, strategy: Strategy, steps: int) -> list[dict[str, Any]]:
    """One strategy in a fresh process, or in one for each rank under torchrun; its records, with the peak's at the end."""
    with tempfile.TemporaryDirectory(prefix="llmdoctor-mem-") as folder:
        told = {"asked": asdict(asked), "strategy": strategy.name, "steps": steps, "at": [2], "folder": folder}
        case = Path(folder) / "case"
        case.write_text(json.dumps(told))
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
    module = ["-m", "llmdoctor.mem.live.worker", str(case)]
    command = [sys.executable, *module]
    if world > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}", *module]
    home = str(Path(__file__).parents[2])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
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


def _kill(child: subprocess.Popen[str]) -> None:
    """End the launcher and the ranks that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """One sentence about a process that left nothing."""
    if done.returncode < 0 or "Signal 9" in done.stderr or "SIGKILL" in done.stderr:
        return f"its process was killed by signal {-done.returncode if done.returncode < 0 else 9} (out of host memory?), so there is nothing to report"
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("=", "-"))]
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing")
    return f"its process ended with status {done.returncode}: {clean(said)[:300]}"


def phase_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the contract's components: those on the run's own device, the host's apart."""
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
    """For each rank the largest peak after the first step, where there is an allocator to ask."""
    out = []
    for rank in sorted({record["rank"] for record in phases}):
        mine = [record for record in phases if record["rank"] == rank and record["step"] > 1 and record.get("peak_bytes")]
        if mine:
            most = max(mine, key=lambda record: record["peak_bytes"])
            kept = {key: most[key] for key in ("schema", "kind", "strategy", "rank", "world_size", "device", "step", "peak_bytes")}
            out.append({**kept, "phase": "peak", "peak_phase": most["phase"]})
    return out


def _beside(answer: Answer, records: Sequence[dict[str, Any]]) -> tuple[Beside, ...]:
    wanted = [record for record in records if record["kind"] == "phase" and record["step"] > 1]
    return set_beside(answer, wanted) if wanted else ()


def write_records(path: str, records: Sequence[dict[str, Any]]) -> None:
    """Write one record per line, all of them or nothing. Raises QuestionError."""
    write_file(Path(path), "".join(json.dumps(record) + "\n" for record in records))


def _result(name: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [record for record in records if record["strategy"] == name]
    failed = next((record for record in mine if record["kind"] == "failed"), None)
    return {"name": name, "phases": [record for record in mine if record["kind"] == "phase"], "failed": failed}


def _plain(row: Beside) -> dict[str, Any]:
    return {"strategy": row.strategy, "what": row.what, "predicted": row.predicted, "measured": row.measured, "error": row.error}


def _document(answer: Answer, records: Sequence[dict[str, Any]], beside: Sequence[Beside], output: str | None) -> tuple[Block, ...]:
    names = dict(zip((case.strategy.name for case in answer.cases), column_names(answer.cases), strict=True))
    failed = [record for record in records if record["kind"] == "failed"]
    device = next((record["device"] for record in records if record["kind"] == "phase"), "?")
    worst = max((abs(row.error) for row in beside), default=0.0)
    tone: Tone = "good" if not failed and worst <= 0.02 else "warn"
    blocks: list[Block] = [
        Headline(f"MEASURED on {device}: the prediction is off by at most {100 * worst:.2f}%" if beside else f"MEASURED on {device}", tone)
    ]
    for record in failed:
        how = "RAN OUT OF MEMORY" if record["outcome"] == "out_of_memory" else f"FAILED with {record['outcome']}"
        blocks.append(Note(how, f"{names[record['strategy']]}: in step {record['step']}, {record['phase']}: {record['message']}", "bad"))
    if beside:
        gb = Unit(max(row.measured for row in beside))
        rows = tuple(
            (names[row.strategy], row.what, gb(row.predicted), gb(row.measured), Cell(f"{100 * row.error:+.2f}%")) for row in beside
        )
        table = Table((gb.title, "", "predicted", "measured", "error"), rows)
        bars = tuple(
            Bar(f"{names[row.strategy]}: {row.what}", (row.predicted / gb.size, row.measured / gb.size), f"{100 * row.error:+.2f}%")
            for row in beside
        )
        blocks.append(Bars("Predicted and measured", gb.name, ("predicted", "measured"), bars, stacked=False, digits=3, instead=(table,)))
    if any(name != short for name, short in names.items()):
        blocks.append(Note("WHERE", "\n".join(f"{short} = {name}" for name, short in names.items()), "dim"))
    if device == "cpu":
        blocks.append(
            Note(
                "NOTE",
                "without a GPU there is no allocator to ask: what is held between steps was counted tensor by tensor, peaks were not measured",
                "dim",
            )
        )
    if output is not None:
        blocks.append(Note("NEXT", f"llmdoctor mem compare {answer.asked.model} ... --measured {output}"))
    return tuple(blocks)
