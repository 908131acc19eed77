"""`gencfg show`: the effective generation config of one call as a report."""

from __future__ import annotations

from typing import Any

from llmdoctor.core.document import Block, Cell, Code, Headline, Note, Table
from llmdoctor.core.report import Report
from llmdoctor.core.text import shown
from llmdoctor.gencfg.causes import Cause, cause_of
from llmdoctor.gencfg.options import Answer, Side, ask
from llmdoctor.gencfg.rules import call_findings
from llmdoctor.gencfg.tables import VALUE, origins, worth_showing
from llmdoctor.gencfg.types import Effective, Resolved


def show_report(side: Side) -> Report:
    """Resolve one call and say what it comes to, field by field."""
    answer = ask(side)
    return Report(
        "gencfg show",
        subject=subject_of(answer),
        result=result_of(answer),
        findings=call_findings(answer),
        document=_document(answer),
        told=True,
    )


def subject_of(answer: Answer) -> dict[str, Any]:
    """Which model and which call."""
    side = answer.side
    return {
        "path": side.model,
        "config": side.config,
        "presets": list(answer.presets),
        "engine": answer.engine,
        "prompt_length": answer.call.prompt_length,
    }


def result_of(answer: Answer) -> dict[str, Any]:
    """The contract's result object of `gencfg show`."""
    effective = answer.effective
    stop = effective.stop
    fields = {name: field for name, field in effective.fields.items() if field.value is not None or field.overrides}
    return {
        "transformers": effective.transformers,
        "rules": effective.rules,
        "engine": answer.engine,
        "effective": {name: field.value for name, field in effective.fields.items() if field.value is not None},
        "provenance": {name: provenance(field) for name, field in fields.items()},
        "stop": {
            "eos_token_id": list(stop.eos_token_id),
            "pad_token_id": stop.pad_token_id,
            "limit": stop.limit,
            "never_stops": stop.never_stops,
            "because": stop.because,
        },
        "error": None
        if effective.error is None
        else {"type": effective.error.type, "message": effective.error.message, "stage": effective.error.stage},
        "warnings": list(effective.warnings),
        "notes": list(answer.notes),
    }


def provenance(field: Resolved) -> dict[str, Any]:
    """Where a value came from, for a program."""
    origin = field.origin
    return {
        "layer": origin.layer,
        "source": origin.source,
        "file": origin.file,
        "pointer": origin.pointer,
        "line": origin.line,
        "overrides": [
            {"layer": setting.origin.layer, "value": setting.value, "source": setting.origin.source} for setting in field.overrides
        ],
    }


def name_tokens(answer: Answer, ids: tuple[int, ...]) -> str:
    """Token ids with the tokenizer's names beside them: "151645 <|im_end|>, 151643 <|endoftext|>"."""
    named = []
    for token_id in ids:
        token = answer.tokenizer.token_of(token_id)
        named.append(str(token_id) if token is None else f"{token_id} {token}")
    return ", ".join(named)


def headline(answer: Answer, name: str = "") -> Headline:
    """Whether the call stops, in one sentence; `name` stands before it ("RIGHT ")."""
    effective, stop = answer.effective, answer.effective.stop
    if effective.error is not None:
        return Headline(f"{name}FAILS: {effective.error.type} in {effective.error.stage}: {effective.error.message}", "bad")
    limit = "without a limit" if stop.limit is None else f"{stop.limit} new tokens"
    if stop.never_stops:
        return Headline(f"{name}NEVER STOPS before {limit}: {stop.because or 'no token ends it'}", "bad")
    return Headline(f"{name}STOPS at {name_tokens(answer, stop.eos_token_id) or 'a stop string'}, at the latest after {limit}", "good")


def engine_line(effective: Effective, engine: str) -> str:
    """Which rules were applied, and a word where the version is not one of those known."""
    if engine == "vllm":
        return effective.transformers
    if effective.rules == effective.transformers:
        return f"transformers {effective.transformers}"
    return f"transformers {effective.transformers} is newer than the rules known here; those of {effective.rules} were applied"


def _document(answer: Answer) -> tuple[Block, ...]:
    effective = answer.effective
    rows = [row for name, field in effective.fields.items() if worth_showing(field) for row in _rows(name, field)]
    quiet = sum(field.value is not None and not worth_showing(field) for field in effective.fields.values())
    also = Note("ALSO", f"{quiet} fields at the library's defaults (--format json shows them)", "dim") if quiet else None
    table, *folded = origins(effective, Table(("field", "value", "from"), tuple(rows)), also)
    notes: list[Block] = [Note("UNDER", engine_line(effective, answer.engine), "dim"), *folded]
    notes += [Note("NOTE", note, "dim") for note in answer.notes]
    notes += [Note("WARNS", warning, "warn") for warning in effective.warnings]
    return (headline(answer), table, *notes, *cause_blocks(cause_of(answer)))


def _rows(name: str, field: Resolved) -> list[tuple[str | Cell, ...]]:
    """A field's row, and one below it for each value that it replaced."""
    rows: list[tuple[str | Cell, ...]] = [
        (name, Cell(shown(field.value, VALUE), "bad" if field.value is None else "plain"), field.origin.source)
    ]
    rows += [
        (Cell("  instead of", "dim"), Cell(shown(setting.value, VALUE), "dim"), Cell(setting.origin.source, "dim"))
        for setting in field.overrides
    ]
    return rows


def cause_blocks(cause: Cause | None) -> tuple[Block, ...]:
    """Why it never stops, what else is affected, and what to paste."""
    if cause is None:
        return ()
    watch = (Note("WATCH", cause.watch, "warn"),) if cause.watch else ()
    return (Note("CAUSE", cause.text), *watch, Code("FIX", cause.fix))
