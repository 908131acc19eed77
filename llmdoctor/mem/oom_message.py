"""Out-of-memory messages of torch since release 1.13, and DeepSpeed's memory lines, in the text of a log.

Forms (c10/cuda/CUDACachingAllocator.cpp): 1.13 to 2.0 "Tried to allocate X (GPU 0; X total capacity; X already allocated; X free; X reserved
in total by PyTorch)"; 2.1 and later "Tried to allocate X. GPU 0 has a total capacity of X of which X is free. ... Of the allocated memory X
is allocated by PyTorch, and X is reserved by PyTorch but unallocated." (2.1 writes "capacty"). XPU and NPU write the same. MPS writes "MPS backend
out of memory (MPS allocated: X, other allocations: X, max allowed: X). Tried to allocate X" (aten/src/ATen/mps/MPSAllocator.mm), the CPU "you tried
to allocate N bytes" (c10/core/impl/alloc_cpu.cpp). DeepSpeed's see_memory_usage writes "MA X GB Max_MA X GB CA X GB Max_CA X GB". All units are
powers of two, whatever they are called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmdoctor.mem.oom_text import LogLine, frames_before, lines_of

_SIZE = r"(\d{1,30}(?:\.\d{1,9})?) ?(bytes|KiB|MiB|GiB|TiB|KB|MB|GB|TB)\b"
_UNITS = {"bytes": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_START = re.compile(r"\b(CUDA|HIP|XPU|NPU|MLU|MPS backend) out of memory\b|DefaultCPUAllocator: (?:can't allocate|not enough) memory")
_TRIED = re.compile(rf"[Tt]ried to allocate {_SIZE}")
_CUT = re.compile(r"[Tt]ried to a")
_PARTS = {
    "capacity": (rf"total capac[a-z]*ty of {_SIZE}", rf"{_SIZE} total capacity", rf"max allowed: {_SIZE}"),
    "free": (rf"of which {_SIZE} is free", rf"; {_SIZE} free"),
    "allowed": (rf"{_SIZE} allowed;",),
    "allocated": (rf"{_SIZE} is allocated by PyTorch", rf"{_SIZE} already allocated", rf"MPS allocated: {_SIZE}"),
    "unallocated": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved": (rf"{_SIZE} reserved in total by PyTorch",),
    "in_use": (rf"this process has {_SIZE} memory in use",),
    "private": (rf"with {_SIZE} allocated in private pools",),
}
_OTHERS = re.compile(rf"Process \d+ has {_SIZE} memory in use")
_INDEX = re.compile(r"\b[GN]PU (\d{1,4})\b")
_DEEPSPEED = re.compile(r"\bMA (\d+(?:\.\d+)?) GB\s+Max_MA (\d+(?:\.\d+)?) GB\s+CA (\d+(?:\.\d+)?) GB\s+Max_CA (\d+(?:\.\d+)?) GB")
_ADVICE = re.compile(r"try setting (PYTORCH_[A-Z_]{0,20}ALLOC_CONF=expandable_segments:True|max_split_size_mb)")
_REAL = re.compile(r"(?:Error|error|exception|Exception): {0,3}$")
NEARLY = 0.05  # of the device: with less to spare it is full, however the rest is arranged
_REACH = 30  # lines of a message: a narrow terminal breaks it into a dozen
SMALL, MIDDLE, STEP = (
    2 * 2**20,
    20 * 2**20,
    2 * 2**20,
)  # segments: up to 1 MiB, up to 10 MiB, beyond in steps (kSmallBuffer, kLargeBuffer, kRoundLarge)
_LARGEST_DEVICE, _LARGEST_REQUEST = 2**43, 2**63
_SLACK = 0.02  # of the device: sizes are rounded, and the driver keeps a little


@dataclass(frozen=True, slots=True, kw_only=True)
class OomMessage:
    """One out-of-memory message; sizes in bytes, None for what the message does not name. `line` counts from 1.

    `tried` is the segment that the allocator asked for, so the tensor itself has between `smallest` and `largest` bytes. `frames` are
    "file:line function", innermost last; `listed` what other processes hold by the message, `allowed` the limit of
    set_per_process_memory_fraction, `advice` the variable that the message proposes to set.
    """

    line: int
    device: str
    index: int | None
    tried: int
    smallest: int
    largest: int
    capacity: int | None
    free: int | None
    allowed: int | None
    allocated: int | None
    reserved: int | None
    private: int | None
    in_use: int | None
    listed: int
    advice: str | None
    frames: tuple[str, ...]

    @property
    def unallocated(self) -> int | None:
        """Return the bytes that the allocator reserved and did not use."""
        return None if self.reserved is None or self.allocated is None else max(0, self.reserved - self.allocated)

    @property
    def left(self) -> int:
        """Return the bytes that the process could still have taken from the device."""
        free = self.free or 0
        return free if self.allowed is None or self.reserved is None else min(free, max(0, self.allowed - self.reserved))

    @property
    def site(self) -> str | None:
        """Return the innermost frame outside torch; the innermost at all if every frame is torch's; None without a traceback."""
        outside = [frame for frame in self.frames if not _OF_TORCH.search(frame)]
        frames = outside or list(self.frames)
        return frames[-1] if frames else None

    @property
    def phase(self) -> str | None:
        """Return forward, backward, step or start (weights are loaded or moved) by the frames of the traceback; None if they do not show it."""
        return next((phase for phase, pattern in _PHASES if any(pattern.search(frame) for frame in self.frames)), None)

    @property
    def spare(self) -> int | None:
        """Return the bytes that would be left after the request if all memory that is not in use were one piece; negative if they are missing.

        None if the numbers do not decide it.
        """
        if self.unallocated is None or self.private or self.doubt is not None:
            return None
        return self.left + self.unallocated - self.tried

    @property
    def fragmented(self) -> bool | None:
        """Return whether fragmentation is the cause: what is reserved and unused holds the request, and the device is not nearly full anyway.

        None if the numbers do not decide it, or if in one piece the memory would just have been enough.
        """
        if self.spare is None or self.unallocated is None or self.spare < 0:
            return None if self.spare is None else False
        enough = self.unallocated >= self.tried and self.spare >= NEARLY * (self.capacity or 0)
        return True if enough else None

    @property
    def others(self) -> int | None:
        """Return the bytes of the device that other processes hold, if the message names them or they follow from its numbers."""
        if self.listed or self.capacity is None or self.free is None or self.in_use is None or self.doubt is not None:
            return self.listed or None
        return max(0, self.capacity - self.free - self.in_use)

    @property
    def own(self) -> int | None:
        """Return the bytes that the process itself holds outside torch's allocator: contexts, NCCL, other libraries."""
        return None if self.in_use is None or self.reserved is None else max(0, self.in_use - self.reserved)

    @property
    def doubt(self) -> str | None:
        """Return why the numbers of the message do not decide what was missing; None if they do."""
        if self.capacity is None:
            return None
        if self.allocated is not None and self.allocated > self.capacity * (1 + _SLACK):
            return "more is allocated than the device has, because the driver lends memory of the host (Windows), or memory is managed"
        if (self.allocated or 0) + (self.free or 0) > self.capacity * (1 + _SLACK):
            return "allocated and free memory together are more than the device has"
        if self.left >= self.tried and self.free is not None:
            return "the free memory was enough, so another limit or another process decided"
        return None

    @property
    def impossible(self) -> str | None:
        """Return what the message contradicts; None if its numbers can be true."""
        capacity, rounding = self.capacity, 2**20 + 2**30 // 50
        if self.tried <= 0 or self.tried >= _LARGEST_REQUEST:
            return "no request has this size"
        if capacity is not None and not 0 < capacity <= _LARGEST_DEVICE:
            return "no device has this size"
        if capacity is not None and (self.free or 0) > capacity + rounding:
            return "more is free than the device has"
        if self.reserved is not None and self.allocated is not None and self.allocated > self.reserved + rounding:
            return "more is allocated than reserved"
        if max(self.allocated or 0, self.reserved or 0) > 8 * _LARGEST_DEVICE:
            return "no device has this size"
        return None


