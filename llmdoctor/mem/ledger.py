"""What is held, by component, during the events of a step, and the largest moment of each phase."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from llmdoctor.mem.allocator import Allocator, Exact, MemoryBlock


@dataclass(slots=True)
class Moment:
    """What was held at one time: bytes by component, in all, and which phase of which step it was."""

    phase: str
    total: int
    components: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Allocations by name. `phase` names what is going on; the largest moment of each phase since reset() is kept."""

    def __init__(self, *, exact: bool = False) -> None:
        self.allocator = Exact() if exact else Allocator()
        self.phase = "start"
        self.components: dict[str, int] = {}
        self.host: dict[str, int] = {}
        self.peaks: dict[str, Moment] = {}
        self._blocks: dict[Hashable, tuple[MemoryBlock, str]] = {}

    def add(self, name: Hashable, size: int, component: str, stream: str = "") -> None:
        """Allocate `size` bytes under `name`, from the free blocks of `stream`; nothing for 0 bytes."""
        if size <= 0:
            return
        block = self.allocator.take(size, stream)
        self._blocks[name] = (block, component)
        self.components[component] = self.components.get(component, 0) + block.size
        peak = self.peaks.get(self.phase)
        if peak is None or self.allocator.allocated > peak.total:
            self.peaks[self.phase] = Moment(self.phase, self.allocator.allocated, dict(self.components))

    def drop(self, name: Hashable) -> None:
        """Free what `name` holds; nothing if it holds nothing."""
        held = self._blocks.pop(name, None)
        if held is None:
            return
        self.components[held[1]] -= held[0].size
        self.allocator.give(held[0])

    def hand(self, old: Hashable, new: Hashable, component: str) -> None:
        """Continue the storage of `old` under another name and component."""
        held = self._blocks.pop(old, None)
        if held is None:
            return
        self.components[held[1]] -= held[0].size
        self.components[component] = self.components.get(component, 0) + held[0].size
        self._blocks[new] = (held[0], component)

    def holds(self, name: Hashable) -> bool:
        """Return whether `name` holds anything."""
        return name in self._blocks

    def on_host(self, component: str, size: int) -> None:
        """Bytes in the host's memory."""
        self.host[component] = self.host.get(component, 0) + size

    def now(self) -> Moment:
        """Return what is held now."""
        return Moment(self.phase, self.allocator.allocated, {name: size for name, size in self.components.items() if size})

    def reset(self) -> None:
        """Forget the largest moments, as torch.cuda.reset_peak_memory_stats() does."""
        self.peaks = {}
