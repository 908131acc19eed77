"""Flat tensors and their parts on each process, padding included (deepspeed 0.19.8, runtime/zero/stage_1_and_2.py and stage3.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmdoctor.mem.weights import Weight

ALIGNMENT = 2  # nccl_start_alignment_factor, stage_1_and_2.py:387


@dataclass(frozen=True, slots=True)
class Flat:
    """One parameter group as a flat tensor of `numel` elements, of which a process owns `part`; `inside` are the ones that touch its part."""

    name: str
    weights: tuple[Weight, ...]
    numel: int
    part: int
    inside: frozenset[str]

    @property
    def real(self) -> int:
        """Elements without padding."""
        return sum(weight.numel for weight in self.weights)


def flatten(name: str, weights: Sequence[Weight], world: int, rank: int, *, align: int = 1) -> Flat:
    """A group of stage 1 and 2: padded to 2 x the world size (stage_1_and_2.py:415), cut into equal parts (:2559).

    `align`: elements to which each parameter's end is padded, 16 bytes under zero_optimization.parameter_alignment (:419), else 1.
    """
    spans, offset = [], 0
    for number, weight in enumerate(weights):
        spans.append((weight.name, offset, offset + weight.numel))
        offset += weight.numel
        offset += 0 if number == len(weights) - 1 else -offset % align
    total = math.ceil(offset / (ALIGNMENT * world)) * ALIGNMENT * world
    part = total // world
    low, high = rank * part, (rank + 1) * part
    inside = frozenset(name for name, begin, end in spans if begin < high and end > low)
    return Flat(name, tuple(weights), total, part, inside)


def stage3_part(weight: Weight, world: int) -> int:
    """Elements of a parameter that each process holds: rounded up (partition_parameters.py, _partition_numel)."""
    return -(-weight.numel // world)


def sub_groups(weights: Sequence[Weight], world: int, size: int) -> list[tuple[Weight, ...]]:
    """Stage 3's sub-groups: filled until they reach sub_group_size elements of a process's parts (stage3.py:1210)."""
    out: list[tuple[Weight, ...]] = []
    group: list[Weight] = []
    held = 0
    for weight in weights:
        group.append(weight)
        held += stage3_part(weight, world)
        if held >= size:
            out.append(tuple(group))
            group, held = [], 0
    if group:
        out.append(tuple(group))
    return out
