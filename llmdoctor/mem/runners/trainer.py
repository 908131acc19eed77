"""The Trainer without DeepSpeed, and DeepSpeed's engine in fp32 without ZeRO: weights, .grad and states, parameter by parameter."""

from __future__ import annotations

from llmdoctor.mem.runners.base import Runner, parameter_groups
from llmdoctor.mem.runners.states import adafactor_scratch, make_adafactor, make_bitsandbytes, make_states, step_scratch
from llmdoctor.mem.weights import Weight


class TrainerRunner(Runner):
    """Gradients stay as .grad until the step; states exist for parameters that got one."""

    def gradient(self, weight: Weight, storage: object) -> None:
        """Keep the first, add later ones to it."""
        if not self.ledger.holds(("grad", weight.name)):
            self.keep(weight, storage)

    def step(self) -> None:
        """One parameter group after the other."""
        optimizer = self.strategy.optimizer
        groups = parameter_groups(self.strategy, [weight for weight in self.job.trained if weight.name in self.reached])
        for group in groups:
            if optimizer.kind == "adafactor":
                self._adafactor(group)
            elif optimizer.kind == "bitsandbytes":
                for weight in group if self.taken == 0 else ():
                    make_bitsandbytes(self.ledger, optimizer, weight)
            else:
                tensors = [(weight.name, weight.numel, weight.dtype) for weight in group]
                if self.taken == 0:
                    make_states(self.ledger, optimizer, tensors)
                step_scratch(self.ledger, optimizer, tensors)
        for weight in self.job.trained:
            self.ledger.drop(("grad", weight.name))

    def _adafactor(self, group: tuple[Weight, ...]) -> None:
        for weight in group:
            if self.taken == 0:
                make_adafactor(self.ledger, weight)
            adafactor_scratch(self.ledger, weight)
