"""A torch memory snapshot (`torch.cuda.memory._dump_snapshot`, a pickle), read without running anything in it.

The file holds dicts, lists, numbers and texts only, so an unpickler that finds no global at all reads it; a file that asks for one is
refused. Format: torch 2.1 to 2.14, torch/cuda/memory.py (_snapshot): segments with blocks, device_traces with alloc, free_requested,
free_completed, segment_alloc, ... entries and Python frames.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from llmdoctor.core.errors import QuestionError

LIMIT = 4 * 2**30
# Where in the libraries a block was allocated, and what it is then: the first that is in the path of any frame, innermost first.
SITES = (
    ("optim/", "optimizer_state"), ("stage_1_and_2.py", "temporaries"), ("stage3.py", "temporaries"), ("fused_optimizer.py", "temporaries"),
    ("partition_parameters.py", "params"), ("loss_utils.py", "logits"), ("modeling_", "activations"), ("activations.py", "activations"),
    ("sdpa_attention.py", "activations"), ("nn/modules", "activations"), ("_tensor.py", "temporaries"), ("autograd", "temporaries"),
)  # fmt: skip


class _NoGlobals(pickle.Unpickler):
    """Finds nothing: a pickle that wants a class or a function is no memory snapshot."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and a memory snapshot holds no objects")

    def persistent_load(self, _pid: Any) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError("it refers to objects outside the file")


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest moment of a trace: bytes, by component, by (site, bytes, blocks), largest first."""

    bytes: int
    by_component: dict[str, int]
    by_site: list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Held:
    """What a device held when the snapshot was taken."""

    device: int
    allocated: int
    reserved: int
    by_site: list[tuple[str, int, int]]


def read_snapshot(path: str) -> dict[str, Any]:
    """The snapshot's dict.

    Raises QuestionError for what is no snapshot, or would run code.
    """
    from llmdoctor.files.opening import Refusal, read_bytes

    data = read_bytes(path, LIMIT)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    try:
        value = _NoGlobals(io.BytesIO(data)).load()
    except Exception as error:  # noqa: BLE001 a damaged pickle can raise anything
        raise QuestionError(f"{path}: not a memory snapshot: {' '.join(str(error).split())[:200] or type(error).__name__}") from None
    if not isinstance(value, dict) or not isinstance(value.get("segments"), list):
        raise QuestionError(f"{path}: not a memory snapshot: expected a dict with segments")
    return value


def held_of(snapshot: Mapping[str, Any]) -> tuple[Held, ...]:
    """Every device's blocks in use."""
    out: dict[int, list[Any]] = {}
    for segment in snapshot["segments"]:
        if isinstance(segment, dict):
            out.setdefault(_int(segment.get("device")), []).append(segment)
    return tuple(_held(device, segments) for device, segments in sorted(out.items()))


def _held(device: int, segments: Sequence[Mapping[str, Any]]) -> Held:
    sites: dict[str, list[int]] = {}
    allocated = 0
    for segment in segments:
        for block in blocks if isinstance(blocks := segment.get("blocks"), list) else ():
            if isinstance(block, dict) and str(block.get("state")).startswith("active_alloc"):
                size = _int(block.get("size"))
                allocated += size
                _add(sites, site_of(_frames(block)), size)
    return Held(device, allocated, sum(_int(segment.get("total_size")) for segment in segments), _sorted(sites))


def peak_of(snapshot: Mapping[str, Any], device: int = 0, before: int | None = None) -> Peak:
    """The largest moment of a device's trace. `before` are the bytes held when recording began: without it, what the snapshot's blocks in
    use say less what the trace explains.
    """
    traces = snapshot.get("device_traces")
    events = traces[device] if isinstance(traces, list) and 0 <= device < len(traces) else None
    live: dict[int, tuple[int, str]] = {}
    unknown = 0 if before is None else before
    best, total = -1, unknown
    moment: dict[int, tuple[int, str]] = {}
    for action, address, size, frames in _actions(events if isinstance(events, list) else ()):
        if action == "alloc":
            live[address] = (size, frames)
            total += size
        else:
            known = live.pop(address, None)
            total -= known[0] if known is not None else size
            unknown -= 0 if known is not None else size
        if total > best:
            best, moment, rest = total, dict(live), unknown
    if best < 0:
        return Peak(unknown, {"held before": unknown}, [])
    return _peak(best, moment, rest)


def _peak(best: int, moment: Mapping[int, tuple[int, str]], rest: int) -> Peak:
    sites: dict[str, list[int]] = {}
    parts: dict[str, int] = {"held before": rest} if rest else {}
    for size, site in moment.values():
        _add(sites, site, size)
        part = component_of(site)
        parts[part] = parts.get(part, 0) + size
    return Peak(best, parts, _sorted(sites))


def _actions(events: Sequence[Any]) -> Iterator[tuple[str, int, int, str]]:
    for event in events:
        if not isinstance(event, dict):
            continue
        action = event.get("action")
        if action == "alloc":
            yield "alloc", _int(event.get("addr")), _int(event.get("size")), site_of(_frames(event))
        elif action == "free_completed":
            yield "free", _int(event.get("addr")), _int(event.get("size")), ""


def _frames(entry: Mapping[str, Any]) -> list[Any]:
    frames = entry.get("frames")
    if not frames and isinstance(entry.get("history"), list) and entry["history"] and isinstance(entry["history"][0], dict):
        frames = entry["history"][0].get("frames")
    return frames if isinstance(frames, list) else []


def site_of(frames: Sequence[Any]) -> str:
    """The innermost Python frame that says something: "modeling_qwen2.py:47 forward"; autograd's own thread has none."""
    for frame in frames:
        if isinstance(frame, dict) and str(frame.get("filename", "")).endswith(".py"):
            path = str(frame["filename"])
            if "/torch/nn/functional" in path or "/torch/_" in path or "/torch/utils" in path:
                continue
            return f"{'/'.join(path.split('/')[-2:])}:{_int(frame.get('line'))} {frame.get('name', '')}"
    return "autograd (no Python frame)"


def component_of(site: str) -> str:
    """The component that a site's blocks most likely are."""
    return next((component for part, component in SITES if part in site), "other")


def _add(sites: dict[str, list[int]], site: str, size: int) -> None:
    entry = sites.setdefault(site, [0, 0])
    entry[0] += size
    entry[1] += 1


def _sorted(sites: Mapping[str, Sequence[int]]) -> list[tuple[str, int, int]]:
    return sorted(((site, size, count) for site, (size, count) in sites.items()), key=lambda item: (-item[1], item[0]))


def _int(value: Any) -> int:
    """A count or an address, 0 where it can be none: beyond 64 bits there is neither."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64 else 0
