"""ZeRO stages 1 and 2: flat weights, one part of the fp32 master and its states a process (deepspeed 0.19.8, runtime/zero/stage_1_and_2.py)."""

from __future__ import annotations

from llmdoctor.mem.runners.base import Job, Runner, parameter_groups, width
from llmdoctor.mem.runners.flat import Flat, flatten
from llmdoctor.mem.runners.states import make_states, step_scratch
from llmdoctor.mem.weights import Weight

FP64 = 8


class Zero12Runner(Runner):
    """Gradients pass through a bucket into this process's part; the step copies that part flat and casts it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        engine = self.strategy.deepspeed
        self.engine, self.zero = engine, engine.zero
        self.offload = self.zero.offload_optimizer is not None
        self.flats = self._flats()
        self.group_of = {weight.name: flat for flat in self.flats for weight in flat.weights}
        self.partition_gradients = self.zero.stage == 2
        self.compact = engine.grad_accum == "float32" != self.strategy.dtype
        self.bucket_width = width(engine.grad_accum) if self.compact and not self.partition_gradients else self.strategy.width
        self.filled = 0
        self.waiting: list[Weight] = []
        self.pending: list[tuple[Weight, object]] = []

    def _flats(self) -> list[Flat]:
        """The optimizer's groups: one for model.parameters(), two where the Trainer made the optimizer."""
        groups = parameter_groups(self.strategy, self.job.trained)
        align = max(1, 16 // self.strategy.width) if self.zero.parameter_alignment else 1
        return [flatten(str(number), group, self.strategy.world_size, self.job.rank, align=align) for number, group in enumerate(groups)]

    def start(self) -> None:
        """Flat weights (:1399), the master's part (:560), under offload a buffer of the largest gradient (:660)."""
        self.place_weights()
        ledger, master = self.ledger, width(self.engine.master)
        for flat in self.flats:
            ledger.allocator.empty_cache()
            ledger.add(("flat", flat.name), flat.numel * self.strategy.width, "params")
            for weight in flat.weights:
                ledger.drop(("weight", weight.name))
            if self.offload:
                self._start_offload(flat, master)
            else:
                if self.strategy.width != master:
                    ledger.add("clone", flat.part * self.strategy.width, "temporaries")
                ledger.add(("master", flat.name), flat.part * master, "master_params")
                ledger.drop("clone")
        if self.offload:
            largest = max(weight.numel for weight in self.job.trained)
            ledger.add("offload buffer", largest * self.strategy.width, "buckets")
            ledger.on_host("buckets", largest * self.strategy.width)

    def _start_offload(self, flat: Flat, master: int) -> None:
        host = self.ledger.on_host
        host("master_params", flat.part * master)
        host("grads", flat.part * master)
        host("buckets", flat.part * self.strategy.width)
        from llmdoctor.mem.optimizers import state_keys

        states = 2 if self.strategy.optimizer.half_states else master
        for key in state_keys(self.strategy.optimizer):
            host(f"optimizer_state.{key}", flat.part * states)

    # --- backward

    def gradient(self, weight: Weight, storage: object) -> None:
        """A gradient goes into the bucket, which is emptied when the next does not fit (reduce_independent_p_g_buckets, :1414)."""
        self._set_up_buckets()
        if self.partition_gradients or self.zero.overlap_comm:
            self._into_bucket(weight, storage)
        elif not self.ledger.holds(("grad", weight.name)):
            self.keep(weight, storage)

    def _set_up_buckets(self) -> None:
        if not self.zero.contiguous_gradients or self.ledger.holds(("bucket", 0)):
            return
        # :3266, :3275; under torch_autocast one for each dtype that gradients are sent in (:612), fp32 for all but linear layers.
        for number in range((2 if self.zero.overlap_comm else 1) * (1 if self.strategy.autocast is None else 2)):
            self.ledger.add(("bucket", number), self.zero.reduce_bucket_size * self.bucket_width, "buckets")

    def _into_bucket(self, weight: Weight, storage: object) -> None:
        if self.filled + weight.numel > self.zero.reduce_bucket_size:
            self._reduce()
        if not self.zero.contiguous_gradients or weight.numel > self.zero.reduce_bucket_size:
            self.keep(weight, storage)
        self.filled += weight.numel
        self.waiting.append(weight)

    def _reduce(self) -> None:
        """reduce_ipg_grads (:2205): average, then copy what this process owns into its own buffer (:2142)."""
        if self.waiting:
            self._average()
        for weight in self.waiting:
            flat = self.group_of[weight.name]
            if self.offload:
                if not self.partition_gradients or self.strategy.accumulation > 1:
                    self.scratch(weight.numel * self.strategy.width)
                self.scratch(weight.numel * FP64)  # set_norm_for_param_grad_in_gpu, :1873
                self.ledger.drop(("grad", weight.name))
            elif weight.name not in flat.inside:
                self.ledger.drop(("grad", weight.name))
            elif self.zero.contiguous_gradients and not self.compact:
                self._own_buffer()
                self.ledger.drop(("grad", weight.name))
            elif self.compact:
                self.ledger.drop(("grad", weight.name))
        self.filled, self.waiting = 0, []

    def _average(self) -> None:
        """average_tensor (:1590): one owner's slices are one view, separate ones are flattened (:2367), fp32 ones cast (:1326)."""
        elements = sum(weight.numel for weight in self.waiting)
        separate = (self.compact or self.strategy.world_size > 1 or not self.zero.contiguous_gradients) and len(self.waiting) > 1
        if separate:
            self.ledger.add("flattened", elements * self.bucket_width, "temporaries")
        if self.compact:
            for flat in self.flats:
                if any(self.group_of[weight.name] is flat for weight in self.waiting):
                    self.ledger.add(("averaged", flat.name), flat.part * 4, "grads") if not self.ledger.holds(
                        ("averaged", flat.name)
                    ) else None
            for weight in self.waiting:
                self.scratch(weight.numel * 4)
        self.ledger.drop("flattened")

    def _own_buffer(self) -> None:
        if not self.ledger.holds(("own", self.micro)):
            size = sum(weight.numel for flat in self.flats for weight in flat.weights if weight.name in flat.inside)
            self.ledger.add(("own", self.micro), size * self.strategy.width, "grads")

    def after_backward(self) -> None:
        """The epilogue (:1016): the rest of the bucket, zeros for parameters without a gradient (:2708), buckets freed."""
        if not self.partition_gradients and not self.boundary:
            return
        if not self.partition_gradients and not self.zero.overlap_comm:
            for weight in self.job.trained:
                if self.ledger.holds(("grad", weight.name)):
                    self._from_grad(weight)
        self._reduce()
        if not self.offload:
            self._zeros()
        for number in range(4):
            self.ledger.drop(("bucket", number))
        if self.micro > 0 and self.partition_gradients:
            self.ledger.drop(("own", self.micro))
            for weight in self.job.trained:
                self.ledger.drop(("zeros", self.micro, weight.name))

    def _from_grad(self, weight: Weight) -> None:
        """Stage 1 at the boundary: .grad is copied into the bucket and freed (reduce_gradients, :958)."""
        if self.filled + weight.numel > self.zero.reduce_bucket_size:
            self._reduce()
        if self.zero.contiguous_gradients and weight.numel <= self.zero.reduce_bucket_size:
            self.ledger.drop(("grad", weight.name))
        self.filled += weight.numel
        self.waiting.append(weight)

    def _zeros(self) -> None:
        if self.compact:
            for flat in self.flats:
                if not self.ledger.holds(("averaged", flat.name)):
                    self.ledger.add(("averaged", flat.name), flat.part * 4, "grads")
            return
        for flat in self.flats:
            for weight in flat.weights:
                if weight.name not in self.reached and weight.name in flat.inside:
                    self.ledger.add(("zeros", self.micro, weight.name), weight.numel * width(self.engine.grad_accum), "grads")

    # --- step

    def step(self) -> None:
        """step (:3013): the norm in fp64 (:2684), then for each group a flat copy, its cast, the optimizer (:3109 to :3140)."""
        if self.offload:
            return
        own = [weight for flat in self.flats for weight in flat.weights if weight.name in flat.inside]
        for weight in own:
            self.scratch(min(weight.numel, max(flat.part for flat in self.flats)) * FP64)
        for flat in self.flats:
            self._step_group(flat)
        self._drop_own()

    def _drop_own(self) -> None:
        for micro in range(self.micro_steps):
            self.ledger.drop(("own", micro))

    def _step_group(self, flat: Flat) -> None:
        ledger, master = self.ledger, width(self.engine.master)
        if not self.compact:
            ledger.add("flat copy", flat.part * self.strategy.width, "temporaries")
            if self.strategy.width != master:
                ledger.add("cast", flat.part * master, "temporaries")
                ledger.drop("flat copy")
        for weight in flat.weights:
            ledger.drop(("grad", weight.name))
            for micro in range(self.micro_steps):
                ledger.drop(("zeros", micro, weight.name))
        if flat is self.flats[-1]:
            self._drop_own()
        tensors = [(flat.name, flat.part, self.engine.master)]
        if self.taken == 0:
            make_states(ledger, self.strategy.optimizer, tensors)
        step_scratch(ledger, self.strategy.optimizer, tensors)
        for name in ("flat copy", "cast", ("averaged", flat.name)):
            ledger.drop(name)
