"""`gencfg diff`: two calls side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmdoctor.core.document import Block, Cell, Headline, Note, Table
from llmdoctor.core.report import Report
from llmdoctor.core.text import shown
from llmdoctor.gencfg.causes import Cause, cause_of
from llmdoctor.gencfg.consequences import consequence
from llmdoctor.gencfg.imports import import_blocks
from llmdoctor.gencfg.options import Answer, Side, ask, is_trace
from llmdoctor.gencfg.rules import call_findings
from llmdoctor.gencfg.show import cause_blocks, engine_line, headline, provenance, result_of, subject_of
from llmdoctor.gencfg.tables import VALUE, side_by_side
from llmdoctor.gencfg.types import Effective, Resolved

# What a reader looks for first; the rest follows in the library's order.
_FIRST = ("eos_token_id", "pad_token_id", "stop_strings", "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p")
_METADATA = ("transformers_version", "_from_model_config", "generation_kwargs")


def diff_report(left: Side, right: Side) -> Report:
    """Resolve both sides and say what differs, why, and whether either never stops.

    A trace alone is held against a plain generate() of its own model.
    """
    if left.model == right.model and is_trace(left.model):
        from llmdoctor.gencfg.trace.sides import against_plain

        one, other = against_plain(left, right)
    else:
        one, other = ask(left), ask(right)
    changed = changes(one, other)
    causes = {"left": cause_of(one), "right": cause_of(other)}
    cause = causes["right"] or causes["left"]
    findings = call_findings(other)
    findings += tuple(finding for finding in call_findings(one) if finding not in findings)
    return Report(
        "gencfg diff",
        subject={"left": subject_of(one), "right": subject_of(other)},
        result={
            "left": result_of(one),
            "right": result_of(other),
            "changed": [_change(field, one.effective, other.effective) for field in changed],
            "runaway": {"left": one.effective.stop.never_stops, "right": other.effective.stop.never_stops},
            "cause": None if cause is None else cause.text,
            "imports": [
                {"side": name, "package": item.package, "source": item.source, "observed": item.observed, "changed": list(item.changed)}
                for name, answer in (("left", one), ("right", other))
                for item in answer.imports
            ],
        },
        findings=findings,
        document=_document(one, other, changed, cause),
        differs=bool(changed) or _outcome(one.effective) != _outcome(other.effective),
        told=True,
    )


def _outcome(effective: Effective) -> tuple[Any, ...]:
    """What counts as an outcome of its own beside the fields: the exception, and where decoding stops."""
    stop = effective.stop
    return (effective.error and effective.error.type, frozenset(stop.eos_token_id), stop.never_stops)


def changes(left: Answer, right: Answer) -> list[str]:
    """The fields whose effective value differs, those a reader looks for first in front.

    Between engines only what both have, or what one of them acts on: that transformers has a length_penalty is no difference.
    """
    one, other = left.effective, right.effective
    names = [name for name in dict.fromkeys([*_FIRST, *one.fields, *other.fields]) if name not in _METADATA]
    if left.engine == right.engine:
        return [name for name in names if not _equal(_value(one, name), _value(other, name))]
    from llmdoctor.gencfg.vllm import differs_from_vllm

    ours, theirs = (one, other) if right.engine == "vllm" else (other, one)
    return [name for name in names if differs_from_vllm(name, _value(ours, name), _value(theirs, name))]


def _equal(left: Any, right: Any) -> bool:
    """Equality as the library compares: 50.0 is 50, but True is not 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _value(effective: Effective, name: str) -> Any:
    field = effective.fields.get(name)
    return None if field is None else field.value


def _change(field: str, left: Effective, right: Effective) -> dict[str, Any]:
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


def _document(left: Answer, right: Answer, changed: list[str], cause: Cause | None) -> tuple[Block, ...]:
    blocks: list[Block] = [_verdict(left, right, changed, cause)]
    if changed:
        blocks += side_by_side(left.effective, right.effective, _labels(left, right), changed, _table(left, right, changed))
    if left.effective.transformers != right.effective.transformers:
        blocks.append(
            Note("UNDER", f"left {engine_line(left.effective, left.engine)}, right {engine_line(right.effective, right.engine)}", "dim")
        )
    else:
        blocks.append(Note("UNDER", engine_line(right.effective, right.engine), "dim"))
    blocks += [Note("NOTE", note, "dim") for note in dict.fromkeys((*left.notes, *right.notes))]
    blocks += import_blocks((*left.imports, *right.imports))
    for name, mine, theirs in (("left", left, right), ("right", right, left)):
        said = [warning for warning in mine.effective.warnings if warning not in theirs.effective.warnings]
        blocks += [Note("WARNS", f"{name}: {warning}", "warn") for warning in said[:3]]
    return (*blocks, *cause_blocks(cause))


def _verdict(left: Answer, right: Answer, changed: list[str], cause: Cause | None) -> Headline:
    for name, answer, one in (("RIGHT ", right, left), ("LEFT ", left, right)):
        effective = answer.effective
        if effective.error is not None:
            return headline(answer, name)
        if effective.stop.never_stops and cause is not None:
            who = "NEITHER SIDE STOPS" if one.effective.stop.never_stops else f"{name}NEVER STOPS"
            return Headline(f"{who}: {cause.brief}", "bad")
    if not changed:
        return Headline("NO DIFFERENCE: both calls come to the same configuration, and both stop", "good")
    what = "1 field differs" if len(changed) == 1 else f"{len(changed)} fields differ"
    return Headline(f"BOTH STOP, but {what}: {', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}", "warn")


def _table(left: Answer, right: Answer, changed: list[str]) -> Table:
    names = _labels(left, right)
    rows: list[tuple[str | Cell, ...]] = []
    for field in changed:
        one, other = left.effective.fields.get(field), right.effective.fields.get(field)
        rows.append((field, _shown(left, field), _shown(right, field)))
        rows.append((Cell("  from", "dim"), Cell(_from(one), "dim"), Cell(_from(other), "dim")))
        rows.append((Cell("  so", "dim"), "", Cell(consequence(field, left.effective, right.effective), "dim")))
    return Table(("", *names), tuple(rows))


def _shown(answer: Answer, field: str) -> Cell:
    value = _value(answer.effective, field)
    runs_on = field == "eos_token_id" and answer.effective.stop.never_stops
    return Cell(shown(value, VALUE), "bad" if runs_on else "plain")


def _labels(left: Answer, right: Answer) -> tuple[str, str]:
    """Short names of the two sides, by what tells them apart."""
    one, other = left.side, right.side
    pairs = (
        (left.engine, right.engine),
        (left.effective.transformers, right.effective.transformers),
        (Path(one.model).name, Path(other.model).name),
        (" ".join(one.preset or ()) or "as loaded", " ".join(other.preset or ()) or "as loaded"),
    )
    for first, second in pairs:
        if first != second:
            return f"left: {first}", f"right: {second}"
    return "left", "right"
