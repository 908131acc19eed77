"""The Trainer without DeepSpeed, and DeepSpeed's engine in fp32 without ZeRO: weights, .grad and states, parameter by parameter."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.mem.runners.base import Runner, parameter_groups
from llmdoctor.mem.runners.states import adafactor_scratch, make_adafactor, make_bitsandbytes, make_states, step_scratch
from llmdoctor.mem.weights import Weight

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20


def ddp_buckets(weights: Sequence[Weight]) -> list[int]:
    """Return the bytes of DistributedDataParallel's buckets, filled in the order of the gradients, one dtype in each.

    The first takes 1 MiB, the others 25 MiB (torch 2.11, torch/nn/parallel/distributed.py, reducer.cpp, compute_bucket_assignment_by_size);
    a bucket is closed as soon as it reaches its size.
    """
    out: list[int] = []
    held: dict[str, int] = {}
    for weight in reversed(weights):
        held[weight.dtype] = held.get(weight.dtype, 0) + weight.nbytes
        if held[weight.dtype] >= (BUCKET if out else FIRST_BUCKET):
            out.append(held.pop(weight.dtype))
    return out + list(held.values())


class TrainerRunner(Runner):
    """Gradients stay as .grad until the step; states exist for parameters that got one."""

    def start(self) -> None:
        """The weights; on several processes DistributedDataParallel's buckets too, a second copy of all gradients that is always held."""
        super().start()
        if self.strategy.world_size > 1 and self.strategy.engine is None:
            for number, size in enumerate(ddp_buckets(self.job.trained)):
                self.ledger.add(("bucket", number), size, "buckets")

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
