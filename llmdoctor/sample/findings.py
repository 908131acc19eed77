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
    """Return what the tokens came from most likely, with its lead; None if nothing fits better than the claim."""
    if done.estimates is None or not done.estimates.fits or done.estimates.fits[0].claimed:
        return None
    best, margin = done.estimates.fits[0], done.estimates.margin
    impossible = f"{best.impossible} impossible tokens" if best.impossible else "no impossible token"
    lead = (
        f", {margin:.0f} nats ahead of the next candidate"
        if math.isfinite(margin) and margin >= 1
        else ", hardly ahead of the next candidate"
    )
    return f"most likely {best.words()} ({impossible}{lead if math.isfinite(margin) else ''})"


def _fix(done: Replay) -> str | None:
    """The settings to claim, if one candidate is clearly ahead."""
    estimates = done.estimates
    if (
        estimates is None
        or not estimates.fits
        or estimates.margin < _CLEAR
        or estimates.fits[0].law is not None
        or estimates.fits[0].claimed
    ):
        return None
    return f"Claim what was used ({estimates.fits[0].words()}), or set the engine to what was claimed ({done.claim.words()})."
