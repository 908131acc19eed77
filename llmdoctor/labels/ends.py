"""Is the end of each answer a target? Told from the labels themselves, whatever trainer made them."""

from __future__ import annotations

from typing import NamedTuple

from llmdoctor.labels.types import IGNORED, Sequence

NEAR = 3  # tokens that may follow the end token in a run of targets, such as a newline


class Ends(NamedTuple):
    """The answers of one sequence by how they end: the end token is a target, is ignored, was cut off, or is missing."""

    trained: int = 0
    ignored: int = 0
    cut: int = 0
    missing: int = 0

    @property
    def all_trained(self) -> bool | None:
        """Whether every end is a target; None without any answer."""
        if not (self.trained or self.ignored or self.cut or self.missing):
            return None
        return not (self.ignored or self.cut or self.missing)


def ends_of(sequence: Sequence, end_ids: frozenset[int]) -> Ends:
    """Return how the answers of `sequence` end.

    An answer is a run of targets. Its end is a target if an id of `end_ids` is among the last tokens of the run; it is ignored if such an id
    comes right behind the run; it is cut if the run reaches the end of a truncated sequence; otherwise it is missing.
    """
    ids, labels = sequence.ids, sequence.labels
    trained = ignored = cut = missing = 0
    for start, stop in runs(labels):
        if start and ids[start - 1] in end_ids and stop - start == 1:
            continue  # what the template writes behind an end token, such as a newline, is no answer
        if not end_ids.isdisjoint(ids[max(start, stop - NEAR) : stop]):
            trained += 1
        elif stop < len(ids) and ids[stop] in end_ids:
            ignored += 1
        elif stop == len(ids) and sequence.truncated:
            cut += 1
        elif stop == len(ids) or sequence.roles[stop : stop + 1] != ["assistant"]:
            missing += 1
    return Ends(trained, ignored, cut, missing)


def scored_end(sequence: Sequence, end_ids: frozenset[int]) -> Ends:
    """Return whether a sequence that is scored at its last token ends with an end token, or with what the template writes behind one."""
    found = not end_ids.isdisjoint(sequence.ids[-NEAR:])
    return Ends(trained=int(found), missing=int(not found))


def runs(labels: list[int]) -> list[tuple[int, int]]:
    """Return [start, stop) of each run of targets."""
    if IGNORED not in labels:
        return [(0, len(labels))] if labels else []
    out, start = [], None
    for place, label in enumerate(labels):
        if label != IGNORED and start is None:
            start = place
        elif label == IGNORED and start is not None:
            out.append((start, place))
            start = None
    return [*out, (start, len(labels))] if start is not None else out
