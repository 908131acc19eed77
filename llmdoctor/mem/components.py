"""The bytes of a moment by component, and the names and units of the components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdoctor.mem.ledger import Moment
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.types import Estimate

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
_INTO = {"frozen_params": "params", "reference": "params", "model_buffers": "params", "inputs": "activations"}


def component_of(name: str) -> str:
    """Return the component that a ledger's name belongs to: optimizer_state for optimizer_state.exp_avg."""
    name = name.partition(".")[0]
    return _INTO.get(name, name)


def by_component(moment: Moment) -> dict[str, int]:
    """Return the bytes of every component, zeros included; they add up to the moment's total."""
    out = dict.fromkeys(COMPONENTS, 0)
    for name, size in moment.components.items():
        out[component_of(name)] += size
    return out


def parts_of(moment: Moment, component: str) -> dict[str, int]:
    """Return the bytes of a component's parts: optimizer states by key, activations by kind of layer."""
    out: dict[str, int] = {}
    for name, size in moment.components.items():
        if component_of(name) == component and size:
            key = name.partition(".")[2] or name
            out[key] = out.get(key, 0) + size
    return out


def host_parts(host: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes of host memory by component."""
    out: dict[str, int] = {}
    for name, size in host.items():
        key = name.partition(".")[0]
        out[key] = out.get(key, 0) + size
    return out


def context_of(strategy: Strategy) -> int:
    """Return the bytes that the process takes outside the allocator, the middle of what was measured."""
    least, most = strategy.entry.outside
    return (least + most) // 2


class Unit:
    """GB of 1e9 bytes, or MB of 1e6 if the largest number of an answer is below 0.1 GB."""

    def __init__(self, most: int) -> None:
        self.name, self.size = ("GB", 10**9) if most >= 10**8 else ("MB", 10**6)

    def __call__(self, size: int) -> str:
        """Return the number of a size without its unit; a dash for 0."""
        if size == 0:
            return "-"
        return f"{size / self.size:.1f}" if abs(size) >= 0.05 * self.size else f"{size / self.size:.3f}"

    @property
    def title(self) -> str:
        """Return the text for the head of a column."""
        return f"{self.name} (1e{9 if self.name == 'GB' else 6} bytes)"


def unit_of(estimates: Sequence[Estimate], memory: int = 0) -> Unit:
    """Return the unit in which all sizes of an answer are given; `memory` are the bytes of a device, if they are part of the answer."""
    return Unit(max(memory, *(estimate.prediction.peak.total for estimate in estimates)))
