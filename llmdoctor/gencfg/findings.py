"""Findings about one call: it raises (GEN005), never stops (GEN001, GEN004), or passes the end of an answer (GEN002)."""

from __future__ import annotations

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.gencfg.causes import Cause, cause_of, passed_cause
from llmdoctor.gencfg.rules import NO_TERMINATOR, REJECTED, TURN_END, UNREACHABLE
from llmdoctor.gencfg.stop_ids import stop_ids_of
from llmdoctor.gencfg.types import Resolution


def call_findings(answer: Resolution) -> tuple[Finding, ...]:
    """Return what is wrong with one call: it raises, never stops, or passes the token with which the chat template ends an answer."""
    effective = answer.effective
    if effective.error is not None:
        error = effective.error
        message = f"{error.type} at {error.stage}: {error.message}"
        return (REJECTED.at(None, message, type=error.type, stage=error.stage, under=effective.transformers),)
    cause = cause_of(answer)
    if cause is not None:
        return (runs_on(answer, cause),)
    token = missed_turn_end(answer)
    return () if token is None else (_passes_turn_end(answer, token),)


def missed_turn_end(answer: Resolution) -> int | None:
    """Return the id with which the chat template ends an answer if the call does not stop there; None if it does, or if the id is not known."""
    stop, end = answer.effective.stop, answer.terminator
    token = stop_ids_of(answer).turn_end
    if end is None or token is None or stop.never_stops or end.ends_at(stop.eos_token_id):
        return None
    strings = answer.effective.fields.get("stop_strings")
    texts = [] if strings is None or strings.value is None else strings.value if isinstance(strings.value, list) else [strings.value]
    return None if end.token in texts or not (stop.eos_token_id or texts) else token


def _passes_turn_end(answer: Resolution, token: int) -> Finding:
    stop, cause, end = answer.effective.stop, passed_cause(answer, token), answer.terminator
    late = end is not None and end.ends_late_at(stop.eos_token_id)
    return TURN_END.at(
        cause.location,
        f"the chat template ends an answer with {stop_ids_of(answer).name(token)}, but the call stops only at {', '.join(map(str, stop.eos_token_id))}",
        cause=cause.text,
        fix=cause.fix,
        severity=Severity.WARNING if late else None,
        wanted=token,
        eos_token_id=list(stop.eos_token_id),
        under=answer.effective.transformers,
    )


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
