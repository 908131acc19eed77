"""Tables of origins: every field of one or two calls. A page shows more columns than a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llmdoctor.core.document import Block, Cell, Fold, Note, Table, Tone
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.consequences import consequence
from llmdoctor.gencfg.types import ConfigLayer, Effective, Resolved, SourcedValue

VALUE = 4000  # characters of a value: lists of tokens are whole, a file of numbers is not
_FIRST = ("eos_token_id", "pad_token_id")
_SET_BY: dict[ConfigLayer, str] = {
    "library-default": "the library",
    "class-default": "the model's class",
    "config.json": "the model",
    "generation_config.json": "the model",
    "model-file": "the model's file",
    "server": "the server's command line",
    "mutation": "an assignment",
    "user-config": "your GenerationConfig",
    "trainer": "the trainer's GenerationConfig",
    "kwargs": "an argument of generate()",
    "derived": "generate() itself",
}


def worth_showing(field: Resolved) -> bool:
    """Whether a field is more than the library's default."""
    if field.value is None:
        return any(setting.value is not None for setting in field.overrides)
    return field.origin.layer != "library-default" or bool(field.overrides)


def origins(fields: Mapping[str, Resolved], never_stops: bool, instead: Table, also: Note | None) -> tuple[Block, ...]:
    """Return the fields of one call: those worth showing with the layer that set each and what it replaced, the others folded away.

    `instead` and `also` are what a terminal shows of the two.
    """
    table = origin_table(fields, never_stops, instead)
    quiet = [(name, field) for name, field in fields.items() if field.value is not None and not worth_showing(field)]
    if not quiet:
        return (table,)
    defaults = Table(("Field", "Value", "From"), tuple((name, shown(field.value, VALUE), field.origin.source) for name, field in quiet))
    return (table, Fold(f"{plural(len(quiet), 'field')} at the library's defaults", (defaults,), () if also is None else (also,)))


def origin_table(fields: Mapping[str, Resolved], never_stops: bool, *instead: Table) -> Table:
    """Return the fields worth showing: first what decides whether decoding stops, then what replaced something."""
    kept = [(name, field) for name, field in fields.items() if worth_showing(field)]
    kept.sort(key=lambda item: (item[0] not in _FIRST, not item[1].overrides))
    rows = tuple(_row(name, field, _tone(name, field, never_stops)) for name, field in kept)
    return Table(("Field", "Value", "Set by", "At", "Instead of"), rows, instead=instead)


def _tone(name: str, field: Resolved, never_stops: bool) -> Tone:
    """Return the tone of a row: an eos id that is missing while nothing else ends decoding, and a value that another one replaced."""
    if name == "eos_token_id" and never_stops:
        return "bad"
    return "warn" if any(setting.value != field.value for setting in field.overrides) else "plain"


def _row(name: str, field: Resolved, tone: Tone) -> tuple[str | Cell, ...]:
    origin = field.origin
    replaced = "\n".join(f"{shown(setting.value, VALUE)}  {setting.origin.source}" for setting in field.overrides)
    return (Cell(name, tone), Cell(shown(field.value, VALUE), tone), _SET_BY[origin.layer], origin.source, Cell(replaced, "dim"))


def side_by_side(left: Effective, right: Effective, names: Sequence[str], changed: Sequence[str], instead: Table) -> tuple[Block, ...]:
    """Two calls: the `changed` fields with both origins and what follows, and folded away those on which they agree.

    `names` are the two sides as a column's head.
    """
    rows = tuple(_pair(name, left, right) for name in changed)
    table = Table(("field", names[0], "from", names[1], "from", "so"), rows, instead=(instead,))
    same = [name for name in _named(left, right) if name not in changed]
    if not same:
        return (table,)
    alike = tuple((name, shown(right.fields[name].value, VALUE), _both(left, right, name)) for name in same)
    agreeing = Table(("field", "value", "from"), alike)
    return (table, Fold(f"{plural(len(same), 'field')} on which both agree", (agreeing,)))


def _named(left: Effective, right: Effective) -> Iterable[str]:
    return [name for name, field in right.fields.items() if name in left.fields and field.value is not None]


def _pair(name: str, left: Effective, right: Effective) -> tuple[str | Cell, ...]:
    def value(side: Effective) -> Cell:
        field = side.fields.get(name)
        runs_on = name == "eos_token_id" and side.stop.never_stops
        return Cell(shown(None if field is None else field.value, VALUE), "bad" if runs_on else "plain")

    mark: Tone = "bad" if name == "eos_token_id" and (left.stop.never_stops or right.stop.never_stops) else "plain"
    return (Cell(name, mark), value(left), _from(left, name), value(right), _from(right, name), Cell(consequence(name, left, right)))


def _both(left: Effective, right: Effective, name: str) -> str:
    one, other = _from(left, name), _from(right, name)
    return one if one == other else f"left: {one}\nright: {other}"


def _from(side: Effective, name: str) -> str:
    """Return the origin of a field on one side, with the values that it replaced."""
    field = side.fields.get(name)
    if field is None:
        return "not a field here"
    return field.origin.source + "".join(_instead(setting) for setting in field.overrides)


def _instead(setting: SourcedValue) -> str:
    return f"\ninstead of {shown(setting.value, VALUE)}  {setting.origin.source}"
