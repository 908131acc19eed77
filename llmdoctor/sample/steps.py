"""The pass over a recorded generation: one row of logits after another through the claimed engine's stages, and where the token stood."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.sample import cuts
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.laws import LAWS, law_logprobs
from llmdoctor.sample.logits import Logits
from llmdoctor.sample.stages import Stage, active, run, share
from llmdoctor.sample.types import Doubles, Flags, Floats, Ids, LogitRow, SamplingParams, Sequences, TokenContext

_CUTS = frozenset({"top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "joint", "greedy"})
_MASS_CUTS = frozenset({"top_p", "joint"})
ONE_SEQUENCE = Sequences()
_LIKELY = 0.02  # probability of a token that is looked for among those never drawn


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far outside a cut a token may lie and still count as possible: in mass for a nucleus, in logits for every other cut.

    `bits` are those of the mantissa that the logits were held in (None: as many as the sampler's own): where they are few, a row's largest
    logit says how far apart two neighbours lie, and what lies nearer than that cannot be told apart.
    """

    mass: float
    logit: float
    because: str
    bits: int | None = None

    def at(self, x: float) -> Tolerance:
        """The tolerance of a row, or of a token, whose logits are as large as `x`."""
        if self.bits is None or not np.isfinite(x) or x == 0:
            return self
        apart = float(2.0 ** (np.floor(np.log2(abs(x))) - self.bits))
        return replace(self, mass=self.mass + apart / 4, logit=self.logit + apart)  # m (1 - m) is at most a quarter


@dataclass(frozen=True, slots=True)
class Steps:
    """A replay as columns, one row per step [S].

    `rank` counts from 1, before any cut. `mass_before` is the mass of the tokens above, in the distribution that top_p sees (without one:
    before any cut).
    `logprob_processed` is -inf for a token outside the support. `mean`, `variance`, `third` are the moments of log q under the claim.
    `last_prob` is the probability of the last token in the support (of all that are as likely), `last_drawn` whether such a one
    was drawn. `outside` names the stage
    that removed the token beyond the tolerance ("" where none did).
    """

    tokens: Ids
    rank: Ids
    logprob_raw: Doubles
    logprob_processed: Doubles
    logprob_near: Doubles
    mass_before: Doubles
    support: Ids
    entropy: Doubles
    entropy_raw: Doubles
    mean: Doubles
    variance: Doubles
    third: Doubles
    last_prob: Doubles
    last_drawn: Ids
    raw_kept: Doubles
    outside: tuple[str, ...]
    stage_names: tuple[str, ...]
    stage_support: Ids
    stage_mass: Doubles
    laws: Doubles  # [S, laws] log-probability under each broken sampler, NaN if the support is too large
    likely_ids: Ids  # [N] the tokens with a probability of at least .02, step after step
    likely_probs: Doubles  # [N] and that probability
    seen_mass: Doubles  # [S] the probability of the tokens that the sequence already holds
    seen_drawn: Flags  # [S] whether the drawn token is one of them

    @property
    def count(self) -> int:
        """Steps."""
        return len(self.tokens)

    @property
    def possible(self) -> list[bool]:
        """Whether each token could have been drawn."""
        return [not name for name in self.outside]


def replay_steps(
    logits: Logits,
    tokens: Sequence[int],
    claim: Claim,
    tolerance: Tolerance,
    *,
    sequences: Sequences = ONE_SEQUENCE,
    tick: Callable[[int, int], None] | None = None,
) -> Steps:
    """Return every step of the recording. Raises QuestionError if tokens and logits do not fit together."""
    if len(tokens) != logits.steps:
        raise QuestionError(f"{len(tokens)} tokens and {logits.steps} steps of logits in {logits.path}: expected one token per step")
    for step, token in enumerate(tokens):
        if not 0 <= token < logits.vocab:
            raise QuestionError(f"step {step}: token {token} lies outside the logits' vocabulary, expected 0 to {logits.vocab - 1}")
    names = active(claim.engine, claim.settings)
    gathered = _Columns(len(tokens), len(names), tuple(names))
    nothing = TokenContext()
    looks_back = any(name.endswith("penalty") or name == "min_tokens" for name in names)
    starts = set(sequences.starts)
    with np.errstate(all="ignore"):
        for start, part in logits.chunks():
            for offset, row in enumerate(part):
                step = start + offset
                if step in starts:
                    gathered.seen = {}
                before = sequences.before(tokens, step) if looks_back else nothing
                gathered.add(
                    step,
                    row,
                    token=int(tokens[step]),
                    stages=run(claim.engine, claim.settings, row, before),
                    tolerance=tolerance,
                    claim=claim,
                )
            if tick is not None:
                tick(min(start + len(part), logits.steps), logits.steps)
    return gathered.steps(tokens)


