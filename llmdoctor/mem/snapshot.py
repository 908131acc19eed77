"""Reads a torch memory snapshot (`torch.cuda.memory._dump_snapshot`, a pickle) without running anything in it.

The file holds dicts, lists, numbers and texts only: the reader of files/pickles.py makes nothing else of it, and a file that asks for an
object is refused. Format: torch 2.1 to 2.14, torch/cuda/memory.py (_snapshot): segments with blocks, device_traces with alloc, free_requested,
free_completed, segment_alloc, ... entries and Python frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.pickles import PickleLimits, parse_pickle

LIMIT = 4 * 2**30
_LIMITS = PickleLimits(size=LIMIT, steps=2 * 10**9, stack=10**7, memo=10**8, objects=False)
# What a block most likely is, by the part of a library that allocated it: the first entry that occurs in the site.
SITES = (
    ("modeling_utils.py", "params"), ("core_model_loading.py", "params"), ("safetensors", "params"), ("_load_state_dict", "params"),
    ("load_state_dict", "params"), ("nn/modules/module.py", "params"),
    ("optim/", "optimizer_state"), ("stage_1_and_2.py", "temporaries"), ("stage3.py", "temporaries"), ("fused_optimizer.py", "temporaries"),
    ("partition_parameters.py", "params"), ("loss_utils.py", "logits"), ("modeling_", "activations"), ("activations.py", "activations"),
    ("sdpa_attention.py", "activations"), ("nn/modules", "activations"), ("_tensor.py", "temporaries"), ("autograd", "temporaries"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SnapshotPeak:
    """The largest moment of a trace: bytes, by component, by (site, bytes, blocks), largest first."""

    bytes: int
    by_component: dict[str, int]
    by_site: list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """What a device held when the snapshot was taken, in bytes; `holes` counts the unused blocks inside the reserved segments."""

    device: int
    allocated: int
    reserved: int
    by_site: list[tuple[str, int, int]]
    holes: int
    largest_hole: int


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """An allocation that was refused: its size and the free bytes of the device, the site, all Python frames from the inside out."""

    size: int
    free: int
    site: str
    frames: tuple[str, ...]


def read_snapshot(path: str) -> dict[str, Any]:
    """Return the dict that a snapshot holds.

    Raises QuestionError if `path` is not a snapshot, or would run code.
    """
    from llmdoctor.files.opening import Refusal, read_bytes

    data = read_bytes(path, LIMIT)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    try:
        value = parse_pickle(data, _LIMITS)
    except ValueError as error:
        raise QuestionError(f"{path}: not a memory snapshot: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(value, dict) or not isinstance(value.get("segments"), list):
        raise QuestionError(f"{path}: not a memory snapshot: expected a dict with segments")
    return value


def held_of(snapshot: Mapping[str, Any]) -> tuple[DeviceUse, ...]:
    """Return what each device holds, by the number of the device."""
    out: dict[int, list[Any]] = {}
    for segment in snapshot["segments"]:
        if isinstance(segment, dict):
            out.setdefault(_int(segment.get("device")), []).append(segment)
    return tuple(_held(device, segments) for device, segments in sorted(out.items()))


def _held(device: int, segments: Sequence[Mapping[str, Any]]) -> DeviceUse:
    sites: dict[str, list[int]] = {}
    allocated, holes = 0, []
    for segment in segments:
        for block in blocks if isinstance(blocks := segment.get("blocks"), list) else ():
            if not isinstance(block, dict):
                continue
            size = _int(block.get("size"))
            if str(block.get("state")).startswith("active_alloc"):
                allocated += size
                _add(sites, site_of(_frames(block)), size)
            elif block.get("state") == "inactive":
                holes.append(size)
    reserved = sum(_int(segment.get("total_size")) for segment in segments)
    return DeviceUse(
        device=device, allocated=allocated, reserved=reserved, by_site=_sorted(sites), holes=len(holes), largest_hole=max(holes, default=0)
    )


def out_of_memory(snapshot: Mapping[str, Any], device: int) -> OutOfMemory | None:
    """Return the last allocation of a device's history that was refused; None if none was refused."""
    event = next((event for event in reversed(_events(snapshot, device)) if isinstance(event, dict) and event.get("action") == "oom"), None)
    if event is None:
        return None
    frames = _frames(event)
    described = tuple(_described(frame) for frame in frames if isinstance(frame, dict))
    return OutOfMemory(_int(event.get("size")), _int(event.get("device_free")), site_of(frames), described)


