"""Findings about the call that a GGUF file, a Modelfile or a server's command line describes, in the language of its engine."""

from __future__ import annotations

from collections.abc import Iterator

from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.gencfg import rules
from llmdoctor.gencfg.engines.table import engine_named
from llmdoctor.gencfg.findings import call_findings
from llmdoctor.gencfg.stop_ids import StopIds, stop_ids_of
from llmdoctor.gencfg.types import Resolution


def served_findings(answer: Resolution) -> Iterator[Finding]:
    """Yield what is wrong with one call: GEN001 to GEN005, GEN013, GEN021 and GEN022."""
    yield from call_findings(answer)
    if answer.effective.error is not None:
        return
    yield from _tool_end(answer)
    yield from _stops_early(answer)
    yield from _unresolved(answer)


def _tool_end(answer: Resolution) -> Iterator[Finding]:
    """GEN021: the call does not stop at the token that ends a tool call."""
    engine, _ = engine_named(answer.options.engine)
    stop, end, token = answer.effective.stop, answer.terminator, stop_ids_of(answer).tool_end
    if (
        end is None
        or end.tool is None
        or token is None
        or stop.never_stops
        or token in stop.eos_token_id
        or _is_stop_text(answer, end.tool.token)
    ):
        return
    yield rules.TOOL_END.at(
        Location(answer.options.model),
        f"the chat template ends a tool call with {end.tool.token} ({token}), but {engine.title} stops only at "
        f"{', '.join(map(str, stop.eos_token_id))}",
        cause=engine.stops,
        fix=engine.stop_fix([token]),
        wanted=token,
        eos_token_id=list(stop.eos_token_id),
    )


def _stops_early(answer: Resolution) -> Iterator[Finding]:
    """GEN022: a stop id is ordinary text, or occurs inside an answer."""
    engine, _ = engine_named(answer.options.engine)
    stop_ids, end, field = stop_ids_of(answer), answer.terminator, answer.effective.fields["eos_token_id"]
    ending = set() if end is None else {end.id, *end.after, stop_ids.tool_end}
    for token in answer.effective.stop.eos_token_id:
        if token in ending or not stop_ids.ends_early(token):
            continue
        name = stop_ids.name(token)
        is_text = stop_ids.is_text(token)
        inside = "is ordinary text: every answer ends at the first one" if is_text else "stands inside answers by the chat template"
        yield rules.STOPS_EARLY.at(
            Location(answer.options.model),
            f"{engine.title} stops at {name}, which {inside}",
            cause=f"the id comes from {field.origin.source}",
            severity=None if is_text else Severity.WARNING,
            fix=_other_eos(stop_ids),
            token=token,
            eos_token_id=list(answer.effective.stop.eos_token_id),
        )


def _other_eos(stop_ids: StopIds) -> str:
    """Return how to write another eos id into a GGUF file (the console script of the package gguf)."""
    token = stop_ids.turn_end
    return f"gguf-new-metadata --special-token-by-id eos {'ID' if token is None else token} OLD.gguf NEW.gguf   (pip install gguf)"


def _unresolved(answer: Resolution) -> Iterator[Finding]:
    """GEN013: the chat template does not show what ends a turn."""
    end = answer.terminator
    if end is not None and end.reason is not None:
        yield rules.UNRESOLVED.at(Location(answer.options.model), end.reason, token=end.token)


def _is_stop_text(answer: Resolution, text: str | None) -> bool:
    field = answer.effective.fields.get("stop_strings")
    strings = field.value if field is not None else None
    return text is not None and text in (strings if isinstance(strings, list) else [strings])
