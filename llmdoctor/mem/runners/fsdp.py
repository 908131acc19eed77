"""FSDP through accelerate: everything divided among the processes, gathered unit by unit (torch 2.11, distributed/fsdp).

Version 2 is _fully_shard/_fsdp_param_group.py and _fsdp_collectives.py, version 1 _flat_param.py and _runtime_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.mem.runners.base import Job, Runner, parameter_groups, width
from llmdoctor.mem.runners.states import make_states, step_scratch
from llmdoctor.mem.weights import WIDTHS, Weight

GATHER, REDUCE = "gather", "reduce"  # streams with free blocks of their own
ROOT = "(root)"
HELD = ("(tail)", ROOT)  # their weights stay gathered from the forward to the backward


class FsdpRunner(Runner):
    """Weights, gradients and states are parts; the weights of a unit are whole while it computes."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.sharded = self.strategy.sharded
        self.world, self.first = self.strategy.world_size, self.sharded.version == 1
        self.compute = width(self.strategy.autocast or self.strategy.dtype)
        self.members = self._members()
        self.cuts = self._cuts() if self.first else {}
        self.order: list[str] = []
        self.whole: set[str] = set()
        self.computing: list[str] = []
        self.fetched: str | None = None
        self.kept: str | None = None
        self.sent: str | None = None

    def _members(self) -> dict[str, tuple[Weight, ...]]:
        """Return the weights of each unit; of nested modules the innermost counts. Version 1 has no unit beside the layers and the root."""
        units = {unit: names for unit, names in self.job.units.items() if not (self.first and unit.startswith("("))}
        owners: dict[str, str] = {name: unit for unit, names in units.items() for name in names}
        found: dict[str, list[Weight]] = {}
        for weight in self.job.weights:
            parents = weight.name.split(".")
            paths = (".".join(parents[:end]) for end in range(len(parents) - 1, 0, -1))
            found.setdefault(next((owners[path] for path in paths if path in owners), ROOT), []).append(weight)
        return {unit: tuple(weights) for unit, weights in found.items()}

    def _cuts(self) -> dict[str, int]:
        """Return how many elements of each weight lie in this process's part of its unit's flat weight."""
        found: dict[str, int] = {}
        for weights in self.members.values():
            each = -(-sum(weight.numel for weight in weights) // self.world)
            low, offset = self.job.rank * each, 0
            for weight in weights:
                found[weight.name] = max(0, min(offset + weight.numel, low + each) - max(offset, low))
                offset += weight.numel
        return found

    def _original(self, weight: Weight) -> str:
        """Return the dtype of a weight's part: float32 for what is trained with mixed precision (accelerate, fsdp2_prepare_model)."""
        return "float32" if weight.trainable and self.strategy.autocast else self.strategy.dtype

    def _local(self, weight: Weight) -> int:
        """Return the elements of a weight's part on this process, as an optimizer sees it: rows are divided, the last process has fewer."""
        if self.first:
            return self.cuts.get(weight.name, 0)
        rows = weight.shape[0] if weight.shape else 1
        each = -(-rows // self.world)
        return max(0, min(each, rows - self.job.rank * each)) * (weight.numel // max(1, rows))

    def _padded(self, weight: Weight) -> int:
        """Return the elements of a part with its padding, which every process has."""
        rows = weight.shape[0] if weight.shape else 1
        return -(-weight.numel // self.world) if self.first else -(-rows // self.world) * (weight.numel // max(1, rows))

    # --- the frame

    def start(self) -> None:
        """Each unit goes to the device whole and is divided there: one part a weight (version 2), one a unit (version 1)."""
        ledger = self.ledger
        for number, size in enumerate(self.job.buffers):
            ledger.add(("buffer", number), size, "model_buffers")
        for unit, weights in self.members.items():
            if self.sharded.offload:
                ledger.on_host("params", sum(self._part(weight) for weight in weights))
                continue
            for weight in weights:
                ledger.add(("moved", weight.name), weight.numel * WIDTHS[self._original(weight)], "params")
            if self.first:
                ledger.add("flat", sum(weight.numel * WIDTHS[self._original(weight)] for weight in weights), "params")
                self._drop_moved(weights)
                ledger.add(("part", unit), sum(self._part(weight) for weight in weights), "params")
                ledger.drop("flat")
            else:
                for weight in weights:
                    ledger.add(("part", weight.name), self._part(weight), "params" if weight.trainable else "frozen_params")
                self._drop_moved(weights)

    def _part(self, weight: Weight) -> int:
        return self._padded(weight) * WIDTHS[self._original(weight)]

    def _drop_moved(self, weights: Sequence[Weight]) -> None:
        for weight in weights:
            self.ledger.drop(("moved", weight.name))

    def unit(self, name: str, what: str) -> None:
        """Gather, release, or gather again and fetch the unit before."""
        if name not in self.members:
            return
        if what == "done":
            if name in self.computing:  # the mark comes after the one of the unit before, unless there is none
                self._reduce_computed()
        elif what == "forward" and name not in self.whole:
            self.order.append(name)
            self._gather(name, forward=True)
        elif what == "forwarded" and self.sharded.reshard and name not in HELD:
            self._release(name)
        elif what == "backward":
            self._reduce_computed()
            self._gather(name, forward=False)
            self.computing.append(name)
            before = self.order.index(name) - 1 if name in self.order else -1
            if self.sharded.prefetch and before >= 0:
                self._fetch(self.order[before])

    def _phase(self, phase: str) -> None:
        if phase in ("forward", "evaluation"):
            self.order.clear()
            if self.first:
                self._drop_parts_of_gradients()
            super()._phase(phase)
            if ROOT in self.members and self.job.events:
                self._gather(ROOT, forward=True)
            return
        if phase == "backward":
            self.ledger.drop(("gathering", self.kept))
            self.kept = None
        super()._phase(phase)
        if phase == "backward" and self.first and self.sharded.prefetch and self.order:
            self._fetch(self.order[-1])  # the root's hook is on the loss

    # --- weights

    def _size(self, name: str) -> int:
        return sum(self._padded(weight) for weight in self.members[name]) * self.compute

    def _fetch(self, name: str) -> None:
        """Gather into a buffer of the whole unit (version 2), or into the flat weights themselves (version 1)."""
        if name in self.whole or self.fetched == name:
            return
        ledger, size = self.ledger, self._size(name)
        if self.sharded.offload:
            self._from_host(name)
        elif any(WIDTHS[self._original(weight)] != self.compute for weight in self.members[name]):
            ledger.add("cast part", size, "buckets", GATHER)
        if self.first:
            self._whole(name)
        else:
            ledger.add(("gathering", name), size * self.world, "buckets", GATHER)
            self.fetched = name
        ledger.drop("cast part")
        for weight in self.members[name] if self.sharded.offload else ():
            ledger.drop(("cast part", weight.name))

    def _from_host(self, name: str) -> None:
        """Copy each part to the device and cast it there."""
        for weight in self.members[name]:
            original = self._original(weight)
            self.ledger.add("copied part", self._part(weight), "buckets", GATHER)
            if WIDTHS[original] != self.compute:
                self.ledger.add(("cast part", weight.name), self._padded(weight) * self.compute, "buckets", GATHER)
                self.ledger.drop("copied part")
            else:
                self.ledger.hand("copied part", ("cast part", weight.name), "buckets")

    def _gather(self, name: str, *, forward: bool) -> None:
        """Copy the buffer into the weights. In the forward it is kept until the next one is copied, or the forward ends."""
        if name in self.whole:
            return
        self._fetch(name)
        if self.first:
            return
        if forward:
            self.ledger.drop(("gathering", self.kept))
        self._whole(name)
        if forward:
            self.kept = name
        else:
            self.ledger.drop(("gathering", name))
        self.fetched = None

    def _whole(self, name: str) -> None:
        self.whole.add(name)
        if self.first:
            self.ledger.add(("whole", name), self._size(name) * self.world, "params", GATHER)
            return
        for weight in self.members[name]:
            self.ledger.add(("whole", weight.name), self._padded(weight) * self.compute * self.world, "params")

    def _release(self, name: str) -> None:
        self.whole.discard(name)
        self.ledger.drop(("whole", name))
        for weight in self.members[name]:
            self.ledger.drop(("whole", weight.name))

    # --- gradients

    def gradient(self, weight: Weight, storage: object) -> None:
        """It stays whole until its unit is done."""
        if self.job.events and not self.ledger.holds(("grad", weight.name)):
            self.keep(weight, storage)

    def after_backward(self) -> None:
        """What has not been reduced: the root, and units whose inputs get no gradient. Without a trace no unit is known: the parts alone."""
        if not self.job.events and not self.sharded.offload:
            self.ledger.add(("part of grad", ROOT), sum(self._part(weight) for weight in self.job.trained), "grads")
        self._reduce_computed()
        for name in [*(unit for unit in self.members if unit in self.whole)]:
            self._reduce(name)
        for weights in self.members.values() if self.boundary else ():
            for weight in weights:
                self.ledger.drop(("grad", weight.name))
        self.ledger.drop(("sending", self.sent))
        self.ledger.drop(("gathering", self.fetched))  # a unit whose output needs no gradient is gathered in vain
        self.sent = self.fetched = None

    def _reduce_computed(self) -> None:
        for name in self.computing:
            if not (name in HELD and name != ROOT and self._ends_late(name)):
                self._reduce(name)
        self.computing.clear()

    def _ends_late(self, name: str) -> bool:
        """Return whether a unit contains the embedding, whose input gets no gradient: it is reduced at the end of the backward."""
        return any(weight.embedding for weight in self.members[name])

    def _reduce(self, name: str) -> None:
        """Release the weights, send the gradients in the dtype of the computation, and keep the part of the sum in that of the parts."""
        ledger = self.ledger
        if self.first:
            self._reduce_flat(name)
            return
        self._release(name)
        if not self.boundary:
            return
        weights = [weight for weight in self.members[name] if ledger.holds(("grad", weight.name))]
        ledger.drop(("sending", self.sent))
        if not weights:
            return
        size = sum(self._padded(weight) for weight in weights)
        ledger.add(("sending", name), size * self.world * self.compute, "buckets")
        for weight in weights[:-1]:
            ledger.drop(("grad", weight.name))
        self.sent = name
        ledger.add("received", size * self.compute, "buckets", REDUCE)
        original = WIDTHS[self._original(weights[0])]
        if original != self.compute:
            ledger.add(("part of grad", name), size * original, "grads", REDUCE)
            ledger.drop("received")
        else:
            ledger.hand("received", ("part of grad", name), "grads")
        if self.sharded.offload:
            ledger.drop(("part of grad", name))
        ledger.drop(("grad", weights[-1].name))  # a variable of a loop holds it until here (_fsdp_collectives.py, foreach_reduce)

    def _reduce_flat(self, name: str) -> None:
        """Version 1: autograd makes one flat gradient of those of a unit's weights, which is added to one of an earlier micro step."""
        ledger, original = self.ledger, WIDTHS[self._original(self.members[name][0])]
        size = sum(self._padded(weight) for weight in self.members[name])
        got = any(ledger.holds(("grad", weight.name)) for weight in self.members[name])
        if got:
            ledger.add("flat", size * self.world * self.compute, "grads")
            for weight in self.members[name]:
                ledger.drop(("grad", weight.name))
            if ledger.holds(("flat", name)):
                ledger.drop("flat")
            else:
                ledger.hand("flat", ("flat", name), "grads")
        self._release(name)
        if not self.boundary or not ledger.holds(("flat", name)):
            return
        ledger.add("received", size * self.compute, "buckets", REDUCE)
        if original != self.compute:
            ledger.add(("part of grad", name), size * original, "grads", REDUCE)
            ledger.drop("received")
        else:
            ledger.hand("received", ("part of grad", name), "grads")
        ledger.drop(("flat", name))

    # --- step

    def step(self) -> None:
        """The optimizer works on the parts; version 1 keeps those of the gradients until the next forward."""
        trained = [weight for weight in self.job.trained if weight.name in self.reached]
        for group in parameter_groups(self.strategy, trained):
            tensors = [(weight.name, self._local(weight), self._original(weight)) for weight in group if self._local(weight)]
            self._optimize(tensors)
        if not self.first:
            self._drop_parts_of_gradients()

    def _optimize(self, tensors: Sequence[tuple[str, int, str]]) -> None:
        optimizer = self.strategy.optimizer
        if self.sharded.offload:
            return
        if self.taken == 0:
            make_states(self.ledger, optimizer, tensors)
        step_scratch(self.ledger, optimizer, tensors)

    def _drop_parts_of_gradients(self) -> None:
        for unit in self.members:
            self.ledger.drop(("part of grad", unit))
