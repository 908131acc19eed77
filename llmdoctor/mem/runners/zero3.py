"""ZeRO stage 3: every parameter cut into parts, gathered where it is used (deepspeed 0.19.8, runtime/zero/stage3.py, partition_parameters.py)."""

from __future__ import annotations

from llmdoctor.mem.optimizers import state_keys
from llmdoctor.mem.runners.base import Job, Runner, parameter_groups, width
from llmdoctor.mem.runners.flat import stage3_part, sub_groups
from llmdoctor.mem.runners.states import make_states, step_scratch
from llmdoctor.mem.weights import Weight

FP64 = 8


class Zero3Runner(Runner):
    """Parts of weights, masters, states and gradients are always held, and so is the bucket."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        engine = self.strategy.deepspeed
        self.engine, self.zero, self.world = engine, engine.zero, self.strategy.world_size
        self.offload = self.zero.offload_optimizer is not None
        groups = parameter_groups(self.strategy, job.trained)
        self.groups = [sub for group in groups for sub in sub_groups(group, self.world, self.zero.sub_group_size)]
        self.gathers = self.world > 1 or self.zero.offload_param is not None
        self.gathered: list[tuple[str, str]] = []
        self.filled = 0

    def part(self, weight: Weight) -> int:
        """Elements of a parameter that this process holds."""
        return stage3_part(weight, self.world)

    def start(self) -> None:
        """Parts in one buffer (:972), masters (:1170), gradients (:791), the bucket (:782); persistent parameters whole (:2845)."""
        ledger, zero = self.ledger, self.zero
        self.place_weights()
        size = sum(self.part(weight) for weight in self.job.trained) * self.strategy.width
        frozen = [weight for weight in self.job.weights if not weight.trainable]
        if zero.offload_param is None:
            ledger.add("parts", size, "params")
            for weight in frozen if self.world > 1 else ():
                ledger.drop(("weight", weight.name))
                ledger.add(("part", weight.name), self.part(weight) * self.strategy.width, "frozen_params")
        else:
            ledger.on_host("params", size + sum(weight.nbytes for weight in frozen))
            for weight in frozen:
                ledger.drop(("weight", weight.name))
        for weight in self.job.trained:
            ledger.drop(("weight", weight.name))
        if self.gathers:
            for weight in self.job.weights:
                if weight.numel <= zero.param_persistence_threshold:
                    ledger.add(("persistent", weight.name), weight.nbytes, "params")
        self._optimizer_side()

    def _optimizer_side(self) -> None:
        ledger, master = self.ledger, width(self.engine.master)
        accumulated = sum(self.part(weight) for weight in self.job.trained) * width(self.engine.grad_accum)
        if self.offload:
            for group in self.groups:
                part = sum(self.part(weight) for weight in group)
                ledger.on_host("master_params", part * master)
                for key in state_keys(self.strategy.optimizer):
                    ledger.on_host(f"optimizer_state.{key}", part * (2 if self.strategy.optimizer.half_states else master))
            ledger.on_host("grads", accumulated)
        else:
            for number, group in enumerate(self.groups):
                part = sum(self.part(weight) for weight in group)
                if self.strategy.width != master:
                    ledger.add("converted", part * master, "temporaries")
                ledger.add(("master", number), part * master, "master_params")  # :1162 compares a device with a text, so it never shares
                ledger.drop("converted")
            largest = max(sum(self.part(weight) for weight in group) for group in self.groups)
            self.scratch(largest * master)
            ledger.add("accumulated", accumulated, "grad_accum")
        if self.zero.contiguous_gradients:
            ledger.add("bucket", self.zero.reduce_bucket_size * self.strategy.width, "buckets")

    def gradient(self, weight: Weight, storage: object) -> None:
        """Into the bucket; when it is full, reduced and cut into the parts (:1569, :1912)."""
        if self.filled and self.filled + weight.numel > self.zero.reduce_bucket_size:
            self._reduce()
        if weight.numel > self.zero.reduce_bucket_size or not self.zero.contiguous_gradients:
            self.keep(weight, storage)
        self.filled += weight.numel

    def _reduce(self) -> None:
        """reduce_scatter_coalesced: one flat tensor of the bucket's gradients; with fp32 accumulation a cast of each part."""
        self.ledger.add("flattened", self.filled * self.strategy.width, "temporaries")
        if self.engine.grad_accum != self.strategy.dtype:
            self.ledger.add("cast", -(-self.filled // self.world) * width(self.engine.grad_accum), "temporaries")
        self.ledger.drop("flattened")
        self.ledger.drop("cast")
        for weight in self.job.trained:
            self.ledger.drop(("grad", weight.name))
        self.filled = 0

    def after_backward(self) -> None:
        """The rest of the bucket; what was gathered is released (:2876)."""
        self._reduce()
        for name in self.gathered:
            self.ledger.drop(name)
        self.gathered.clear()

    def _phase(self, phase: str) -> None:
        super()._phase(phase)
        if phase in ("forward", "evaluation") and self.gathers:
            self._gather()

    def _gather(self) -> None:
        """Hold what is gathered at the end of the forward, when it is most.

        A parameter stays after its use if it is used again within max_reuse_distance elements of the trace, which goes through the
        layers forward and backward (partitioned_param_coordinator.py, __params_to_release); the others are prefetched, at most
        prefetch_bucket_size elements at once.
        """
        between, released = 0, 0
        for weight in self._in_reverse_order():
            if weight.numel > self.zero.param_persistence_threshold:
                if 2 * between < self.zero.max_reuse_distance:
                    if ("gathered", weight.name) not in self.gathered:
                        self.gathered.append(("gathered", weight.name))
                        self.ledger.add(("gathered", weight.name), weight.nbytes, "params")
                elif ("gathered", weight.name) not in self.gathered:
                    released += weight.nbytes
            between += weight.numel
        if released:
            self.gathered.append(("gathered", "prefetched"))
            size = min(self.zero.prefetch_bucket_size * self.strategy.width, released)
            largest = max((weight.nbytes for weight in self.job.weights if weight.numel > self.zero.param_persistence_threshold), default=0)
            self.ledger.add(("gathered", "prefetched"), max(size, largest), "params")

    def _in_reverse_order(self) -> list[Weight]:
        """Return the parameters that are used, last first: as the model has them, with a tied output layer after the last."""
        used = [weight for weight in self.job.weights if weight.name in self.reached or not weight.trainable]
        tied = bool(used) and used[0].embedding and len(used[-1].shape) == 1
        return ([used[0]] if tied else []) + used[::-1]

    def step(self) -> None:
        """step (:2873), sub-group by sub-group: a flat copy of its gradients and their cast (:2686), then the optimizer."""
        if self.offload:
            return
        ledger, master = self.ledger, width(self.engine.master)
        self.scratch(max(self.part(weight) for weight in self.job.trained) * FP64)
        for number, group in enumerate(self.groups):
            part = sum(self.part(weight) for weight in group)
            if len(group) > 1:
                ledger.add("flat copy", part * width(self.engine.grad_accum), "temporaries")
            if self.engine.grad_accum != self.engine.master:
                ledger.add("cast", part * master, "temporaries")
                ledger.drop("flat copy")
            tensors = [(str(number), part, self.engine.master)]
            if self.taken == 0:
                make_states(ledger, self.strategy.optimizer, tensors)
            step_scratch(ledger, self.strategy.optimizer, tensors)
            ledger.drop("cast")
            ledger.drop("flat copy")
