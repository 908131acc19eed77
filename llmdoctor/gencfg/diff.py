"""`gencfg diff`: two calls side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import shown
from llmdoctor.gencfg.causes import Cause, cause_of
from llmdoctor.gencfg.consequences import consequence
from llmdoctor.gencfg.engines.table import engine_named
from llmdoctor.gencfg.engines.types import same_meaning
from llmdoctor.gencfg.findings import call_findings, missed_turn_end
from llmdoctor.gencfg.imports import import_blocks
from llmdoctor.gencfg.inputs import inputs_of_both, unread_fields
from llmdoctor.gencfg.options import DiffOptions
from llmdoctor.gencfg.screen import call_verdict, name_tokens, rules_note, with_limits
from llmdoctor.gencfg.show import provenance, show_result, subject_of
from llmdoctor.gencfg.sides import resolve_both
from llmdoctor.gencfg.tables import VALUE, side_by_side
from llmdoctor.gencfg.types import Effective, Resolution, Resolved
from llmdoctor.gencfg.versions import METADATA

if TYPE_CHECKING:
    from llmdoctor.gencfg.results import DiffResult, FieldChangeResult

# What a reader looks for first; the rest follows in the library's order.
_FIRST = ("eos_token_id", "pad_token_id", "stop_strings", "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p")


def diff_report(options: DiffOptions) -> Report:
    """Return what differs between two calls, why, and whether either of them never stops.

    A trace alone is compared with a plain generate() of its own model. Raises QuestionError like show_report.
    """
    left, right = resolve_both(options)
    changed = changes(left, right)
    cause = cause_of(right) or cause_of(left)
    findings = call_findings(right)
    findings += tuple(finding for finding in call_findings(left) if finding not in findings)
    return Report(
        "gencfg diff",
        subject={"left": subject_of(left), "right": subject_of(right)},
        result=dict(_result(left, right, changed, cause)),
        findings=findings,
        verdict=_verdict(left, right, changed, cause),
        document=_document(left, right, changed, findings, cause),
        differs=bool(changed) or _outcome(left.effective) != _outcome(right.effective),
    )


def _result(left: Resolution, right: Resolution, changed: list[str], cause: Cause | None) -> DiffResult:
    return {
        "left": show_result(left),
        "right": show_result(right),
        "changed": [_change(field, left.effective, right.effective) for field in changed],
        "runaway": {"left": left.effective.stop.never_stops, "right": right.effective.stop.never_stops},
        "cause": None if cause is None else cause.text,
        "imports": [
            {"side": name, "package": item.package, "source": item.source, "observed": item.observed, "changed": list(item.changed)}
            for name, side in (("left", left), ("right", right))
            for item in side.imports
        ],
        "inputs": inputs_of_both(left, right).result(),
    }


def _outcome(effective: Effective) -> tuple[Any, ...]:
    """Return what counts as an outcome beside the fields: the exception, and where decoding stops."""
    stop = effective.stop
    return (effective.error and effective.error.type, frozenset(stop.eos_token_id), stop.never_stops)


def changes(left: Resolution, right: Resolution) -> list[str]:
    """Return the fields whose effective value differs, those that a reader looks for first in front.

    Between two engines only a field on which one of them acts counts: a length_penalty of transformers alone is no difference.
    """
    one, other = left.effective, right.effective
    unread = {*unread_fields(left), *unread_fields(right), *METADATA}
    names = [name for name in dict.fromkeys([*_FIRST, *one.fields, *other.fields]) if name not in unread]
    first, second = engine_named(left.options.engine)[0], engine_named(right.options.engine)[0]
    if first is second:
        return [name for name in names if not _equal(_value(one, name), _value(other, name))]
    values = {name: ((first, _value(one, name)), (second, _value(other, name))) for name in names if name != "eos_token_id"}
    found = [name for name, (mine, theirs) in values.items() if not same_meaning(name, mine, theirs)]
    ids = [] if set(one.stop.eos_token_id) == set(other.stop.eos_token_id) else ["eos_token_id"]
    return [*ids, *found]


def _equal(left: Any, right: Any) -> bool:
    """Return whether the library compares two values as equal: 50.0 is 50, but True is not 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _value(effective: Effective, name: str) -> Any:
    field = effective.fields.get(name)
    return None if field is None else field.value


