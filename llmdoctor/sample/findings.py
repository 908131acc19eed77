"""The findings of a replay, each made by its rule."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.core.finding import Finding, Location
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.judge import Judgement
from llmdoctor.sample.replayed import Replay
from llmdoctor.sample.rules import BROKEN, IMPOSSIBLE, KIND, OTHER


def findings_of(verdict: Judgement, claim: Claim, path: str, steps: Sequence[int]) -> tuple[Finding, ...]:
    """Return the finding of an inconsistent verdict; `steps` are those with impossible tokens."""
    if verdict.outcome != "inconsistent":
        return ()
    rule = IMPOSSIBLE if verdict.deciding is not None and verdict.deciding.name == "impossible_tokens" else OTHER
    return (rule.at(Location(path), f"{claim.words()}: {verdict.reason}", p_value=verdict.p_corrected, steps=list(steps[:20])),)


def replay_findings(done: Replay) -> tuple[Finding, ...]:
    """Return what a replay found."""
    found = list(findings_of(done.verdict, done.claim, done.logits.path, [at for at, name in enumerate(done.steps.outside) if name]))
    where = Location(done.logits.path)
    if found and done.estimates is not None and done.estimates.law is not None:
        message = f"the draws follow the law of a broken sampler: {done.estimates.law}"
        found.append(BROKEN.at(where, message, nats=done.estimates.law_gain))
    if done.kind is not None and done.kind[0] != "raw":
        found.append(
            KIND.at(
                where,
                f"the recorded log-probabilities are {done.kind[0]}, not raw",
                raw=done.kind[1]["raw"],
                temperature=done.kind[1]["temperature"],
                processed=done.kind[1]["processed"],
            )
        )
    return tuple(found)
