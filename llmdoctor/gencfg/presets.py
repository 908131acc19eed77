"""`gencfg presets`: the trainers whose effect on generation is known, by library and version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.options import PresetsOptions
from llmdoctor.gencfg.trainers import Preset, TrainerAssignment, known_versions, load_preset, preset_names, preset_span

if TYPE_CHECKING:
    from llmdoctor.gencfg.results import AssignmentResult, PresetResult, PresetsResult

_TARGETS = {
    "model": "the model's config",
    "call": "its own call",
    "kwargs": "its own call",
}


def presets_report(options: PresetsOptions) -> Report:
    """Return the trainers that --preset takes, or what one of them does. Raises QuestionError for an unknown name or version."""
    if options.name is not None:
        return _one(load_preset(options.name))
    entries = [_entry(name) for name in preset_names()]
    result: PresetsResult = {"presets": entries}
    rows = tuple((entry["name"], _span(entry), entry["owner"]) for entry in entries)  # three columns: no name is broken at 80 columns
    read = ", ".join(f"{plural(len(versions), 'version')} of {library}" for library, versions in known_versions().items())
    return Report(
        "gencfg presets",
        subject={"name": None},
        result=dict(result),
        verdict=Verdict(f"{plural(len(entries), 'trainer')} known, read in the sources of {read}"),
        document=(Table(("Preset", "Versions", "Class or function"), rows), Note("Next", "llmdoctor gencfg presets NAME")),
    )


def _span(entry: PresetResult) -> str:
    return entry["first"] if entry["first"] == entry["last"] else f"{entry['first']} to {entry['last']}"


def _entry(name: str) -> PresetResult:
    library, first, last, owner = preset_span(name)
    return {"name": name, "library": library, "first": first, "last": last, "versions": len(known_versions()[library]), "owner": owner}


def _one(preset: Preset) -> Report:
    entry = _entry(preset.name)
    entry["version"] = preset.version
    entry["assignments"] = [_assignment(item) for item in preset.assignments]
    entry["notes"] = list(preset.notes)
    result: PresetsResult = {"presets": [entry]}
    rows = tuple(
        (Cell(item.field), _value(item), _TARGETS[item.target], item.place, "" if item.default and not item.needs else _condition(item))
        for item in preset.assignments
    )
    blocks: list[Block] = [Table(("Field", "Value", "Set on", "At", "If"), rows)] if rows else []
    blocks += [Note("Note", note, "dim") for note in preset.notes]
    count = plural(len(preset.assignments), "value")
    text = (
        f"{preset.source} {preset.owner} sets {count} that decide how text is generated"
        if rows
        else f"{preset.source} {preset.owner} sets nothing"
    )
    limits = f" ({'; '.join(preset.notes)})" if preset.notes else ""
    return Report("gencfg presets", {"name": preset.name}, dict(result), document=tuple(blocks), verdict=Verdict(text + limits))


def _assignment(item: TrainerAssignment) -> AssignmentResult:
    return {
        "target": item.target,
        "field": item.field,
        "value": dict(item.value),
        "source": item.place,
        "default": item.default,
        "needs": dict(item.needs),
    }


def _value(item: TrainerAssignment) -> str:
    """Return what is assigned, as words."""
    kind, what = next(iter(item.value.items()))
    if kind == "constant":
        return shown(what)
    if kind == "argument":
        return f"{what} (default {shown(item.value.get('default'))})"
    words = {
        "tokenizer": "the tokenizer's",
        "union": "the model's and the tokenizer's",
        "model": "the model's",
        "align": "aligned with the tokenizer's",
    }
    return words.get(kind, f"{what}")


def _condition(item: TrainerAssignment) -> str:
    needs = ", ".join(name if wanted == "*" else f"{name}={shown(wanted)}" for name, wanted in item.needs.items())
    return needs or " and ".join(item.when) or "other arguments than the defaults"
