"""What fits into a device's memory: the bytes that an estimate needs, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import size_of
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.types import Estimate

MOST = 4096  # sequences
MARGIN = 0.05  # of the peak


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of a device that an estimate needs: the peak, a margin for the allocator's reserve, and the context outside the allocator.

    The allocator returns cached blocks before it reports that memory is out, but only whole free segments: a share of the reserve remains.
    The margin is the predicted reserve beyond the peak, at most MARGIN of the peak. `least` is certain to be needed; between `least` and
    `safe` a run is tight: it may end in an out-of-memory error. `reserved` is what the allocator would keep if memory were unlimited.
    """

    peak: int
    reserve: int
    context: int
    least: int
    reserved: int

    @property
    def safe(self) -> int:
        """Return peak, reserve and context together."""
        return self.peak + self.reserve + self.context


def read_size(text: str) -> int:
    """Return the bytes of a size such as 80GiB. Raises QuestionError for any other text."""
    size = size_of(text)
    if size is None:
        raise QuestionError(f"--gpu-memory {text}: expected a size with its unit, such as 80GiB or 24GB")
    return size


def need_of(estimate: Estimate) -> Need:
    """Return what `estimate` needs of a device."""
    prediction = estimate.prediction
    least, most = estimate.strategy.entry.outside
    peak = prediction.peak.total
    reserved = max(prediction.reserved, peak)
    return Need(peak, min(reserved - peak, int(MARGIN * peak)), most, peak + least, reserved)


def fits(estimate: Estimate, memory: int) -> bool | None:
    """Return whether `estimate` fits into `memory` bytes; None if it is tight, or if activations are not counted and the rest fits."""
    need = need_of(estimate)
    if need.least > memory:
        return False
    if estimate.traced is None or need.safe > memory:
        return None
    return True


def largest_batch(estimate: Estimate, predictor: Predictor, memory: int) -> int:
    """Return the most sequences of a micro step that fit, at most MOST; 0 if none does or activations are not counted.

    Memory is almost a straight line over the batch, so each guess is drawn between the largest batch that is known to fit and the
    smallest that is known not to fit.
    """
    if estimate.traced is None:
        return 0

    def over(batch: int) -> int:
        return need_of(predictor.estimate(estimate.strategy, batch)).safe - memory

    low, below = 1, over(1)
    if below > 0:
        return 0
    high, above = 2, over(2)
    while above <= 0 and high < MOST:
        slope = max(1, (above - below) // (high - low))
        low, below = high, above
        high = min(MOST, max(low * 2, low + 1 - below // slope + 1))
        above = over(high)
    if above <= 0:
        return high
    return _between(over, low, below, high, above)


def _between(over: Callable[[int], int], low: int, below: int, high: int, above: int) -> int:
    """Return the largest batch that fits, between `low`, which does, and `high`, which does not; every other guess halves."""
    halve = False
    while high - low > 1:
        guess = (low + high) // 2 if halve else low + (high - low) * -below // max(1, above - below)
        guess, halve = min(high - 1, max(low + 1, guess)), not halve
        size = over(guess)
        low, below, high, above = (guess, size, high, above) if size <= 0 else (low, below, guess, size)
        if size <= 0 and high - low > 1 and over(low + 1) > 0:
            return low
    return low