class _Columns:
    """The columns while they fill."""

    def __init__(self, count: int, stages: int, names: tuple[str, ...]) -> None:
        self._names = names
        self._uncut = next((at for at, name in enumerate(names) if name in _CUTS), len(names))
        self._basis = next((at for at, name in enumerate(names) if name in _MASS_CUTS), self._uncut)
        self._ints = {name: np.zeros(count, np.int64) for name in ("rank", "support", "last_drawn")}
        floats = (
            "logprob_raw logprob_processed logprob_near mass_before entropy entropy_raw mean variance third last_prob raw_kept seen_mass"
        )
        self._floats = {name: np.zeros(count) for name in floats.split()}
        self._outside = [""] * count
        self._stage_support = np.zeros((count, stages), np.int64)
        self._stage_mass = np.ones((count, stages))
        self._laws = np.full((count, len(LAWS)), np.nan)
        self._likely: list[tuple[Ids, Doubles]] = []
        self._seen_drawn = np.zeros(count, bool)
        self.seen: dict[int, None] = {}  # the tokens that the sequence holds so far

    def add(self, step: int, raw: Floats, token: int, stages: list[Stage], tolerance: Tolerance, claim: Claim) -> None:
        """One step."""
        f, i = self._floats, self._ints
        first, last = stages[0].row, stages[-1].row
        f["logprob_raw"][step], f["entropy_raw"][step] = _raw(first, raw[token])
        uncut, basis = stages[self._uncut].row, stages[self._basis].row
        x = _logit(uncut, token)
        above = uncut.x > x
        i["rank"][step] = 1 + int(np.count_nonzero(above))
        if basis is not uncut:
            above = basis.x > _logit(basis, token)
        e, total = basis.weights()
        f["mass_before"][step] = float(np.dot(e, above)) / total
        i["support"][step] = len(last.x)
        f["mean"][step], f["variance"][step], f["third"][step] = moments = _moments(last)
        f["entropy"][step] = max(0.0, -moments[0])
        z = float(last.x.max()) + np.log(last.weights()[1])
        inside = _logit(last, token)
        f["logprob_processed"][step] = inside - z
        here = tolerance.at(max(abs(float(first.x.max())), abs(float(raw[token]))))
        near, self._outside[step] = _follow(
            stages, token, x=float(raw[token]), tolerance=here, claim=claim, mass_before=float(f["mass_before"][step])
        )
        f["logprob_near"][step] = near - z
        least = last.x.min()
        f["last_prob"][step] = np.exp(float(least) - z) * int(np.count_nonzero(last.x == least))
        i["last_drawn"][step] = inside == least
        for at, stage in enumerate(stages[1:]):
            self._stage_support[step, at] = len(stage.row.x)
            self._stage_mass[step, at] = stage.mass_kept
        f["raw_kept"][step] = share(first, last)
        self._likely.append(_likely(last) if np.isfinite(inside) else (np.zeros(0, np.int64), np.zeros(0)))
        f["seen_mass"][step] = _mass_of(last, self.seen)
        self._seen_drawn[step] = token in self.seen
        self.seen[token] = None
        if len(last.x) <= 256:
            self._laws[step] = law_logprobs(last, token)

    def steps(self, tokens: Sequence[int]) -> Steps:
        """The filled columns."""
        return Steps(
            tokens=np.asarray(tokens, np.int64),
            outside=tuple(self._outside),
            stage_names=self._names,
            stage_support=self._stage_support,
            stage_mass=self._stage_mass,
            laws=self._laws,
            likely_ids=np.concatenate([ids for ids, _ in self._likely]) if self._likely else np.zeros(0, np.int64),
            likely_probs=np.concatenate([probs for _, probs in self._likely]) if self._likely else np.zeros(0),
            seen_drawn=self._seen_drawn,
            **cast(dict[str, Any], {**self._ints, **self._floats}),
        )


