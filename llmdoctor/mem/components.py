"""A moment's bytes by the components that people know, and the words for each."""

from __future__ import annotations

from collections.abc import Mapping

from llmdoctor.mem.ledger import Moment
from llmdoctor.mem.settings import Strategy

COMPONENTS = (
    "params",
    "master_params",
    "optimizer_state",
    "grad_accum",
    "grads",
    "buckets",
    "activations",
    "logits",
    "temporaries",
    "workspace",
)
LABELS = {
    "params": "weights",
    "master_params": "master weights",
    "optimizer_state": "optimizer state",
    "grad_accum": "accumulated grads",
    "grads": "gradients",
    "buckets": "buckets",
    "activations": "activations",
    "logits": "logits and loss",
    "temporaries": "temporaries",
    "workspace": "cuBLAS workspace",
}
_INTO = {"frozen_params": "params", "model_buffers": "params", "inputs": "activations"}
MIB = 2**20
# What NVML shows beyond the allocator's reserved bytes, CUDA context included: H200, torch 2.11, deepspeed 0.19.8 (least, most).
CONTEXT = {"trainer": (742 * MIB, 760 * MIB), "deepspeed": (1300 * MIB, 1708 * MIB), "trainer+deepspeed": (1700 * MIB, 1708 * MIB)}


def component_of(name: str) -> str:
    """The component that a ledger's name belongs to: optimizer_state.exp_avg -> optimizer_state."""
    name = name.partition(".")[0]
    return _INTO.get(name, name)


def by_component(moment: Moment) -> dict[str, int]:
    """Bytes of every component, zeros included; they add up to the moment's total."""
    out = dict.fromkeys(COMPONENTS, 0)
    for name, size in moment.components.items():
        out[component_of(name)] += size
    return out


def parts_of(moment: Moment, component: str) -> dict[str, int]:
    """What a component consists of: optimizer states by key, activations by kind."""
    out: dict[str, int] = {}
    for name, size in moment.components.items():
        if component_of(name) == component and size:
            key = name.partition(".")[2] or name
            out[key] = out.get(key, 0) + size
    return out


def host_parts(host: Mapping[str, int]) -> dict[str, int]:
    """Host memory by component."""
    out: dict[str, int] = {}
    for name, size in host.items():
        key = name.partition(".")[0]
        out[key] = out.get(key, 0) + size
    return out


def context_of(strategy: Strategy) -> int:
    """Bytes that the process takes outside the allocator, the middle of what was measured."""
    least, most = CONTEXT[strategy.runner]
    return (least + most) // 2


class Unit:
    """GB of 1e9 bytes, or MB of 1e6 where the largest number is a small one."""

    def __init__(self, most: int) -> None:
        self.name, self.size = ("GB", 10**9) if most >= 10**8 else ("MB", 10**6)

    def __call__(self, size: int) -> str:
        """A number without its unit; a dash for none."""
        if size == 0:
            return "-"
        return f"{size / self.size:.1f}" if abs(size) >= 0.05 * self.size else f"{size / self.size:.3f}"

    @property
    def title(self) -> str:
        """For a column's head."""
        return f"{self.name} (1e{9 if self.name == 'GB' else 6} bytes)"
