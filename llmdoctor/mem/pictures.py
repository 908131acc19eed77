"""The bars of `mem compare`: the peaks by component, and the phases of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmdoctor.core.document import Bar, Bars, Block, Fold, Note, Table
from llmdoctor.mem.components import COMPONENTS, LABELS, Unit, by_component, unit_of
from llmdoctor.mem.ledger import Moment
from llmdoctor.mem.predict import PHASES
from llmdoctor.mem.types import Comparison, Estimate

LETTERS = dict(zip(COMPONENTS, "wmocgbaltx", strict=True))
BAR, STEP, LINE = 56, 40, 58  # characters of a bar, and of a bar with its name: they fit 60 columns


def pictures(comparison: Comparison, names: Sequence[str], memory: int | None) -> tuple[Block, ...]:
    """Return the peaks by component, and every phase of each strategy's step; a terminal shows the phases of the largest one alone."""
    estimates = comparison.estimates
    unit = unit_of(estimates)
    peaks = tuple(
        Bar(name, _scaled(estimate.prediction.peak, unit), f"in the {estimate.prediction.peak.phase}")
        for name, estimate in zip(names, estimates, strict=True)
    )
    held = [_moments(estimate) for estimate in estimates]
    used = [at for at, name in enumerate(COMPONENTS) if any(by_component(moment)[name] for moments in held for _, moment in moments)]
    limit = None if memory is None else memory / unit.size
    most = max(estimate.prediction.peak.total for estimate in estimates) / unit.size
    largest = max(range(len(held)), key=lambda at: estimates[at].prediction.peak.total)

    def bars(label: str, rows: tuple[Bar, ...], *instead: Note | Table) -> Bars:
        parts = tuple(LABELS[COMPONENTS[at]] for at in used)
        kept = tuple(replace(row, values=tuple(row.values[at] for at in used)) for row in rows)
        return Bars(label, unit.name, parts, kept, limit=limit, limit_name="a device's memory", most=most, instead=instead)

    blocks: list[Block] = [bars("The peak of each strategy", peaks, _letters(comparison, names))]
    for at, (name, moments) in enumerate(zip(names, held, strict=True)):
        peak = max(moments, key=lambda item: item[1].total)[0]
        rows = tuple(Bar(phase, _scaled(moment, unit), chosen=phase == peak) for phase, moment in moments)
        picture = bars(f"A step of {name}, the most held in each phase", rows, *_timeline(name, moments, unit))
        blocks.append(picture if at == largest else Fold(picture.label, (picture,)))
    return tuple(blocks)


def _scaled(moment: Moment, unit: Unit) -> tuple[float, ...]:
    return tuple(size / unit.size for size in by_component(moment).values())


def _moments(estimate: Estimate) -> list[tuple[str, Moment]]:
    """Return the largest moment of each phase, in the order of a step."""
    prediction = estimate.prediction
    phases = [(name, prediction.phases[name]) for name in PHASES if name in prediction.phases]
    return [("start", prediction.start), *phases, ("between", prediction.steady)]


def _letters(comparison: Comparison, names: Sequence[str]) -> Table:
    """Return one bar per strategy, in which each component is its letter, as long as its share of the largest peak."""
    most = max(estimate.prediction.peak.total for estimate in comparison.estimates)
    wide = min(BAR, LINE - max(map(len, names)))
    rows = tuple(
        (name, _bar(by_component(estimate.prediction.peak), most, wide)) for name, estimate in zip(names, comparison.estimates, strict=True)
    )
    return Table(("", ""), rows)


def _bar(parts: dict[str, int], most: int, wide: int) -> str:
    out, done = "", 0
    for component in COMPONENTS:
        done += parts[component]
        out += LETTERS[component] * (round(wide * done / most) - len(out))
    return out


def _timeline(name: str, moments: Sequence[tuple[str, Moment]], unit: Unit) -> tuple[Note, Table]:
    """Return the phases of a step as bars of one character."""
    most = max(moment.total for _, moment in moments)
    rows = tuple((phase, unit(moment.total), "#" * max(1, round(STEP * moment.total / most))) for phase, moment in moments)
    return Note(f"Step of {name}, {unit.name}", ""), Table(("", "", ""), rows)
