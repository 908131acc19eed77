"""Follows a training process through forward, backward, step and what is between steps, and records what it holds in each.

Used in processes of our own (`mem measure MODEL`) and, through the import hook, in the user's (`mem measure -- COMMAND`). It watches the
calls that every trainer makes: torch.autograd.backward, an optimizer's step, DeepSpeed's engine. Nothing of the user's is changed.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

from llmdoctor.mem.live.inventory import inventory

PHASES = ("forward", "backward", "step", "between steps")
WriteRecord = Callable[..., None]


class Probe:
    """One process. `write` takes a record; `at` are the optimizer steps, from 1, of which the tensors are listed; `resets` says whether the
    allocator's peak may be reset at each phase (only in a process of our own).
    """

    def __init__(self, write: WriteRecord, *, at: tuple[int, ...] = (2,), resets: bool = False, models: list[Any] | None = None) -> None:
        self.write, self.at, self.resets = write, at, resets
        self.models = models
        self.step = 1
        self.phase = "forward"
        self.inside = False
        self.optimizers: list[Any] = []
        self.took = 0.0
        self._armed: Any = None
        self._history: Any = None

    # --- transitions

    def forward_begins(self, *_: Any) -> None:
        """The first module call after a step or a backward."""
        self._disarm()
        if self.phase == "step":
            self._leave("step")
            self._between()
            self.step += 1
            self._start_history()
        elif self.phase == "backward":
            self._leave("backward")
        self.phase = "forward"

    def backward_begins(self) -> None:
        """torch.autograd.backward is called; a nested one (checkpointing) belongs to it."""
        if self.phase != "backward":
            self._leave(self.phase)
            self.phase = "backward"

    def backward_ends(self) -> None:
        """It has returned: the next module call is another forward."""
        self._arm()

    def step_begins(self, optimizer: Any) -> None:
        """An optimizer's, or a DeepSpeed engine's, step is called."""
        if not any(known() is optimizer for known in self.optimizers):
            self.optimizers.append(weakref.ref(optimizer))
        if self.phase != "step":
            self._disarm()
            self._leave(self.phase)
            self.phase = "step"

    def step_ends(self) -> None:
        """It has returned: the next module call is the next step's forward."""
        self._arm()

    def finish(self) -> None:
        """Training is over: the last step's end counts."""
        self._disarm()
        if self.phase == "step":
            self._leave("step")
            self._between()

    # --- what is recorded

    def _leave(self, phase: str) -> None:
        started = time.perf_counter()
        fields: dict[str, Any] = {"phase": phase, "step": self.step, **self._allocator()}
        if self.step in self.at:
            fields["components"] = self._components()
        self.write("phase", **fields)
        self.took += time.perf_counter() - started

    def _between(self) -> None:
        started = time.perf_counter()
        fields: dict[str, Any] = {"phase": "between steps", "step": self.step, **self._allocator(peak=False), **_outside()}
        if self.step in self.at:
            fields["components"] = self._components()
            fields["peak"] = self._stop_history()
        fields["probe_seconds"] = round(self.took, 6)
        self.write("phase", **fields)
        self.took += time.perf_counter() - started

    def _components(self) -> dict[str, dict[str, int]]:
        import torch

        models = self.models
        if models is None:
            found = [item for item in gc.get_objects() if issubclass(type(item), torch.nn.Module)]
            inner = {id(child) for module in found for child in module.children()}
            models = [module for module in found if id(module) not in inner]
        known = [optimizer for reference in self.optimizers if (optimizer := reference()) is not None]
        return inventory(models, known)

    def _allocator(self, *, peak: bool = True) -> dict[str, Any]:
        import torch

        if not torch.cuda.is_available() or not torch.cuda.is_initialized():
            return {"device": "cpu"}
        stats = torch.cuda.memory_stats()
        out: dict[str, Any] = {
            "device": f"cuda:{torch.cuda.current_device()}",
            "allocated_bytes": stats["allocated_bytes.all.current"],
            "reserved_bytes": stats["reserved_bytes.all.current"],
        }
        if peak and self.resets:
            out["peak_bytes"] = stats["allocated_bytes.all.peak"]
            out["peak_reserved_bytes"] = stats["reserved_bytes.all.peak"]
            torch.cuda.reset_peak_memory_stats()
        elif peak:
            out["peak_so_far_bytes"] = stats["allocated_bytes.all.peak"]
        return out

    def _start_history(self) -> None:
        """Record every allocation of a step that is of interest (CUDA only)."""
        import torch

        if self.step in self.at and torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.memory._record_memory_history(enabled="all", context="alloc", stacks="python", max_entries=1_000_000)
            self._history = torch.cuda.memory_stats()["allocated_bytes.all.current"]

    def _stop_history(self) -> dict[str, Any] | None:
        """What was alive at the step's largest moment, by the file and line that allocated it."""
        import torch

        if self._history is None:
            return None
        from llmdoctor.mem.snapshot import peak_of

        snapshot = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(enabled=None)
        before, self._history = self._history, None
        found = peak_of(snapshot, device=torch.cuda.current_device(), before=before)
        return {"bytes": found.bytes, "by_component": found.by_component, "by_site": [list(site) for site in found.by_site[:20]]}

    # --- waiting for the next forward

    def _arm(self) -> None:
        from torch.nn.modules.module import register_module_forward_pre_hook

        if self._armed is None:
            self._armed = register_module_forward_pre_hook(lambda *_: self.forward_begins())

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed.remove()
            self._armed = None


def _outside() -> dict[str, Any]:
    """What NVML says this process takes of the device, and its resident memory."""
    import os

    out: dict[str, Any] = {}
    try:
        with open("/proc/self/statm") as file:
            out["resident_bytes"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return out
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}".encode())
        mine = [p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
        if mine and mine[0]:
            out["nvml_process_bytes"] = mine[0]
        out["nvml_device_used_bytes"] = pynvml.nvmlDeviceGetMemoryInfo(handle).used
    except Exception as error:  # noqa: BLE001 NVML is a second opinion, never needed
        out["nvml_error"] = f"{type(error).__name__}: {error}"[:200]
    return out


def watch_torch(probe: Probe, patches: Any) -> None:
    """Tell `probe` of every backward and every optimizer's step. `patches` replaces attributes so that they can be put back."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    original = torch.autograd.backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        probe.backward_begins()
        try:
            return original(*args, **kwargs)
        finally:
            probe.backward_ends()

    patches.set(torch.autograd, "backward", backward)
    register_optimizer_step_pre_hook(lambda optimizer, *_: None if probe.inside else probe.step_begins(optimizer))
    register_optimizer_step_post_hook(lambda *_: None if probe.inside else probe.step_ends())


def watch_deepspeed(probe: Probe, patches: Any, module: Any) -> None:
    """Tell `probe` of a DeepSpeed engine's step: the copies that it makes before the optimizer's own belong to it."""
    engine = module.DeepSpeedEngine
    original = engine.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_gradient_accumulation_boundary():
            return original(self, *args, **kwargs)
        probe.step_begins(self.optimizer)
        probe.inside = True
        try:
            return original(self, *args, **kwargs)
        finally:
            probe.inside = False
            probe.step_ends()

    patches.set(engine, "step", step)
