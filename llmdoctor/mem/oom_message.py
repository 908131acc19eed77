"""Out-of-memory messages of torch since release 1.13, and DeepSpeed's memory lines, in the text of a log.

Forms (c10/cuda/CUDACachingAllocator.cpp): 1.13 to 2.0 "Tried to allocate X (GPU 0; X total capacity; X already allocated; X free; X reserved
in total by PyTorch)"; 2.1 and later "Tried to allocate X. GPU 0 has a total capacity of X of which X is free. ... Of the allocated memory X
is allocated by PyTorch, and X is reserved by PyTorch but unallocated." (2.1 writes "capacty"). XPU and NPU write the same. MPS writes "MPS backend
out of memory (MPS allocated: X, other allocations: X, max allowed: X). Tried to allocate X" (aten/src/ATen/mps/MPSAllocator.mm), the CPU "you tried
to allocate N bytes" (c10/core/impl/alloc_cpu.cpp), the backend cudaMallocAsync "Allocation on device 0 would exceed allowed memory. Currently
allocated : X Requested : X Device limit : X Free (according to CUDA): X PyTorch limit : X" (c10/cuda/CUDAMallocAsyncAllocator.cpp). DeepSpeed's
see_memory_usage writes "MA X GB Max_MA X GB CA X GB Max_CA X GB". All units are powers of two, whatever they are called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmdoctor.mem.oom_text import LogLine, frames_before, lines_of
from llmdoctor.mem.oom_types import CONTEXTS, MIDDLE, SLACK, MemoryUsage, OomMessage, UnreadableMessage

_SIZE = r"(\d{1,30}(?:\.\d{1,9})?) ?(bytes|KiB|MiB|GiB|TiB|KB|MB|GB|TB)\b"
_UNITS = {"bytes": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_START = re.compile(
    r"\b(CUDA|HIP|XPU|NPU|MLU|MPS backend) out of memory\b|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
    r"|Allocation on device \d{1,4} would exceed allowed memory"
)
_ASYNC = "Allocation on device"
_TRIED = re.compile(rf"(?:[Tt]ried to allocate|Requested {{0,30}}:) {_SIZE}")
_CUT = re.compile(r"[Tt]ried to a")
_PARTS = {
    "capacity": (
        rf"total capac[a-z]*ty of {_SIZE}",
        rf"{_SIZE} total capacity",
        rf"max allowed: {_SIZE}",
        rf"Device limit {{0,30}}: {_SIZE}",
    ),
    "free": (rf"of which {_SIZE} is free", rf"; {_SIZE} free", rf"Free \(according to CUDA\): {_SIZE}"),
    "allowed": (rf"{_SIZE} allowed;", rf"PyTorch limit .{{0,80}}: {_SIZE}"),
    "allocated": (
        rf"{_SIZE} is allocated by PyTorch",
        rf"{_SIZE} already allocated",
        rf"MPS allocated: {_SIZE}",
        rf"Currently allocated {{0,30}}: {_SIZE}",
    ),
    "unallocated": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved": (rf"{_SIZE} reserved in total by PyTorch", rf"; {_SIZE} cached\b"),
    "in_use": (rf"this process has {_SIZE} memory in use",),
    "private": (rf"with {_SIZE} allocated in private pools",),
}
_OTHERS = re.compile(rf"Process \d+ has {_SIZE} memory in use")
_INDEX = re.compile(r"\b(?:[GN]PU|on device) (\d{1,4})\b")
_DEEPSPEED = re.compile(r"\bMA (\d+(?:\.\d+)?) GB\s+Max_MA (\d+(?:\.\d+)?) GB\s+CA (\d+(?:\.\d+)?) GB\s+Max_CA (\d+(?:\.\d+)?) GB")
_ADVICE = re.compile(r"try setting (PYTORCH_[A-Z_]{0,20}ALLOC_CONF=expandable_segments:True|max_split_size_mb)")
_REAL = re.compile(r"(?:Error|error|exception|Exception): {0,3}$")
_REACH = 30  # lines of a message: a narrow terminal breaks it into a dozen
SMALL, STEP = 2 * 2**20, 2 * 2**20  # segments: up to 1 MiB, and beyond 10 MiB in steps (kSmallBuffer, kRoundLarge)


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
    device = "CUDA" if start[0].startswith(_ASYNC) else (start[1] or "CPU").removesuffix(" backend")
    index = _INDEX.search(whole)
    size, rounding = _bytes(tried[1], tried[2]), _rounding(tried[1], tried[2])
    exact = device in ("CPU", "MPS") or start[0].startswith(_ASYNC)
    smallest = size - rounding if exact else _smallest(size) - rounding
    capacity = parts["capacity"]
    in_use, listed = _held(parts["in_use"], [_bytes(other[1], other[2]) for other in _OTHERS.finditer(whole)], reserved)
    allowed = (
        None if capacity is None or (parts["allowed"] or capacity) >= capacity * (1 - SLACK) else parts["allowed"]
    )  # all of it is no limit
    message = OomMessage(
        line=number + 1, device=device, index=int(index[1]) if index else None, tried=size, smallest=max(1, smallest), largest=size + rounding,
        capacity=capacity, free=parts["free"], allocated=allocated,
        allowed=allowed, reserved=reserved, private=parts["private"],
        # Under Windows and WSL the driver does not know it, and torch prints 17179869184.00 GiB.
        in_use=in_use if in_use is not None and capacity is not None and in_use <= 2 * capacity else None,
        listed=listed, frames=frames_before(lines, number),
        advice=advice[1] if (advice := _ADVICE.search(whole)) else None,
    )  # fmt: skip
    return (
        message
        if message.impossible is None
        else UnreadableMessage(number + 1, f"{tried[0]!r}, and its numbers cannot be true: {message.impossible}")
    )


def _held(in_use: int | None, listed: list[int], reserved: int | None) -> tuple[int | None, int]:
    """Return what the process itself and what others hold of the device, by the processes that the message lists.

    In a container the driver numbers processes otherwise than the process itself does, so that torch finds its own among "Process N has X" and
    writes no "this process has X" (CUDACachingAllocator.cpp, reportProcessMemoryInfo): it is then the one that holds hardly more than the reserve.
    """
    if in_use is not None or not listed:
        return in_use, sum(listed)
    own = min((size for size in listed if reserved is not None and reserved * (1 - SLACK) <= size <= reserved + CONTEXTS), default=None)
    return own, 0 if own is None else sum(listed) - own


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