def _events(snapshot: Mapping[str, Any], device: int) -> Sequence[Any]:
    traces = snapshot.get("device_traces")
    events = traces[device] if isinstance(traces, list) and 0 <= device < len(traces) else None
    return events if isinstance(events, list) else ()


def peak_of(snapshot: Mapping[str, Any], device: int = 0, before: int | None = None) -> SnapshotPeak:
    """Return the largest moment of a device's history. `before` are the bytes that were held when the recording began, 0 if unknown."""
    events = _changes(snapshot, device)
    best, last, rest = _largest(events, before or 0)
    if last < 0:
        return SnapshotPeak(rest, {"held before": rest}, [])
    live: dict[int, Mapping[str, Any]] = {}
    for event in events[: last + 1]:
        if event["action"] == "alloc":
            live[_int(event.get("addr"))] = event
        else:
            live.pop(_int(event.get("addr")), None)
    return _peak(best, live.values(), rest)


def held_before(snapshot: Mapping[str, Any], held: DeviceUse) -> int:
    """Return the bytes that a device held when its recorded history began: what it holds at the end, without what the history changed."""
    changed = sum(_int(event.get("size")) * (1 if event["action"] == "alloc" else -1) for event in _changes(snapshot, held.device))
    return max(0, held.allocated - changed)


def _changes(snapshot: Mapping[str, Any], device: int) -> list[Mapping[str, Any]]:
    """Return the events of a device's history that allocate a block or free one."""
    return [event for event in _events(snapshot, device) if isinstance(event, dict) and event.get("action") in ("alloc", "free_completed")]


def _largest(events: Sequence[Mapping[str, Any]], before: int) -> tuple[int, int, int]:
    """Return (bytes, index of the event, bytes of it that were held before) of the largest moment; the index is -1 without events."""
    sizes: dict[int, int] = {}
    total, unknown = before, before
    best = (-1, -1, before)
    for index, event in enumerate(events):
        address, size = _int(event.get("addr")), _int(event.get("size"))
        if event["action"] == "alloc":
            sizes[address] = size
            total += size
        else:
            known = sizes.pop(address, None)
            total -= size if known is None else known
            unknown -= size if known is None else 0
        if total > best[0]:
            best = (total, index, unknown)
    return best


def _peak(best: int, moment: Iterable[Mapping[str, Any]], rest: int) -> SnapshotPeak:
    sites: dict[str, list[int]] = {}
    parts: dict[str, int] = {"held before": rest} if rest else {}
    for event in moment:
        size, site = _int(event.get("size")), site_of(_frames(event))
        _add(sites, site, size)
        part = component_of(site)
        parts[part] = parts.get(part, 0) + size
    return SnapshotPeak(best, parts, _sorted(sites))


def _frames(entry: Mapping[str, Any]) -> list[Any]:
    frames = entry.get("frames")
    if not frames and isinstance(entry.get("history"), list) and entry["history"] and isinstance(entry["history"][0], dict):
        frames = entry["history"][0].get("frames")
    return frames if isinstance(frames, list) else []


def site_of(frames: Sequence[Any]) -> str:
    """Return the innermost Python frame outside torch's own functions: "qwen2/modeling_qwen2.py:47 forward".

    Blocks that autograd's own thread allocates have no Python frame.
    """
    for frame in frames:
        if isinstance(frame, dict) and str(frame.get("filename", "")).endswith(".py"):
            path = str(frame["filename"])
            if "/torch/nn/functional" in path or "/torch/_" in path or "/torch/utils" in path:
                continue
            return _described(frame)
    return "autograd (no Python frame)"


def _described(frame: Mapping[str, Any]) -> str:
    path = str(frame.get("filename", ""))
    return f"{'/'.join(path.split('/')[-2:])}:{_int(frame.get('line'))} {frame.get('name', '')}"


def component_of(site: str) -> str:
    """Return the component that the blocks of a site most likely belong to."""
    return next((component for part, component in SITES if part in site), "other")


def _add(sites: dict[str, list[int]], site: str, size: int) -> None:
    entry = sites.setdefault(site, [0, 0])
    entry[0] += size
    entry[1] += 1


def _sorted(sites: Mapping[str, Sequence[int]]) -> list[tuple[str, int, int]]:
    return sorted(((site, size, count) for site, (size, count) in sites.items()), key=lambda item: (-item[1], item[0]))


def _int(value: Any) -> int:
    """Return `value` if it can be a count or an address (below 2**64), else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64 else 0
