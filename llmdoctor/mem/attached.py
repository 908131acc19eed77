"""`mem measure -o FILE -- COMMAND`: watches the user's own training run and reports what its records show."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdoctor.attach.launch import launch
from llmdoctor.attach.records import merge
from llmdoctor.core.document import Bar, Bars, Block, Cell, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.mem.cases import phase_record, write_records
from llmdoctor.mem.components import COMPONENTS, LABELS, Unit
from llmdoctor.mem.measured import read_measured
from llmdoctor.mem.results import MeasureResult

ORDER = ("forward", "backward", "step", "between steps")
TARGET = "llmdoctor.mem.live.attach:attach"


def run_measured(command: list[str], output: str, at: int, stop: int | None) -> tuple[int, str | None]:
    """Run `command` under the probe and write its records to `output`.

    Returns the command's own exit code and the reason if no file was written (None if it was). Raises QuestionError, before anything runs,
    if `output` cannot be written or the command cannot be started.
    """
    target = Path(output)
    if at < 1 or (stop is not None and stop < at):
        raise QuestionError(f"--at {at}: expected a step from 1" + ("" if stop is None else f", and --stop-after {stop} not before it"))
    if os.path.isdir(output) or target.suffix != ".jsonl":
        raise QuestionError(f"-o {output}: expected a file name that ends in .jsonl")
    try:
        parts = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".parts", dir=target.parent))
    except OSError as error:
        raise QuestionError(f"-o {output}: cannot be written: {error.strerror or error}") from None
    try:
        code = launch(command, TARGET, {"at": [at], "stop": stop}, parts)
        records = [json.loads(line) for line in merge(parts.glob("*.jsonl"))]
        kept = [phase_record(record) if record.get("kind") == "phase" else record for record in records]
        if not any(record.get("kind") == "phase" for record in kept):
            return code, _nothing(kept)
        write_records(output, kept)
    except QuestionError as error:
        if "cannot be started" in str(error) or "expected a command" in str(error):
            raise
        return code, str(error)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return code, None


def _nothing(records: Sequence[dict[str, Any]]) -> str:
    fault = next((record for record in records if record.get("kind") == "fault"), None)
    if fault is not None:
        return f"nothing was measured: {fault.get('error')} in the probe ({fault.get('where')})"
    return "nothing was measured: no process of the command called backward and an optimizer's step, or none of them started with site packages"


def attached_report(path: str) -> Report:
    """Return what a measured run held: phases, components and the owners of the peak, for each rank.

    Raises QuestionError if `path` holds no records of `mem measure`.
    """
    records = read_measured(path)
    phases = [record for record in records if record.get("kind") == "phase"]
    if not phases:
        raise QuestionError(f"{path}: no record of a phase")
    faults = [record for record in records if record.get("kind") == "fault"]
    ranks = sorted({_int(record.get("rank")) for record in phases})
    steps = max(_int(record.get("step")) for record in phases)
    blocks: list[Block] = []
    for rank in ranks:
        mine = [record for record in phases if _int(record.get("rank")) == rank]
        blocks += _rank(mine, rank, len(ranks) > 1)
    blocks += [Note("Error", f"in the probe, {fault.get('where')}: {fault.get('error')}", "warn") for fault in faults[:3]]
    blocks.append(Note("Next", f"llmdoctor mem compare MODEL --strategy YOURS --measured {path}"))
    result: MeasureResult = {"ranks": len(ranks), "steps": steps, "phases": phases, "faults": faults}
    return Report("mem measure", {"path": path}, {**result}, document=tuple(blocks), verdict=_verdict(phases, ranks, steps))


def _verdict(phases: Sequence[dict[str, Any]], ranks: Sequence[int], steps: int) -> Verdict:
    device = str(phases[0].get("device", "cpu"))
    run = f"{plural(steps, 'step')} on {plural(len(ranks), 'process')}, {device}"
    peaks = [_peak(record) for record in phases if _peak(record)]
    if not peaks:
        return Verdict(f"Measured {run}: what is held between steps, counted tensor by tensor; the peaks are not measured.", "bound")
    unit = Unit(max(peaks))
    return Verdict(f"Measured {run}: the peak is {unit(max(peaks))} {unit.name}.")


def _peak(record: dict[str, Any]) -> int:
    peak = record.get("peak")
    return _int(record.get("peak_bytes") or record.get("peak_so_far_bytes") or (peak.get("bytes") if isinstance(peak, dict) else 0))


def _rank(mine: Sequence[dict[str, Any]], rank: int, several: bool) -> list[Block]:
    listed = [record for record in mine if isinstance(record.get("components"), dict)]
    by_phase = {phase: next((record for record in listed if record.get("phase") == phase), None) for phase in ORDER}
    shown = {phase: record for phase, record in by_phase.items() if record is not None}
    if not shown:
        return [Note("Limits", f"rank {rank} did not reach the step at which tensors are listed", "warn")]
    names = [name for name in (*COMPONENTS, "unlabelled") if any(record["components"].get(name) for record in shown.values())]
    together = [sum(map(_int, record["components"].values())) for record in shown.values()]
    unit = Unit(max(together))
    rows: list[tuple[str | Cell, ...]] = [
        (LABELS.get(name, "owner unknown"), *(unit(_int(record["components"].get(name))) for record in shown.values())) for name in names
    ]
    rows.append(("all", *map(unit, together)))
    head = f"rank {rank}, {unit.name}" if several else unit.title
    table = Table((head, *(f"{phase} ends" if phase != "between steps" else phase for phase in shown)), tuple(rows))
    blocks: list[Block] = [_bars(f"Rank {rank}" if several else "Held at the end of each phase", shown, names, unit, table)]
    peak: dict[str, Any] | None = next((record["peak"] for record in mine if isinstance(record.get("peak"), dict)), None)
    if peak:
        largest = peak.get("by_site")
        entries = [entry for entry in largest[:8] if isinstance(entry, list) and len(entry) == 3] if isinstance(largest, list) else []
        sites = tuple((unit(_int(size)), str(count), str(site)) for site, size, count in entries)
        blocks.append(Table((f"Peak {unit(_int(peak.get('bytes')))}", "blocks", "allocated at"), sites))
    return blocks


def _bars(label: str, phases: Mapping[str, dict[str, Any]], names: Sequence[str], unit: Unit, instead: Table) -> Bars:
    bars = tuple(Bar(phase, tuple(_int(record["components"].get(name)) / unit.size for name in names)) for phase, record in phases.items())
    return Bars(label, unit.name, tuple(LABELS.get(name, "owner unknown") for name in names), bars, instead=(instead,))


def _int(value: Any) -> int:
    """Return `value` if it can be a count of bytes (below 2**64), else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64 else 0
