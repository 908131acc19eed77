"""`mem measure --snapshot FILE`: what a torch memory snapshot shows, in the components of `mem compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdoctor.core.document import Block, Table
from llmdoctor.core.report import Report, Verdict
from llmdoctor.mem.components import Unit
from llmdoctor.mem.snapshot import (
    DeviceUse,
    OutOfMemory,
    SnapshotPeak,
    component_of,
    held_before,
    held_of,
    out_of_memory,
    peak_of,
    read_snapshot,
)

SITES, KEPT = 12, 100  # sites on the screen, sites in the result
FRAGMENTED = 0.5  # of the refused size: if no hole is larger, and all holes together are large enough, the memory is fragmented


def snapshot_report(path: str) -> Report:
    """Return what a snapshot holds: by device, what is allocated where, the peak of its history, and why an allocation was refused.

    Raises QuestionError if `path` is not a memory snapshot.
    """
    snapshot = read_snapshot(path)
    devices = held_of(snapshot)
    refused = {held.device: out_of_memory(snapshot, held.device) for held in devices}
    peaks = {held.device: peak_of(snapshot, held.device, held_before(snapshot, held)) for held in devices}
    blocks = [block for held in devices for block in _blocks(held, peaks[held.device])]
    result = {"snapshot": [_result(held, peaks[held.device], refused[held.device]) for held in devices]}
    return Report("mem measure", {"path": path}, result, document=tuple(blocks), verdict=_verdict(devices, refused))


def _verdict(devices: Sequence[DeviceUse], refused: dict[int, OutOfMemory | None]) -> Verdict:
    for held in devices:
        event = refused[held.device]
        if event is not None:
            return Verdict(_refusal(held, event), "problem")
    if not devices:
        return Verdict("The allocator of this snapshot holds no memory.")
    most = max(devices, key=lambda held: held.reserved)
    unit = Unit(max(most.reserved, 1))
    return Verdict(f"Device {most.device}: {unit(most.allocated)} of {unit(most.reserved)} {unit.name} reserved are in use.")


def _refusal(held: DeviceUse, event: OutOfMemory) -> str:
    unit = Unit(max(held.reserved, event.size))
    free = held.reserved - held.allocated
    text = (
        f"Out of memory on device {held.device}: {unit(event.size)} {unit.name} ({event.size / 2**30:.2f} GiB) was requested at {event.site}; "
        f"{unit(held.allocated)} {unit.name} were allocated, {unit(event.free)} {unit.name} of the device were free"
    )
    if is_fragmented(held, event):
        return (
            f"{text}. The cause is fragmentation: {unit(free)} {unit.name} were reserved but unused, in {held.holes} holes of which the largest "
            f"has {unit(held.largest_hole)} {unit.name}. Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True."
        )
    return f"{text}, and {unit(free)} {unit.name} were reserved but unused."


def is_fragmented(held: DeviceUse, event: OutOfMemory) -> bool:
    """Return whether the unused part of the reserve would have been enough, but no hole in it was."""
    return held.reserved - held.allocated >= event.size > held.largest_hole


def _blocks(held: DeviceUse, peak: SnapshotPeak) -> list[Block]:
    unit = Unit(max(held.reserved, 1))
    rows = tuple((unit(size), str(count), component_of(site), site) for site, size, count in held.by_site[:SITES])
    blocks: list[Block] = [Table((f"Device {held.device}, {unit.name}", "blocks", "most likely", "allocated at"), rows)]
    if peak.by_site:
        largest = tuple((unit(size), str(count), component_of(site), site) for site, size, count in peak.by_site[:SITES])
        blocks.append(Table((f"Peak {unit(peak.bytes)}", "blocks", "most likely", "of the recorded history"), largest))
    return blocks


def _result(held: DeviceUse, peak: SnapshotPeak, event: OutOfMemory | None) -> dict[str, Any]:
    parts: dict[str, int] = {}
    for site, size, _ in held.by_site:
        part = component_of(site)
        parts[part] = parts.get(part, 0) + size
    return {
        "device": held.device,
        "allocated_bytes": held.allocated,
        "reserved_bytes": held.reserved,
        "holes": held.holes,
        "largest_hole_bytes": held.largest_hole,
        "components": parts,
        "by_site": [list(site) for site in held.by_site[:KEPT]],
        "peak_bytes": peak.bytes,
        "peak_components": peak.by_component,
        "peak_by_site": [list(site) for site in peak.by_site[:KEPT]],
        "out_of_memory": None if event is None else _event_result(held, event),
    }


def _event_result(held: DeviceUse, event: OutOfMemory) -> dict[str, Any]:
    return {
        "tried_bytes": event.size,
        "free_bytes": event.free,
        "site": event.site,
        "frames": list(event.frames),
        "fragmented": is_fragmented(held, event),
    }
