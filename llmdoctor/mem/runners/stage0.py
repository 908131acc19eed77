"""DeepSpeed without ZeRO in 16 bit: fp32 masters of everything, flat under FusedAdam, one by one under another optimizer.

Source: deepspeed 0.19.8, runtime/fp16/fused_optimizer.py, unfused_optimizer.py, engine.py:2555 (_configure_fp16_optimizer).
"""

from __future__ import annotations

from llmdoctor.mem.runners.base import Runner, parameter_groups, width
from llmdoctor.mem.runners.flat import flatten
from llmdoctor.mem.runners.states import make_states, step_scratch
from llmdoctor.mem.weights import Weight

FP32 = 4
BUCKET = 500_000_000  # engine.py, MEMORY_OPT_ALLREDUCE_SIZE


class Stage0Runner(Runner):
    """Gradients stay as .grad, zeros are made for those that got none, all are cast to fp32 at the step."""

    @property
    def fused(self) -> bool:
        """Whether the flat optimizer is used (engine.py:2564)."""
        return self.strategy.optimizer.how == "FusedAdam"

    def start(self) -> None:
        """Masters and states at once: both wrappers take a step with zero gradients (fused_optimizer.py:117)."""
        self.place_weights()
        trained, ledger = self.job.trained, self.ledger
        if not self.fused:
            for weight in trained:
                ledger.add(("master", weight.name), weight.numel * FP32, "master_params")
            make_states(ledger, self.strategy.optimizer, [(weight.name, weight.numel, "float32") for weight in trained])
            return
        total = flatten("0", trained, 1, 0).real
        for weight in trained:
            ledger.add(("clone", weight.name), weight.nbytes, "temporaries")
        ledger.add("flat", total * self.strategy.width, "params")
        for weight in trained:
            ledger.drop(("clone", weight.name))
            ledger.drop(("weight", weight.name))
        ledger.add("master", total * FP32, "master_params")
        ledger.add("zeros", total * FP32, "temporaries")
        make_states(ledger, self.strategy.optimizer, [("0", total, "float32")])
        ledger.drop("zeros")

    def gradient(self, weight: Weight, storage: object) -> None:
        """Keep the first, add later ones to it."""
        if not self.ledger.holds(("grad", weight.name)):
            self.keep(weight, storage)

    def after_backward(self) -> None:
        """At the boundary zeros for parameters without a gradient, and a flat bucket of gradients (engine.py, buffered_allreduce_fallback)."""
        if not self.boundary:
            return
        for weight in self.job.trained:
            if not self.ledger.holds(("grad", weight.name)):
                self.ledger.add(("grad", weight.name), weight.nbytes, "grads")
        self.scratch(min(BUCKET, sum(weight.numel for weight in self.job.trained)) * self.strategy.width)

    def step(self) -> None:
        """fused_optimizer.py:286: a cast of every gradient, then their flat copy; unfused: the casts alone, bf16 gradients beside them."""
        trained, ledger = self.job.trained, self.ledger
        for weight in trained:
            ledger.add(("cast", weight.name), weight.numel * FP32, "temporaries")
        if self.fused:
            ledger.add("flat copy", sum(weight.numel for weight in trained) * FP32, "temporaries")
            for weight in trained:
                ledger.drop(("cast", weight.name))
                ledger.drop(("grad", weight.name))
            self.scratch(SCALAR_NORM)
        for group in parameter_groups(self.strategy, trained):
            if not self.fused:
                step_scratch(ledger, self.strategy.optimizer, [(weight.name, weight.numel, "float32") for weight in group])
        for weight in trained:
            ledger.drop(("cast", weight.name))
            ledger.drop(("grad", weight.name))
        ledger.drop("flat copy")


SCALAR_NORM = width("float32")
