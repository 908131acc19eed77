"""`mem measure -o FILE -- COMMAND`: the user's own training run, and what its records show."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdoctor.attach.launch import launch
from llmdoctor.attach.records import merge
from llmdoctor.core.document import Bar, Bars, Block, Cell, Headline, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.mem.components import COMPONENTS, LABELS, Unit
from llmdoctor.mem.measure import ORDER, phase_record, write_records
from llmdoctor.mem.measured import read_measured

TARGET = "llmdoctor.mem.live.attach:attach"


def run_measured(command: list[str], output: str, at: int, stop: int | None) -> tuple[int, str | None]:
    """Run `command`, watched, and write its records to `output`.

    Returns the command's own exit code and why there is no file in the end (None: there is). Raises QuestionError, before anything runs,
    where `output` cannot be written or the command cannot be started.
    """
    target = Path(output)
    if at < 1 or (stop is not None and stop < at):
        raise QuestionError(f"--at {at}: expected a step from 1" + ("" if stop is None else f", and --stop-after {stop} not before it"))
    if target.is_dir() or target.suffix != ".jsonl":
        raise QuestionError(f"-o {output}: expected the name of a file that ends in .jsonl")
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
    """What a measured run shows: phases, components, what owns the peak, for each rank."""
    records = read_measured(path)
    phases = [record for record in records if record.get("kind") == "phase"]
    if not phases:
        raise QuestionError(f"{path}: no phases in it")
    faults = [record for record in records if record.get("kind") == "fault"]
    ranks = sorted({_int(record.get("rank")) for record in phases})
    steps = max(_int(record.get("step")) for record in phases)
    blocks: list[Block] = [_verdict(phases, ranks, steps)]
    for rank in ranks:
        mine = [record for record in phases if _int(record.get("rank")) == rank]
        blocks += _rank(mine, rank, len(ranks) > 1)
    blocks += [Note("FAULT", f"{fault.get('where')}: {fault.get('error')}", "warn") for fault in faults[:3]]
    blocks.append(Note("NEXT", f"llmdoctor mem compare MODEL --strategy YOURS --measured {path}"))
    result = {"ranks": len(ranks), "steps": steps, "phases": phases, "faults": faults}
    return Report("mem measure", {"path": path}, result, document=tuple(blocks))


def _verdict(phases: Sequence[dict[str, Any]], ranks: Sequence[int], steps: int) -> Headline:
    device = str(phases[0].get("device", "cpu"))
    said = f"{steps} steps on {len(ranks)} {'process' if len(ranks) == 1 else 'processes'}, {device}"
    peaks = [_peak(record) for record in phases if _peak(record)]
    if not peaks:
        return Headline(f"MEASURED {said}: what is held between steps, counted tensor by tensor")
    unit = Unit(max(peaks))
    return Headline(f"MEASURED {said}: at most {unit(max(peaks))} {unit.name} at once")


def _peak(record: dict[str, Any]) -> int:
    peak = record.get("peak")
    return _int(record.get("peak_bytes") or record.get("peak_so_far_bytes") or (peak.get("bytes") if isinstance(peak, dict) else 0))


def _rank(mine: Sequence[dict[str, Any]], rank: int, several: bool) -> list[Block]:
    listed = [record for record in mine if isinstance(record.get("components"), dict)]
    by_phase = {phase: next((record for record in listed if record.get("phase") == phase), None) for phase in ORDER}
    shown = {phase: record for phase, record in by_phase.items() if record is not None}
    if not shown:
        return [Note("NOTE", f"rank {rank} did not come to the step at which tensors are listed", "warn")]
    names = [name for name in (*COMPONENTS, "unlabelled") if any(record["components"].get(name) for record in shown.values())]
    together = [sum(map(_int, record["components"].values())) for record in shown.values()]
    unit = Unit(max(together))
    rows: list[tuple[str | Cell, ...]] = [
        (LABELS.get(name, "no owner known"), *(unit(_int(record["components"].get(name))) for record in shown.values())) for name in names
    ]
    rows.append(("together", *map(unit, together)))
    head = f"rank {rank}, {unit.name}" if several else unit.title
    table = Table((head, *(f"{phase} ends" if phase != "between steps" else phase for phase in shown)), tuple(rows))
    blocks: list[Block] = [_bars(f"Rank {rank}" if several else "Held at the end of each phase", shown, names, unit, table)]
    peak: dict[str, Any] | None = next((record["peak"] for record in mine if isinstance(record.get("peak"), dict)), None)
    if peak:
        largest = peak.get("by_site")
        entries = [entry for entry in largest[:8] if isinstance(entry, list) and len(entry) == 3] if isinstance(largest, list) else []
        sites = tuple((unit(_int(size)), str(count), str(site)) for site, size, count in entries)
        blocks.append(Table((f"PEAK {unit(_int(peak.get('bytes')))}", "blocks", "allocated at"), sites))
    return blocks


def _bars(label: str, phases: Mapping[str, dict[str, Any]], names: Sequence[str], unit: Unit, instead: Table) -> Bars:
    bars = tuple(Bar(phase, tuple(_int(record["components"].get(name)) / unit.size for name in names)) for phase, record in phases.items())
    return Bars(label, unit.name, tuple(LABELS.get(name, "no owner known") for name in names), bars, instead=(instead,))


def _int(value: Any) -> int:
    """A count of bytes, 0 where it can be none: beyond 64 bits there is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64 else 0


def snapshot_report(path: str) -> Report:
    """A torch memory snapshot, explained in the same components."""
    from llmdoctor.mem.snapshot import component_of, held_of, peak_of, read_snapshot

    snapshot = read_snapshot(path)
    devices = held_of(snapshot)
    blocks: list[Block] = []
    out = []
    for held in devices:
        peak = peak_of(snapshot, held.device)
        parts: dict[str, int] = {}
        for site, size, _ in held.by_site:
            part = component_of(site)
            parts[part] = parts.get(part, 0) + size
        unit = Unit(max(held.reserved, 1))
        blocks.append(Headline(f"DEVICE {held.device}: {unit(held.allocated)} of {unit(held.reserved)} {unit.name} reserved are in use"))
        rows = tuple((unit(size), str(count), component_of(site), site) for site, size, count in held.by_site[:12])
        blocks.append(Table((unit.name, "blocks", "most likely", "allocated at"), rows))
        if peak.by_site:
            largest = tuple((unit(size), str(count), component_of(site), site) for site, size, count in peak.by_site[:12])
            blocks.append(Table((f"PEAK {unit(peak.bytes)}", "blocks", "most likely", "of the recorded history"), largest))
        out.append({
            "device": held.device, "allocated_bytes": held.allocated, "reserved_bytes": held.reserved, "components": parts,
            "by_site": [list(site) for site in held.by_site[:100]], "peak_bytes": peak.bytes, "peak_components": peak.by_component,
            "peak_by_site": [list(site) for site in peak.by_site[:100]],
        })  # fmt: skip
    if not devices:
        blocks.append(Headline("NO SEGMENTS: the allocator of this snapshot held nothing"))
    return Report("mem measure", {"path": path}, {"snapshot": out}, document=tuple(blocks))
