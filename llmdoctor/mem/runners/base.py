"""Three optimizer steps as allocations and frees; a runner defines the start, each gradient and the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmdoctor.mem.ledger import Ledger
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.timeline import Event
from llmdoctor.mem.weights import Weight
from llmdoctor.mem.workload import BYTES

WORKSPACE = 32 * 2**20  # cuBLAS on Hopper, a handle and stream (aten/src/ATen/cuda/CUDABlas.cpp, _parseChosenWorkspaceSize: 4096 x 8 KiB)
SCALAR = 512
ACTIVATIONS = ("attention", "mlp", "norm", "embedding", "other", "autocast")


# Micro steps that are played: from the second to the last but one each leaves what the one before left (tests/mem/test_strategies.py).
MICRO_STEPS = 8


@dataclass(frozen=True, slots=True)
class Job:
    """What a runner works on.

    `rank` is the process whose memory is asked for, `reference` are the bytes of each weight of a model that is not trained, `evaluation`
    the events of one batch without gradients, `units` the modules of each unit of FSDP. `unreached` names trained parameters that are known to get
    no gradient without a trace.
    """

    strategy: Strategy
    weights: tuple[Weight, ...]
    buffers: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()
    rank: int = 0
    reference: tuple[int, ...] = ()
    evaluation: tuple[Event, ...] = ()
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unreached: frozenset[str] = frozenset()
    exact: bool = False  # sizes of tensors instead of the allocator's blocks

    @property
    def trained(self) -> tuple[Weight, ...]:
        """Parameters that require a gradient."""
        return tuple(weight for weight in self.weights if weight.trainable)

    @property
    def reached(self) -> frozenset[str]:
        """Names of the parameters that get a gradient in this step; without a trace all trained ones but those in `unreached`."""
        names = frozenset(event[1] for event in self.events if event[0] == "g")
        return names or frozenset(weight.name for weight in self.trained) - self.unreached


class Runner:
    """The frame: weights, the events of the forward and the backward, the step. Subclasses fill in start(), gradient() and step()."""

    def __init__(self, job: Job) -> None:
        self.job, self.strategy = job, job.strategy
        self.ledger = Ledger(exact=job.exact)
        self.by_name = {weight.name: weight for weight in job.weights}
        self.reached = job.reached
        self.micro = 0
        self.micro_steps = min(self.strategy.accumulation, MICRO_STEPS)
        self.taken = 0
        self._kept: dict[object, object] = {}

    # --- defined by subclasses

    def start(self) -> None:
        """What is there before the first forward."""
        self.place_weights()

    def gradient(self, weight: Weight, storage: object) -> None:
        """`weight`'s gradient is complete and lies in `storage`, which the trace frees after this unless keep() is called."""
        raise NotImplementedError

    def unit(self, name: str, what: str) -> None:
        """A unit of FSDP begins or ends its forward or its backward."""

    def after_backward(self) -> None:
        """The backward of a micro step is over."""

    def step(self) -> None:
        """The optimizer's step, gradients freed at its end."""
        raise NotImplementedError

    # --- the frame

    def run(self, steps: int = 3) -> None:
        """Run `steps` steps; the largest moments are taken after the first one, when the optimizer's states exist."""
        ledger = self.ledger
        ledger.phase = "start"
        self.start()
        self.initial = ledger.now()
        for number in range(steps):
            if number == 1:
                ledger.reset()
            for micro in range(self.micro_steps):
                self.micro = micro
                self._micro_step()
            ledger.phase = "step"
            self.step()
            self.taken += 1
            ledger.phase = "between steps"
            if number <= 1:
                self.steady = ledger.now()
        if self.job.evaluation:
            self._play(self.job.evaluation)

    @property
    def boundary(self) -> bool:
        """Whether this micro step is the last one before the optimizer's step."""
        return self.micro == self.micro_steps - 1

    def _micro_step(self) -> None:
        self._kept.clear()
        self._play(self.job.events)
        if not self.job.events:
            self._without_trace()
        self.after_backward()

    def _play(self, events: Sequence[Event]) -> None:
        ledger = self.ledger
        for event in events:
            kind = event[0]
            if kind == "+":
                ledger.add(event[1], event[2], component_of(event[3]))
            elif kind == "-":
                if event[1] in self._kept:
                    del self._kept[event[1]]
                else:
                    ledger.drop(event[1])
            elif kind == "g":
                self.gradient(self.by_name[event[1]], event[2])
            elif kind == "u":
                self.unit(event[1], event[2])
            elif kind == "p":
                self._phase(event[1])

    def _phase(self, phase: str) -> None:
        ledger = self.ledger
        if phase in ("forward", "backward", "evaluation"):
            ledger.phase = phase
        if phase in ("forward", "backward") and not ledger.holds(("workspace", phase)):
            ledger.add(("workspace", phase), WORKSPACE, "workspace")

    def _without_trace(self) -> None:
        """No torch here: gradients alone, in reverse order."""
        self._phase("forward")
        self._phase("backward")
        for weight in reversed([weight for weight in self.job.trained if weight.name in self.reached]):
            self.ledger.add(("raw", weight.name), weight.nbytes, "temporaries")
            self.gradient(weight, ("raw", weight.name))
            if ("raw", weight.name) in self._kept:
                continue
            self.ledger.drop(("raw", weight.name))

    def keep(self, weight: Weight, storage: object) -> None:
        """The gradient stays where it is, as .grad."""
        if self.ledger.holds(storage):
            self.ledger.hand(storage, ("grad", weight.name), "grads")
            self._kept[storage] = True
        else:
            self.ledger.add(("grad", weight.name), weight.nbytes, "grads")

    def place_weights(self) -> None:
        """Every parameter and buffer by itself, in the model's order, as .to(device) does."""
        for weight in self.job.weights:
            self.ledger.add(("weight", weight.name), weight.nbytes, "params" if weight.trainable else "frozen_params")
        for number, size in enumerate(self.job.reference):
            self.ledger.add(("reference", number), size, "reference")
        for number, size in enumerate(self.job.buffers):
            self.ledger.add(("buffer", number), size, "model_buffers")

    def scratch(self, size: int, component: str = "temporaries") -> None:
        """Something that lives for a moment."""
        self.ledger.add("scratch", size, component)
        self.ledger.drop("scratch")


def component_of(kind: str) -> str:
    """The component that an event's kind belongs to."""
    return f"activations.{kind}" if kind in ACTIVATIONS else kind


def parameter_groups(strategy: Strategy, weights: Sequence[Weight]) -> tuple[tuple[Weight, ...], ...]:
    """The optimizer's groups: the Trainer makes two, matrices, then biases and norms, which are not decayed (trainer_optimizer.py)."""
    if strategy.optimizer.groups == 1:
        return (tuple(weights),) if weights else ()
    decayed = tuple(weight for weight in weights if len(weight.shape) > 1)
    rest = tuple(weight for weight in weights if len(weight.shape) <= 1)
    return tuple(group for group in (decayed, rest) if group)


def width(dtype: str) -> int:
    """Bytes of one element."""
    return BYTES[dtype]
