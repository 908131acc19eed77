"""PyTorch's caching allocator on CUDA, as arithmetic: what a block takes, what is split, what stays reserved.

Source: torch 2.11 to 2.14, c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h (kMinBlockSize, kSmallSize, kSmallBuffer,
kLargeBuffer, kMinLargeAlloc, kRoundLarge), default settings. Each stream has free blocks of its own.
memory_allocated() is the sum of the blocks in use, which are larger than their tensors where a remainder of at most 1 MiB is not split off.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIN_BLOCK = 512
SMALL = 2**20
SMALL_BUFFER = 2 * 2**20
LARGE_BUFFER = 20 * 2**20
MIN_LARGE = 10 * 2**20
ROUND_LARGE = 2 * 2**20


class MemoryBlock:
    """A stretch of a segment: [address, address + size), its neighbours in the segment, in use or free. `pool` is (small, stream)."""

    __slots__ = ("address", "free", "next", "pool", "previous", "size")

    def __init__(self, address: int, size: int, pool: tuple[bool, str]) -> None:
        self.address, self.size, self.pool = address, size, pool
        self.free = False
        self.previous: MemoryBlock | None = None
        self.next: MemoryBlock | None = None


class Allocator:
    """Blocks handed out and taken back. `allocated` and `reserved` are in bytes."""

    def __init__(self) -> None:
        self.allocated = 0
        self.reserved = 0
        self.largest_reserved = 0
        self._top = 0
        self._pools: dict[tuple[bool, str], list[tuple[int, int]]] = {}
        self._at: dict[int, MemoryBlock] = {}

    def take(self, size: int, stream: str = "") -> MemoryBlock:
        """A block for `size` bytes: the smallest free one of the stream that is large enough, else a new segment."""
        size = max(MIN_BLOCK, -(-size // MIN_BLOCK) * MIN_BLOCK)
        small = size <= SMALL
        pool = self._pools.setdefault((small, stream), [])
        found = bisect_left(pool, (size, -1))
        block = self._at[pool.pop(found)[1]] if found < len(pool) else self._segment(size, (small, stream))
        rest = block.size - size
        if rest >= MIN_BLOCK if small else rest > SMALL:
            self._split(block, size)
        block.free = False
        self.allocated += block.size
        return block

    def give(self, block: MemoryBlock) -> None:
        """Take a block back and join it with free neighbours."""
        self.allocated -= block.size
        for other in (block.previous, block.next):
            if other is not None and other.free:
                self._pools[block.pool].remove((other.size, other.address))
                block = self._join(other, block) if other.address < block.address else self._join(block, other)
        block.free = True
        insort(self._pools[block.pool], (block.size, block.address))

    def empty_cache(self) -> None:
        """Give whole free segments back to the device."""
        for pool in self._pools.values():
            for size, address in list(pool):
                block = self._at[address]
                if block.previous is None and block.next is None:
                    pool.remove((size, address))
                    del self._at[address]
                    self.reserved -= size

    def _segment(self, size: int, pool: tuple[bool, str]) -> MemoryBlock:
        length = SMALL_BUFFER if pool[0] else LARGE_BUFFER if size < MIN_LARGE else -(-size // ROUND_LARGE) * ROUND_LARGE
        block = MemoryBlock(self._top, length, pool)
        self._at[self._top] = block
        self._top += length
        self.reserved += length
        self.largest_reserved = max(self.largest_reserved, self.reserved)
        return block

    def _split(self, block: MemoryBlock, size: int) -> None:
        rest = MemoryBlock(block.address + size, block.size - size, block.pool)
        rest.previous, rest.next, rest.free = block, block.next, True
        if block.next is not None:
            block.next.previous = rest
        block.next, block.size = rest, size
        self._at[rest.address] = rest
        insort(self._pools[block.pool], (rest.size, rest.address))

    def _join(self, left: MemoryBlock, right: MemoryBlock) -> MemoryBlock:
        left.size += right.size
        left.next = right.next
        if right.next is not None:
            right.next.previous = left
        del self._at[right.address]
        return left


class Exact(Allocator):
    """Every block as large as its tensor: what an inventory of tensors finds, on a CPU too."""

    def take(self, size: int, stream: str = "") -> MemoryBlock:
        """A block of exactly `size` bytes."""
        self.allocated += size
        self.largest_reserved = max(self.largest_reserved, self.allocated)
        return MemoryBlock(0, size, (False, stream))

    def give(self, block: MemoryBlock) -> None:
        """Take it back."""
        self.allocated -= block.size
