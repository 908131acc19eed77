"""The findings of a replay, each made by its rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmdoctor.core.finding import Finding, Location
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.judge import Judgement
from llmdoctor.sample.replayed import Replay
from llmdoctor.sample.rules import BROKEN, IMPOSSIBLE, KIND, OTHER

_CLEAR = 3.0  # nats by which a candidate is clearly ahead
_NAMED = 3  # candidates that are named if none is


def findings_of(
    verdict: Judgement, claim: Claim, path: str, steps: Sequence[int], *, cause: str | None = None, fix: str | None = None
) -> tuple[Finding, ...]:
    """Return the finding of an inconsistent verdict; `steps` are those with impossible tokens, `cause` what fits instead."""
    if verdict.outcome != "inconsistent":
        return ()
    rule = IMPOSSIBLE if verdict.deciding is not None and verdict.deciding.name == "impossible_tokens" else OTHER
    message = f"{claim.words()}: {verdict.reason}"
    return (rule.at(Location(path), message, cause=cause, fix=fix, p_value=verdict.p_corrected, steps=list(steps[:20])),)


def replay_findings(done: Replay) -> tuple[Finding, ...]:
    """Return what a replay found."""
    impossible = [at for at, name in enumerate(done.steps.outside) if name]
    found = list(findings_of(done.verdict, done.claim, done.logits.path, impossible, cause=cause_of(done), fix=_fix(done)))
    where = Location(done.logits.path)
    if found and done.estimates is not None and done.estimates.law is not None:
        message = f"the draws follow the law of a broken sampler: {done.estimates.law}"
        found.append(BROKEN.at(where, message, nats=done.estimates.law_gain))
    if done.kind is not None and done.kind[0] != "raw":
        name, far = done.kind
        message = f"the recorded log-probabilities are {name}, not raw"
        found.append(KIND.at(where, message, raw=far["raw"], temperature=far["temperature"], processed=far["processed"]))
    return tuple(found)


def cause_of(done: Replay) -> str | None:
    """Return what the tokens came from, with its lead; several candidates if none is clearly ahead; None if nothing fits better than the claim."""
    if done.estimates is None or not done.estimates.fits or done.estimates.fits[0].claimed:
        return None
    best, margin = done.estimates.fits[0], done.estimates.margin
    near = done.estimates.near(_CLEAR)
    if len(near) > 1:
        named = "; or ".join(fit.words() for fit in near[:_NAMED])
        more = f"; or one of {len(near) - _NAMED} more" if len(near) > _NAMED else ""
        return f"not decided, within {_CLEAR:g} nats of each other: {named}{more}"
    impossible = f"{best.impossible} impossible tokens" if best.impossible else "no impossible token"
    lead = f", {margin:.0f} nats ahead of the next candidate" if math.isfinite(margin) else ""
    return f"most likely {best.words()} ({impossible}{lead})"


def _fix(done: Replay) -> str | None:
    """The settings to claim, if one candidate is clearly ahead."""
    estimates = done.estimates
    if estimates is None or not estimates.fits or len(estimates.near(_CLEAR)) > 1:
        return None
    if estimates.fits[0].law is not None or estimates.fits[0].claimed:
        return None
    return f"Claim what was used ({estimates.fits[0].words()}), or set the engine to what was claimed ({done.claim.words()})."
