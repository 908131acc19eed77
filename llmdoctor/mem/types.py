"""The nouns of a comparison: what one strategy is estimated to hold, all strategies of a question, what fits, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmdoctor.configs.versions import LibraryVersion
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.report import Skipped

if TYPE_CHECKING:
    from llmdoctor.mem.ledger import Moment
    from llmdoctor.mem.options import MemOptions
    from llmdoctor.mem.runners.base import Job
    from llmdoctor.mem.settings import Strategy
    from llmdoctor.mem.workload import Workload
    from llmdoctor.modeldir.directory import ModelDir


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one device holds in bytes: before the first step, between steps, at the largest moment of each phase.

    `host` is what the host holds under offload, by component. `reserved` is what the caching allocator keeps at most. `parameters`,
    `trainable` and `reached` (those that get a gradient) count elements of the whole model.
    """

    strategy: Strategy
    start: Moment
    steady: Moment
    phases: Mapping[str, Moment]
    host: Mapping[str, int]
    reserved: int
    parameters: int
    trainable: int
    reached: int

    @property
    def peak(self) -> Moment:
        """Return the largest moment of all phases."""
        return max(self.phases.values(), key=lambda moment: moment.total)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One strategy on one batch and its predicted memory. `traced` names the layers that were traced; None if nothing was traced."""

    strategy: Strategy
    workload: Workload
    prediction: Prediction
    traced: str | None
    job: Job


@dataclass(frozen=True, slots=True)
class Comparison:
    """The estimates of one question, in the order of its strategies. `skipped` names what is missing from the numbers and why.

    `releases` are those that the estimates are for.
    """

    options: MemOptions
    directory: ModelDir
    estimates: tuple[Estimate, ...]
    skipped: tuple[Skipped, ...] = ()
    inputs: Inputs = field(default_factory=Inputs)
    releases: tuple[LibraryVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one setting: what to write, the bytes that it leads to, and whether it is enough by itself.

    `needs` is what the device needs if the question was about a device's memory, else the peak.
    """

    text: str
    needs: int
    enough: bool


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """Whether an estimate fits into a device (None: tight, or not known), the largest batch that does (0: none), and changes that help.

    `needs` is in bytes: the peak, a margin for the allocator's reserve, and the context.
    """

    needs: int
    fits: bool | None
    largest_batch: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One number of one strategy in bytes: predicted and measured, and the signed error of the prediction (predicted / measured - 1)."""

    strategy: str
    what: str
    predicted: int
    measured: int
    error: float
