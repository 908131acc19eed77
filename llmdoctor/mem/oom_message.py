"""Out-of-memory messages of torch since release 1.13, and DeepSpeed's memory lines, in the text of a log.

Forms (c10/cuda/CUDACachingAllocator.cpp): 1.13 to 2.0 "Tried to allocate X (GPU 0; X total capacity; X already allocated; X free; X reserved
in total by PyTorch)"; 2.1 and later "Tried to allocate X. GPU 0 has a total capacity of X of which X is free. ... Of the allocated memory X
is allocated by PyTorch, and X is reserved by PyTorch but unallocated." (2.1 writes "capacty"). DeepSpeed's see_memory_usage writes
"MA X GB Max_MA X GB CA X GB Max_CA X GB" in units of 2**30 bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = r"(\d+(?:\.\d+)?) ?(bytes|KiB|MiB|GiB|TiB|KB|MB|GB)"
_UNITS = {"bytes": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TRIED = re.compile(rf"(CUDA|HIP|XPU|MPS backend|NPU) out of memory\.? Tried to allocate {_SIZE}")
_FRAME = re.compile(r'^\s*File "([^"\n]{1,400})", line (\d{1,9}), in (\S{1,200})', re.MULTILINE)
_PARTS = {
    "capacity": (rf"total capac[a-z]*ty of {_SIZE}", rf"{_SIZE} total capacity"),
    "free": (rf"of which {_SIZE} is free", rf"; {_SIZE} free"),
    "allocated": (rf"{_SIZE} is allocated by PyTorch", rf"{_SIZE} already allocated"),
    "unallocated": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved": (rf"{_SIZE} reserved in total by PyTorch",),
    "in_use": (rf"this process has {_SIZE} memory in use",),
}
_DEEPSPEED = re.compile(r"\bMA (\d+(?:\.\d+)?) GB\s+Max_MA (\d+(?:\.\d+)?) GB\s+CA (\d+(?:\.\d+)?) GB\s+Max_CA (\d+(?:\.\d+)?) GB")
_REACH = 1500  # characters of a message after the size


@dataclass(frozen=True, slots=True)
class OomMessage:
    """One out-of-memory message; sizes in bytes, None for what the message does not name. `line` counts from 1.

    `tolerance` is the rounding of `tried` in the message, which has two decimals. `frames` are "file:line function", innermost last.
    """

    line: int
    device: str
    tried: int
    tolerance: int
    capacity: int | None
    free: int | None
    allocated: int | None
    reserved: int | None
    frames: tuple[str, ...]

    @property
    def unallocated(self) -> int | None:
        """Return the bytes that the allocator reserved and did not use."""
        return None if self.reserved is None or self.allocated is None else max(0, self.reserved - self.allocated)

    @property
    def site(self) -> str | None:
        """Return the innermost frame outside torch; the innermost at all if every frame is torch's; None without a traceback."""
        outside = [frame for frame in self.frames if "/torch/" not in frame and "torch/nn" not in frame]
        frames = outside or list(self.frames)
        return frames[-1] if frames else None

    @property
    def fragmented(self) -> bool | None:
        """Return whether the memory would have been enough in one piece; None if the message does not name its parts."""
        if self.unallocated is None:
            return None
        return (self.free or 0) + self.unallocated >= self.tried and self.unallocated > 0


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """One line of DeepSpeed's see_memory_usage, in bytes."""

    line: int
    allocated: int
    max_allocated: int
    reserved: int
    max_reserved: int


def messages_of(text: str) -> tuple[OomMessage, ...]:
    """Return every out-of-memory message of a log, in its order."""
    out = []
    start = 0
    for match in _TRIED.finditer(text):
        parts = {name: _first(patterns, text[match.start() : match.end() + _REACH]) for name, patterns in _PARTS.items()}
        allocated, reserved = parts["allocated"], parts["reserved"]
        if reserved is None and allocated is not None and parts["unallocated"] is not None:
            reserved = allocated + parts["unallocated"]
        frames = tuple(f"{frame[1]}:{frame[2]} {frame[3]}" for frame in _FRAME.finditer(text[start : match.start()]))
        unit = _UNITS[match[3] if match[3] == "bytes" else match[3][0]]
        tried = int(float(match[2]) * unit)
        line = text.count("\n", 0, match.start()) + 1
        tolerance = max(2 * 2**20, int(0.006 * unit))
        out.append(
            OomMessage(
                line=line,
                device=match[1],
                tried=tried,
                tolerance=tolerance,
                capacity=parts["capacity"],
                free=parts["free"],
                allocated=allocated,
                reserved=reserved,
                frames=frames[-40:],
            )
        )
        start = match.end()
    return tuple(out)


def usages_of(text: str) -> tuple[MemoryUsage, ...]:
    """Return every line of DeepSpeed's see_memory_usage."""
    return tuple(
        MemoryUsage(text.count("\n", 0, match.start()) + 1, *(int(float(match[part]) * 2**30) for part in (1, 2, 3, 4)))
        for match in _DEEPSPEED.finditer(text)
    )


def _first(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        match = re.search(pattern, text)
        if match is not None:
            return int(float(match[1]) * _UNITS[match[2] if match[2] == "bytes" else match[2][0]])
    return None
