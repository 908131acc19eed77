"""ZeRO stage 1 in bf16 with fp32 accumulation is another optimizer: fp32 gradients of the whole model, always held.

Source: deepspeed 0.19.8, runtime/bf16_optimizer.py, chosen in engine.py:2304.
"""

from __future__ import annotations

from llmdoctor.mem.runners.base import Job, Runner, parameter_groups, width
from llmdoctor.mem.runners.flat import flatten
from llmdoctor.mem.runners.states import make_states, step_scratch
from llmdoctor.mem.weights import Weight

FP32 = 4


class Bf16Runner(Runner):
    """bf16 gradients stay as .grad until the step, and are added to the fp32 ones."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        engine = self.strategy.deepspeed
        self.engine = engine
        groups = parameter_groups(self.strategy, job.trained)
        self.flats = [flatten(str(number), group, self.strategy.world_size, job.rank) for number, group in enumerate(groups)]

    def start(self) -> None:
        """_setup_for_real_optimizer (:151): flat weights, this process's master, fp32 gradients of everything (:191)."""
        self.place_weights()
        ledger = self.ledger
        for flat in self.flats:
            ledger.add(("flat", flat.name), flat.numel * self.strategy.width, "params")
            for weight in flat.weights:
                ledger.drop(("weight", weight.name))
            self.scratch(flat.part * self.strategy.width)
            ledger.add(("master", flat.name), flat.part * FP32, "master_params")
            ledger.add(("accumulated", flat.name), flat.numel * width(self.engine.grad_accum), "grad_accum")

    def gradient(self, weight: Weight, storage: object) -> None:
        """.grad stays; with immediate_grad_update it is cast and added at once (:497)."""
        if not self.ledger.holds(("grad", weight.name)):
            self.keep(weight, storage)
        if self.engine.immediate_update:
            self.scratch(weight.numel * FP32)

    def after_backward(self) -> None:
        """Each gradient cast and added (:507); at the boundary the flat fp32 gradients in the communication's dtype (engine.py:3796)."""
        for weight in self.job.trained:
            if not self.engine.immediate_update and self.ledger.holds(("grad", weight.name)):
                self.scratch(weight.numel * FP32)
        if self.boundary:
            for flat in self.flats:
                self.scratch(flat.numel * self.strategy.width)

    def step(self) -> None:
        """step (:366): the optimizer on this process's part; .grad is freed at its end."""
        for flat in self.flats:
            tensors = [(flat.name, flat.part, "float32")]
            if self.taken == 0:
                make_states(self.ledger, self.strategy.optimizer, tensors)
            step_scratch(self.ledger, self.strategy.optimizer, tensors)
        for weight in self.job.trained:
            self.ledger.drop(("grad", weight.name))