_OF_TORCH = re.compile(
    r"(?:site|dist)-packages[/\\]torch[/\\]|[/\\]torch[/\\](?:nn|autograd|optim|utils|distributed|cuda|amp|_|functional|func)"
)
# The first entry of which a frame is found: a backward can recompute a forward, and a step runs nothing else.
_PHASES = tuple(
    (phase, re.compile(pattern))
    for phase, pattern in (
        ("step", r"[/\\]optim[/\\]|(?:stage3|stage_1_and_2|fused_optimizer|bf16_optimizer|engine)\.py:\d+ (?:step|_take_model_step)$"),
        ("backward", r" (?:backward|_engine_run_backward|run_backward|unpack_hook)$"),
        (
            "start",
            r"modeling_utils\.py:\d+ (?:from_pretrained|_load_pretrained_model|to|cuda)$|module\.py:\d+ (?:to|cuda|_apply|load_state_dict)$",
        ),
        ("forward", r" (?:forward|_call_impl|compute_loss|training_step)$"),
    )
)


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """A message that cannot be understood: its line, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """One line of DeepSpeed's see_memory_usage, in bytes."""

    line: int
    allocated: int
    max_allocated: int
    reserved: int
    max_reserved: int


def found_in(text: str) -> tuple[tuple[OomMessage, ...], tuple[UnreadableMessage, ...]]:
    """Return the out-of-memory messages of a log that can be true, in its order, and those that are cut short or contradict themselves."""
    lines = lines_of(text)
    found: list[OomMessage | UnreadableMessage] = []
    for number, line in enumerate(lines):
        starts = list(_START.finditer(line.text)) if "emory" in line.text else []
        for place, start in enumerate(starts):
            end = starts[place + 1].start() if place + 1 < len(starts) else None
            whole = _whole(lines, number, start.start(), end)
            if _TRIED.search(whole) or _CUT.search(whole) or _REAL.search(line.text[: start.start()]):
                found.append(_read(lines, number, start, whole))
    messages = tuple(one for one in found if isinstance(one, OomMessage))
    return messages, tuple(one for one in found if isinstance(one, UnreadableMessage))