def _change(field: str, left: Effective, right: Effective) -> FieldChangeResult:
    one, other = left.fields.get(field), right.fields.get(field)
    return {
        "field": field,
        "left": _value(left, field),
        "right": _value(right, field),
        "left_from": _from(one),
        "right_from": _from(other),
        "left_provenance": None if one is None else provenance(one),
        "right_provenance": None if other is None else provenance(other),
        "consequence": consequence(field, left, right),
    }


def _from(field: Resolved | None) -> str:
    return "not a field here" if field is None else field.origin.source


def _document(
    left: Resolution, right: Resolution, changed: list[str], findings: tuple[Finding, ...], cause: Cause | None
) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if changed:
        blocks += side_by_side(left.effective, right.effective, _labels(left, right), changed, _table(left, right, changed))
    blocks += findings
    blocks += [Note("Note", note, "dim") for note in dict.fromkeys((*left.notes, *right.notes))]
    blocks += import_blocks((*left.imports, *right.imports))
    for name, mine, theirs in (("left", left, right), ("right", right, left)):
        new = [warning for warning in mine.effective.warnings if warning not in theirs.effective.warnings]
        blocks += [Note("Warning", f"{name}: {warning}", "warn") for warning in new[:3]]
    if cause is not None and cause.watch:
        blocks.append(Note("Warning", cause.watch, "warn"))
    return (*blocks, rules_note(left, right))


def _verdict(left: Resolution, right: Resolution, changed: list[str], cause: Cause | None) -> Verdict:
    for name, side, other in (("right", right, left), ("left", left, right)):
        effective = side.effective
        if effective.error is not None:
            return call_verdict(side, f"The {name} call")
        if effective.stop.never_stops and cause is not None:
            who = "Neither call stops" if other.effective.stop.never_stops else f"The {name} call never stops"
            return Verdict(with_limits(f"{who}: {cause.brief}", left, right), "problem")
    what = "1 field differs" if len(changed) == 1 else f"{len(changed)} fields differ"
    named = f"{what}: {', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}"
    missing = [(name, side, end) for name, side in (("left", left), ("right", right)) if (end := missed_turn_end(side)) is not None]
    if missing:
        name, side, end = missing[-1]
        who = "Neither call stops" if len(missing) == 2 else f"The {name} call does not stop"
        text = f"{who} at {name_tokens(side, (end,))}, with which a turn ends; {named if changed else 'no field differs'}"
        return Verdict(with_limits(text, left, right), "problem")
    unknown = next((side.effective.stop.unknown for side in (right, left) if side.effective.stop.unknown is not None), None)
    if unknown is not None:
        return Verdict(
            with_limits(f"Undecided whether both calls stop: {unknown}; {named if changed else 'no field differs'}", left, right),
            "undecided",
        )
    if not changed:
        return Verdict(with_limits(f"No field differs, and both calls stop at {_stops(right)}", left, right), "ok")
    return Verdict(with_limits(f"Both calls stop, but {named}", left, right), "problem")


def _stops(side: Resolution) -> str:
    return name_tokens(side, side.effective.stop.eos_token_id) or "a stop string"


def _table(left: Resolution, right: Resolution, changed: list[str]) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for field in changed:
        one, other = left.effective.fields.get(field), right.effective.fields.get(field)
        rows.append((field, _shown(left, field), _shown(right, field)))
        rows.append((Cell("  set by", "dim"), Cell(_from(one), "dim"), Cell(_from(other), "dim")))
        rows.append((Cell("  effect", "dim"), "", Cell(consequence(field, left.effective, right.effective), "dim")))
    return Table(("", *_labels(left, right)), tuple(rows))


def _shown(side: Resolution, field: str) -> Cell:
    value = _value(side.effective, field)
    never = field == "eos_token_id" and side.effective.stop.never_stops
    return Cell(shown(value, VALUE), "bad" if never else "plain")


def _labels(left: Resolution, right: Resolution) -> tuple[str, str]:
    """Return short names of the two sides, by the first thing in which they differ."""
    one, other = left.options, right.options
    pairs = (
        (left.engine, right.engine),
        (left.effective.transformers, right.effective.transformers),
        (Path(one.model).name, Path(other.model).name),
        (" ".join(one.presets) or "as loaded", " ".join(other.presets) or "as loaded"),
    )
    for first, second in pairs:
        if first != second:
            return f"left: {first}", f"right: {second}"
    return "left", "right"
