"""What an out-of-memory message says and what follows from its numbers: which limit was met, whose memory it is, in which phase."""

from __future__ import annotations

import re
from dataclasses import dataclass

NEARLY = 0.05  # of the device: with less to spare it is full, however the rest is arranged
SLACK = 0.02  # of the device: sizes are rounded, and the driver keeps a little
MIDDLE = 20 * 2**20  # the segment of tensors from 1 MiB to 10 MiB (kLargeBuffer)
CONTEXTS = 3 * 2**30  # a process takes less outside the allocator: its context, NCCL, libraries
_LARGEST_DEVICE, _LARGEST_REQUEST = 2**43, 2**63


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
    def engine(self) -> str | None:
        """Return the serving engine whose code asked for the memory: vLLM or SGLang; None if it was none, or a trainer drives it."""
        trained = any(re.search(r"[/\\](?:trl|verl|openrlhf|transformers[/\\]trainer)", frame) for frame in self.frames)
        found = next((match for frame in self.frames if (match := re.search(r"[/\\](vllm|sglang)[/\\]", frame))), None)
        return None if trained or found is None else {"vllm": "vLLM", "sglang": "SGLang"}[found[1]]

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
        if self.allocated is not None and self.allocated > self.capacity * (1 + SLACK):
            return "more is allocated than the device has, because the driver lends memory of the host (Windows), or memory is managed"
        if (self.allocated or 0) + (self.free or 0) > self.capacity * (1 + SLACK):
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
            r"modeling_utils\.py:\d+ (?:from_pretrained|_load_pretrained_model|to|cuda)$|module\.py:\d+ (?:to|cuda|_apply|load_state_dict)$"
            r"|[/\\](?:vllm|sglang)[/\\].* (?:create_weights|load_weights|load_model|initialize_model)$",
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
