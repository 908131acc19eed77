"""`gencfg show`: the effective generation config of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.report import Report
from llmdoctor.core.text import shown
from llmdoctor.gencfg.findings import call_findings
from llmdoctor.gencfg.inputs import inputs_of, unread_fields
from llmdoctor.gencfg.limits import default_limit, limits_of
from llmdoctor.gencfg.options import GencfgOptions
from llmdoctor.gencfg.screen import call_verdict, rules_note
from llmdoctor.gencfg.sides import resolve_call
from llmdoctor.gencfg.tables import VALUE, origins, worth_showing
from llmdoctor.gencfg.types import Resolution, Resolved

if TYPE_CHECKING:
    from llmdoctor.gencfg.results import ProvenanceResult, ShowResult, StopResult


def show_report(options: GencfgOptions) -> Report:
    """Return the effective generation config of a call, each field with its origin.

    Raises QuestionError if a file, a version, a preset or an option cannot be understood.
    """
    resolution = resolve_call(options)
    findings = call_findings(resolution)
    return Report(
        "gencfg show",
        subject=subject_of(resolution),
        result=dict(show_result(resolution)),
        findings=findings,
        verdict=call_verdict(resolution),
        document=(*findings, *_document(resolution)),
    )


def subject_of(resolution: Resolution) -> dict[str, Any]:
    """Return which model and which call a report is about."""
    options = resolution.options
    return {
        "path": options.model,
        "config": options.config,
        "presets": list(resolution.presets),
        "engine": resolution.engine,
        "prompt_length": resolution.call.prompt_length,
    }


def show_result(resolution: Resolution) -> ShowResult:
    """Return the result of `gencfg show`."""
    effective = resolution.effective
    unread = unread_fields(resolution)
    fields = {name: field for name, field in effective.fields.items() if name not in unread}
    error = effective.error
    return {
        "transformers": effective.transformers,
        "rules": effective.rules,
        "engine": resolution.engine,
        "effective": {name: field.value for name, field in fields.items() if field.value is not None},
        "provenance": {name: provenance(field) for name, field in fields.items() if field.value is not None or field.overrides},
        "stop": _stop(resolution),
        "error": None if error is None else {"type": error.type, "message": error.message, "stage": error.stage},
        "warnings": list(effective.warnings),
        "notes": list(resolution.notes),
        "limits": limits_of(resolution),
        "inputs": inputs_of(resolution).result(),
    }


def _stop(resolution: Resolution) -> StopResult:
    stop, end = resolution.effective.stop, resolution.terminator
    turn_end = [] if end is None or end.id is None else [end.id]
    return {
        "eos_token_id": list(stop.eos_token_id),
        "pad_token_id": stop.pad_token_id,
        "limit": stop.limit,
        "limit_is_default": default_limit(resolution.effective),
        "never_stops": stop.never_stops,
        "because": stop.because,
        "turn_end": turn_end,
        "stops_at_turn_end": all(token in stop.eos_token_id for token in turn_end) if turn_end else None,
    }


def provenance(field: Resolved) -> ProvenanceResult:
    """Return where a value came from, for a program."""
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


def _document(resolution: Resolution) -> tuple[Block, ...]:
    effective = resolution.effective
    unread = unread_fields(resolution)
    fields = {name: field for name, field in effective.fields.items() if name not in unread}
    rows = [row for name, field in fields.items() if worth_showing(field) for row in _rows(name, field)]
    quiet = sum(field.value is not None and not worth_showing(field) for field in fields.values())
    also = Note("More", f"{quiet} further fields have the library's default (--format json lists them)", "dim") if quiet else None
    table, *folded = origins(fields, effective.stop.never_stops, Table(("Field", "Value", "From"), tuple(rows)), also)
    notes: list[Block] = [rules_note(resolution), *folded]
    notes += [Note("Note", note, "dim") for note in resolution.notes]
    notes += [Note("Warning", warning, "warn") for warning in effective.warnings]
    if unread:
        notes.append(Note("Ignored", "\n".join(f"{name}: {reason}" for name, reason in unread.items()), "warn"))
    return (table, *notes)


def _rows(name: str, field: Resolved) -> list[tuple[str | Cell, ...]]:
    """Return the row of a field, and one below it for each value that it replaced."""
    rows: list[tuple[str | Cell, ...]] = [
        (name, Cell(shown(field.value, VALUE), "bad" if field.value is None else "plain"), field.origin.source)
    ]
    rows += [
        (Cell("  instead of", "dim"), Cell(shown(setting.value, VALUE), "dim"), Cell(setting.origin.source, "dim"))
        for setting in field.overrides
    ]
    return rows
