"""Two sides token by token: masks, padding, equal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import plural
from llmdoctor.sample.logprobs import Side
from llmdoctor.sample.types import DisagreementCause, Doubles, Flags, Ids

_RUN = 4  # values in a row that are the same number, at an end of a sequence, are padding
_DOUBT = 1.0  # nats by which padding of one side alone is off on average: a run of certain tokens under a cut is off by less


@dataclass(frozen=True, slots=True)
class PairedSides:
    """The values of both sides, sequence by sequence; NaN for a token that does not count on one of them.

    `notes` say what was left out. `padding` is the cause if one side alone marks padding, at the places `padded`; `limit` is
    what the verdict must say beside its numbers ("" if nothing).
    """

    trainer: tuple[Doubles, ...]
    engine: tuple[Doubles, ...]
    notes: tuple[str, ...] = ()
    padding: DisagreementCause | None = None
    padded: tuple[Flags, ...] = ()
    limit: str = ""

    def joined(self) -> tuple[Doubles, Doubles, Ids, Ids]:
        """Return both sides' finite values [N], the sequence of each token, and its index among all tokens."""
        t, e = np.concatenate(self.trainer), np.concatenate(self.engine)
        index = np.repeat(np.arange(len(self.trainer)), [len(row) for row in self.trainer])
        good = np.isfinite(t) & np.isfinite(e)
        return t[good], e[good], index[good], np.flatnonzero(good)

    def without_padding(self) -> tuple[list[Doubles], list[Doubles]]:
        """Return both sides without the padding of one side."""
        if self.padding is None:
            return list(self.trainer), list(self.engine)
        return _without(self.trainer, self.padded), _without(self.engine, self.padded)


def pair_sides(trainer: Side, engine: Side) -> PairedSides:
    """Return both sides token by token, without what a mask or padding leaves out. Raises QuestionError if the lengths differ."""
    t, e = list(trainer.sequences), list(engine.sequences)
    if len(t) != len(e) and sum(map(len, t)) == sum(map(len, e)):
        t, e = [np.concatenate(t)], [np.concatenate(e)]
    _check_lengths(t, e, trainer, engine)
    notes = []
    known = [side.masks for side in (trainer, engine) if side.masks is not None and list(map(len, side.masks)) == list(map(len, t))]
    if known:
        masks = [np.logical_and.reduce(each) for each in zip(*known, strict=True)]
        left_out = sum(int((~mask).sum()) for mask in masks)
        t, e = _without(t, [~mask for mask in masks]), _without(e, [~mask for mask in masks])
        notes.append(
            f"{plural(left_out, 'token')} left out by the mask ({', '.join(dict.fromkeys((*trainer.masked_by, *engine.masked_by)))})"
        )
        if differ := sum(int((one != other).sum()) for one, other in zip(known[0], known[-1], strict=True)):
            limit = f"the masks of the two sides differ at {plural(differ, 'token')}, which are not compared"
            return PairedSides(tuple(t), tuple(e), tuple(notes), limit=limit)
        return PairedSides(tuple(t), tuple(e), tuple(notes))
    both = [_ends(left) & _ends(right) for left, right in zip(t, e, strict=True)]
    both = [np.zeros(len(run), bool) if run.all() else run for run in both]
    if any(run.any() for run in both):
        pairs = {(float(left[run][-1]), float(right[run][-1])) for left, right, run in zip(t, e, both, strict=True) if run.any()}
        if len(pairs) == 1:
            ((mine, theirs),) = pairs
            both = [run | _tail((left == mine) & (right == theirs)) for left, right, run in zip(t, e, both, strict=True)]
        values = " and ".join(
            sorted({f"{float(row[run][0]):g}" for rows in (t, e) for row, run in zip(rows, both, strict=True) if run.any()})
        )
        notes.append(
            f"{plural(sum(int(run.sum()) for run in both), 'token')} of padding left out: runs of {values} at the ends of both sides"
        )
        t, e = _without(t, both), _without(e, both)
    t, e = _without_prompts(t, e, notes)
    padding, runs = _one_sided(t, e)
    return PairedSides(tuple(t), tuple(e), tuple(notes), padding, tuple(runs))


def _check_lengths(t: Sequence[Doubles], e: Sequence[Doubles], trainer: Side, engine: Side) -> None:
    if len(t) != len(e):
        raise QuestionError(f"{engine.path}: {len(e)} sequences against {len(t)} in {trainer.path}: expected the same on both sides")
    for number, (left, right) in enumerate(zip(t, e, strict=True)):
        if len(left) != len(right):
            order = sorted(map(len, t)) == sorted(map(len, e))
            hint = "; the lengths are those of the other side in another order: sort both sides by the id of the sample" if order else ""
            away = {len(one) - len(other) for one, other in zip(t, e, strict=True)}
            if away in ({1}, {-1}):
                hint = "; every sequence is longer by one: the first token of a sequence has no log-probability, drop it on that side"
            raise QuestionError(
                f"{engine.path}: sequence {number} has {len(right)} log-probabilities, {trainer.path} {len(left)}: "
                f"expected one per token on both sides{hint}"
            )


