"""Findings about one call: it raises (GEN005), or it never stops (GEN001, GEN004)."""

from __future__ import annotations

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg.causes import Cause, cause_of
from llmdoctor.gencfg.rules import NO_TERMINATOR, REJECTED, UNREACHABLE
from llmdoctor.gencfg.types import Resolution


def call_findings(answer: Resolution) -> tuple[Finding, ...]:
    """Return what is wrong with one call: it raises (GEN005), or it never stops (GEN001, GEN004)."""
    effective = answer.effective
    if effective.error is not None:
        error = effective.error
        message = f"{error.type} at {error.stage}: {error.message}"
        return (REJECTED.at(None, message, type=error.type, stage=error.stage, under=effective.transformers),)
    cause = cause_of(answer)
    return () if cause is None else (runs_on(answer, cause),)


def runs_on(answer: Resolution, cause: Cause) -> Finding:
    """Return the finding that a call never stops, with its cause."""
    stop = answer.effective.stop
    rule = UNREACHABLE if stop.eos_token_id else NO_TERMINATOR
    limit = "without a limit" if stop.limit is None else f"to {stop.limit} new tokens"
    return rule.at(
        cause.location,
        f"runs {limit}: {cause.brief}",
        cause=cause.text,
        fix=cause.fix,
        eos_token_id=list(stop.eos_token_id),
        limit=stop.limit,
        under=answer.effective.transformers,
    )
