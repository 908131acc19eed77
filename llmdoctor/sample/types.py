"""The nouns of sampling: the parameters of a call, the tokens before a step, a row of logits on its way through the stages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Ids: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The sampling parameters of a call. None means "not set": the stage is off, whatever an engine's own default is.

    A value that an engine reads as off (top_k 0, top_p 1.0) is still set: another engine may refuse it.
    The ids of `suppress_tokens` are never drawn, those of `stop_token_ids` not among the first `min_tokens` tokens.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_h: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    penalty_last_n: int | None = None
    logit_bias: Mapping[int, float] | None = None
    suppress_tokens: tuple[int, ...] | None = None
    min_tokens: int | None = None
    stop_token_ids: tuple[int, ...] | None = None
    do_sample: bool = True

    def named(self) -> dict[str, Any]:
        """Return the parameters that are set, by name; do_sample only if it is False."""
        found = {name: value for name in _PARAMETERS if (value := getattr(self, name)) is not None}
        return found if self.do_sample else {**found, "do_sample": False}


_PARAMETERS = tuple(field.name for field in fields(SamplingParams) if field.name != "do_sample")


@dataclass(frozen=True, slots=True)
class TokenContext:
    """The tokens in front of a step: those of the prompt, and those that the call has produced."""

    prompt: tuple[int, ...] = ()
    output: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequences:
    """How the steps of a recording divide into sequences: `starts` are their first steps, `prompts` the tokens in front of each, if known."""

    starts: tuple[int, ...] = (0,)
    prompts: tuple[tuple[int, ...], ...] = ((),)

    def index(self, step: int) -> int:
        """Return the sequence that a step belongs to."""
        return bisect_right(self.starts, step) - 1

    def before(self, tokens: Sequence[int], step: int) -> TokenContext:
        """Return the tokens in front of a step; `tokens` are those of all steps."""
        index = self.index(step)
        return TokenContext(self.prompts[index], tuple(tokens[self.starts[index] : step]))

    def spans(self, count: int) -> list[range]:
        """Return the steps of each sequence, `count` steps in all."""
        return [range(start, stop) for start, stop in zip(self.starts, (*self.starts[1:], count), strict=True)]


@dataclass(slots=True)
class LogitRow:
    """One distribution on its way through the stages: logits `x` [n] float32 of the tokens `ids` [n], ascending (None: x[i] is token i).

    Tokens that a stage has removed are absent, as are tokens whose recorded logit is -inf.
    """

    x: Floats
    ids: Ids | None = None
    _weights: tuple[Floats, float] | None = field(default=None, repr=False)

    def weights(self) -> tuple[Floats, float]:
        """Return exp(x - max) [n] float32 and its sum."""
        if self._weights is None:
            e = self.x - self.x.max()
            np.exp(e, out=e)
            self._weights = (e, float(e.sum()))
        return self._weights

    def keep(self, mask: Flags) -> LogitRow:
        """Return the row with only the tokens of `mask` [n]."""
        return self.pick(np.flatnonzero(mask))

    def pick(self, at: Ids) -> LogitRow:
        """Return the row with only the tokens at the places `at`, ascending."""
        return LogitRow(self.x[at], at if self.ids is None else self.ids[at])

    def tokens(self) -> Ids:
        """Return the ids of the tokens that are left [n]."""
        return np.arange(len(self.x)) if self.ids is None else self.ids

    def probs(self, vocab: int) -> Doubles:
        """Return the distribution over all tokens [vocab], float64."""
        dense = np.zeros(vocab)
        x = self.x.astype(np.float64)
        e = np.exp(x - x.max())
        dense[slice(None) if self.ids is None else self.ids] = e / e.sum()
        return dense


def first_row(logits: Floats) -> LogitRow:
    """Return the row of the logits [V] of one step, without those that are -inf."""
    if np.isneginf(logits.min()):
        at = np.flatnonzero(~np.isneginf(logits))
        return LogitRow(logits[at], at)
    return LogitRow(logits)


@dataclass(frozen=True, slots=True)
class DisagreementCause:
    """One explanation: its name, whether it is the one that is left (`named`), evidence, and what to change.

    `explains` is the share of the mean |difference| that is gone after it, None for a cause that bounds the differences instead; `tokens` it names.
    """

    name: str
    named: bool
    explains: float | None
    evidence: str
    fix: str
    tokens: tuple[int, ...] = ()