def _without(rows: Sequence[Doubles], masks: Sequence[Flags]) -> list[Doubles]:
    return [np.where(mask, np.nan, row) for row, mask in zip(rows, masks, strict=True)]


def _ends(row: Doubles) -> Flags:
    """The places of a run of _RUN or more equal values at the start or at the end."""
    found: Flags = _start(row) | _start(row[::-1])[::-1]
    return found


def _tail(flags: Flags) -> Flags:
    """The places at the end that are all set."""
    found: Flags = np.logical_and.accumulate(flags[::-1])[::-1]
    return found


def _start(row: Doubles) -> Flags:
    """The places of a run of _RUN or more equal values at the start."""
    finite = row[np.isfinite(row)]
    if len(finite) < _RUN:
        return np.zeros(len(row), bool)
    other = np.flatnonzero(np.isfinite(row) & (row != finite[0]))
    length = int(other[0]) if len(other) else len(row)
    places = (np.arange(len(row)) < length) & np.isfinite(row)
    return places if places.sum() >= _RUN else np.zeros(len(row), bool)


def _without_prompts(t: list[Doubles], e: list[Doubles], notes: list[str]) -> tuple[list[Doubles], list[Doubles]]:
    """Both sides without tokens at the start that one side alone does not score: prompts (NeMo-RL's generation_logprobs are 0 there)."""
    for name, rows, others in (("engine", e, t), ("trainer", t, e)):
        runs = [_start(row) & np.isfinite(other) for row, other in zip(rows, others, strict=True)]
        runs = [run if not run[np.isfinite(row)].all() else np.zeros(len(run), bool) for run, row in zip(runs, rows, strict=True)]
        away = np.concatenate([np.abs(row - other)[run] for row, other, run in zip(rows, others, runs, strict=True)])
        if len(away) and float(away.mean()) >= _DOUBT:
            value = next(float(row[run][0]) for row, run in zip(rows, runs, strict=True) if run.any())
            notes.append(
                f"{plural(len(away), 'token')} at the start of sequences left out as prompts: {value:g} on the {name}'s side alone"
            )
            return _without(t, runs), _without(e, runs)
    return t, e


def _one_sided(t: list[Doubles], e: list[Doubles]) -> tuple[DisagreementCause | None, list[Flags]]:
    """The padding that one side alone marks by a constant, as a cause, and its places; (None, []) if there is none."""
    for name, rows, others in (("engine", e, t), ("trainer", t, e)):
        runs = [_ends(row) & np.isfinite(other) for row, other in zip(rows, others, strict=True)]
        whole = all(run[np.isfinite(row)].all() for run, row in zip(runs, rows, strict=True))
        count = sum(int(run.sum()) for run in runs)
        if whole or not count:
            continue
        away = np.concatenate([np.abs(row - other)[run] for row, other, run in zip(rows, others, runs, strict=True)])
        if float(away.mean()) < _DOUBT:
            continue
        value = next(float(row[run][-1]) for row, run in zip(rows, runs, strict=True) if run.any())
        runs = [run | _tail(row == value) for row, run in zip(rows, runs, strict=True)]
        away = np.concatenate([np.abs(row - other)[run] for row, other, run in zip(rows, others, runs, strict=True)])
        count = len(away)
        other = "trainer" if name == "engine" else "engine"
        total, kept = _away(t, e), _away(_without(t, runs), _without(e, runs))
        share = float(away.sum() / (total[0] * total[1]))
        evidence = (
            f"{plural(count, 'token')} at the ends of sequences are {value:g} on the {name}'s side and differ by {away.mean():.2f} nats on average; "
            f"without them the mean difference is {kept[0]:.4f}"
        )
        fix = f"Padding is counted on the {other}'s side: apply the response mask before the comparison and in the loss."
        return DisagreementCause("padding counted", True, share, evidence, fix), runs
    return None, []


def _away(t: Sequence[Doubles], e: Sequence[Doubles]) -> tuple[float, int]:
    """The mean |difference|, and how many tokens have one."""
    away = np.abs(np.concatenate(list(t)) - np.concatenate(list(e)))
    away = away[np.isfinite(away)]
    return (float(away.mean()) if len(away) else 0.0), len(away)