def messages_of(text: str) -> tuple[OomMessage, ...]:
    """Return every out-of-memory message of a log that can be true, in its order."""
    return found_in(text)[0]


def _whole(lines: Sequence[LogLine], number: int, begin: int, end: int | None) -> str:
    """Return a message on one line: the rest of its line, and the lines that it was broken into, up to the next message or an empty line."""
    first = lines[number]
    parts = [first.text[begin:end]]
    for line in lines[number + 1 : number + _REACH] if end is None else ():
        if line.source != first.source:
            continue
        if not line.text.strip() or _START.search(line.text) or line.text.startswith("Traceback"):
            break
        parts.append(line.text.strip(" \t│|"))
    return " ".join(" ".join(parts).split())


def _read(lines: Sequence[LogLine], number: int, start: re.Match[str], whole: str) -> OomMessage | UnreadableMessage:
    tried = _TRIED.search(whole)
    if tried is None:
        cut = "the size in it cannot be read" if _CUT.search(whole) else "it names no size"
        return UnreadableMessage(number + 1, f"{start[0]!r}, and {cut}")
    parts = {name: _first(patterns, whole) for name, patterns in _PARTS.items()}
    allocated, reserved = parts["allocated"], parts["reserved"]
    if reserved is None and allocated is not None and parts["unallocated"] is not None:
        reserved = allocated + parts["unallocated"]
    device = (start[1] or "CPU").removesuffix(" backend")
    index = _INDEX.search(whole)
    size, rounding = _bytes(tried[1], tried[2]), _rounding(tried[1], tried[2])
    smallest = size - rounding if device in ("CPU", "MPS") else _smallest(size) - rounding
    in_use, capacity = parts["in_use"], parts["capacity"]
    message = OomMessage(
        line=number + 1, device=device, index=int(index[1]) if index else None, tried=size, smallest=max(1, smallest), largest=size + rounding,
        capacity=capacity, free=parts["free"], allowed=parts["allowed"], allocated=allocated, reserved=reserved, private=parts["private"],
        # Under Windows and WSL the driver does not know it, and torch prints 17179869184.00 GiB.
        in_use=in_use if in_use is not None and capacity is not None and in_use <= 2 * capacity else None,
        listed=sum(_bytes(other[1], other[2]) for other in _OTHERS.finditer(whole)), frames=frames_before(lines, number),
        advice=advice[1] if (advice := _ADVICE.search(whole)) else None,
    )  # fmt: skip
    return (
        message
        if message.impossible is None
        else UnreadableMessage(number + 1, f"{tried[0]!r}, and its numbers cannot be true: {message.impossible}")
    )


def _smallest(segment: int) -> int:
    """Return the bytes of the smallest tensor for which the caching allocator asks for a segment of this size (get_allocation_size)."""
    if segment <= SMALL:
        return 1
    return 2**20 + 1 if segment == MIDDLE else segment - STEP + 1


def _rounding(number: str, unit: str) -> int:
    """Return by how many bytes a size can differ from what a message shows of it: half of its last decimal, rounded up."""
    decimals = len(number.partition(".")[2])
    return 0 if unit == "bytes" else -int(-0.5 * _unit(unit) // 10**decimals)


def _unit(name: str) -> int:
    return _UNITS[name if name == "bytes" else name[0]]


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _unit(unit))


def usages_of(text: str) -> tuple[MemoryUsage, ...]:
    """Return every line of DeepSpeed's see_memory_usage."""
    return tuple(
        MemoryUsage(text.count("\n", 0, match.start()) + 1, *(_bytes(match[part][:30], "GB") for part in (1, 2, 3, 4)))
        for match in _DEEPSPEED.finditer(text)
    )


def _first(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        match = re.search(pattern, text)
        if match is not None:
            return _bytes(match[1], match[2])
    return None