def _likely(row: LogitRow) -> tuple[Ids, Doubles]:
    """The tokens with a probability of at least _LIKELY, and their probabilities."""
    e, total = row.weights()
    at = np.flatnonzero(e >= _LIKELY * total)
    return (at if row.ids is None else row.ids[at]), e[at].astype(np.float64) / total


def _mass_of(row: LogitRow, tokens: Mapping[int, None]) -> float:
    """The probability of these tokens, together."""
    if not tokens:
        return 0.0
    ids = np.fromiter(tokens, np.int64, len(tokens))
    e, total = row.weights()
    if row.ids is not None:
        at = np.searchsorted(row.ids, ids)
        at = at[(at < len(row.ids)) & (row.ids[np.minimum(at, len(row.ids) - 1)] == ids)]
    else:
        at = ids
    return min(1.0, float(e[at].sum(dtype=np.float64)) / total)


def _logit(row: LogitRow, token: int) -> float:
    """The token's logit in the row, -inf where it is gone."""
    if row.ids is None:
        return float(row.x[token])
    at = int(np.searchsorted(row.ids, token))
    return float(row.x[at]) if at < len(row.ids) and row.ids[at] == token else -np.inf


def _raw(row: LogitRow, x: np.float32) -> tuple[float, float]:
    """The token's log-probability and the entropy of a row without any processing."""
    e, total = row.weights()
    top = float(row.x.max())
    z = top + np.log(total)
    return float(x) - z, z - (top + float(np.dot(e, _below_top(row))) / total)


def _moments(row: LogitRow) -> tuple[float, float, float]:
    """Mean, variance and third central moment of log q."""
    e, total = row.weights()
    q = e / np.float32(total)
    d = _below_top(row)
    mean = float(np.dot(q, d))
    d = d - np.float32(mean)
    square = d * d
    return mean - float(np.log(total)), float(np.dot(q, square)), float(np.dot(q, square * d))


def _below_top(row: LogitRow) -> Floats:
    """x - max [n], at least -200: exp() of less is 0 in float32 as of that, and squares and cubes of it stay finite."""
    d: Floats = row.x - row.x.max()
    np.maximum(d, np.float32(-200), out=d)
    return d


def _follow(stages: list[Stage], token: int, x: float, tolerance: Tolerance, claim: Claim, mass_before: float) -> tuple[float, str]:
    """The token's logit in the scale of the last row, and the first stage that removes it beyond the tolerance ("" where none does)."""
    outside = "" if np.isfinite(x) else "logits"
    gone = False
    for stage in stages:
        here = _logit(stage.row, token)
        if np.isfinite(here):
            x = here
            continue
        if stage.name == "temperature":
            x /= claim.settings.temperature or 1.0
        if gone and stage.name not in _CUTS:
            continue
        gone = True
        if not outside and stage.name not in _CUTS:
            outside = stage.name  # a bias of -inf
        if not outside and not _near(stage, x, claim.settings, tolerance, mass_before):
            outside = stage.name
    return x, outside


def _near(stage: Stage, x: float, settings: SamplingParams, tolerance: Tolerance, mass_before: float) -> bool:
    """Whether a token with the logit `x` that the stage removed lies within the tolerance of its edge: each cut measured by its own."""
    row = stage.before
    in_mass = settings.top_p is not None and mass_before <= settings.top_p + tolerance.mass
    if stage.name == "joint":
        k, p = settings.top_k or 0, settings.min_p or 0.0
        edges = [-np.inf] if not 0 < k < len(row.x) else [float(np.partition(row.x, len(row.x) - k)[len(row.x) - k])]
        edges += [float(row.x.max()) + np.log(p)] if p else []
        if x < max(edges) - tolerance.logit:
            return False
        return in_mass or settings.top_p is None or x >= float(cuts.joint(row, None, settings.top_p, 0.0).x.min()) - tolerance.logit
    edge = float(stage.row.x.min())
    if stage.name == "min_p" and settings.min_p:
        edge = float(row.x.max()) + np.log(settings.min_p)
    elif stage.name in ("epsilon_cutoff", "eta_cutoff"):
        edge = float(row.x.max()) + np.log(row.weights()[1]) + np.log(_floor(stage.name, row, settings))
    return x >= edge - tolerance.logit or (stage.name in _MASS_CUTS and in_mass)


def _floor(name: str, row: LogitRow, settings: SamplingParams) -> float:
    return (settings.epsilon_cutoff or 1.0) if name == "epsilon_cutoff" else cuts.eta_floor(row, settings.eta_cutoff or 1.0)
