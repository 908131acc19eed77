"""Searches combinations of changes under which a training step fits into a device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.capacity import fits, need_of
from llmdoctor.mem.moves import Move, moves_of
from llmdoctor.mem.paste import Pasted, pasted
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.settings import validated
from llmdoctor.mem.types import Estimate

MOST_MOVES, MOST_TRIED, MOST_FOUND = 4, 160, 6


@dataclass(frozen=True, slots=True)
class Combination:
    """Moves that fit together, the estimate of the strategy that they lead to, and the configuration to paste (None if it cannot be expressed).

    If there is a configuration, the estimate is that of the configuration as it was read again.
    """

    moves: tuple[Move, ...]
    estimate: Estimate
    configuration: Pasted | None = None

    @property
    def weight(self) -> int:
        """Return how much the combination is avoided."""
        return sum(move.weight for move in self.moves)


def search(
    estimate: Estimate, predictor: Predictor, memory: int, progress: Callable[[int, int], None]
) -> tuple[tuple[Combination, ...], int]:
    """Return the combinations that fit into `memory` bytes, cheapest first, and the number of combinations that were tried.

    A combination is left out if a part of it fits alone. `progress` is called with the number of tried combinations and an upper bound.
    """
    found: list[Combination] = []
    tried = 0
    candidates = list(_combinations(moves_of(estimate.strategy, estimate.workload.batch)))
    for moves in candidates:
        if tried >= MOST_TRIED or len(found) >= MOST_FOUND:
            break
        if any(set(other.moves) <= set(moves) for other in found):
            continue
        tried += 1
        progress(tried, min(len(candidates), MOST_TRIED))
        other = _applied(estimate, predictor, moves)
        if other is not None and fits(other, memory) is True:
            configuration = pasted(predictor, estimate, moves)
            if configuration is None or fits(configuration.estimate, memory) is True:
                found.append(Combination(moves, other if configuration is None else configuration.estimate, configuration))
    return tuple(sorted(found, key=lambda one: (one.weight, need_of(one.estimate).safe))), tried


def _combinations(moves: list[Move]) -> Iterator[tuple[Move, ...]]:
    """Yield combinations of moves of different groups, cheapest first."""
    several = [
        chosen
        for count in range(1, MOST_MOVES + 1)
        for chosen in combinations(moves, count)
        if len({move.group for move in chosen}) == len(chosen)
    ]
    yield from sorted(several, key=lambda chosen: (sum(move.weight for move in chosen), len(chosen)))


def _applied(estimate: Estimate, predictor: Predictor, moves: tuple[Move, ...]) -> Estimate | None:
    """Return the estimate of a combination; None if one of its moves does not apply, or the model does not allow it."""
    strategy, batch = estimate.strategy, estimate.workload.batch
    for move in moves:
        changed = move.change(strategy)
        if changed is None:
            return None
        strategy, batch = changed, move.batch or batch
    try:
        return predictor.estimate(validated(strategy), batch, estimate.workload.seq_len)
    except QuestionError:
        return None
