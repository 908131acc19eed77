"""The screen of `mem compare`: a table of the peaks by component, bars, reasons, what fits, what helps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmdoctor.core.document import Block, Cell, Code, Note, Table
from llmdoctor.core.finding import Finding
from llmdoctor.mem.capacity import need_of
from llmdoctor.mem.components import COMPONENTS, LABELS, by_component, context_of, host_parts, unit_of
from llmdoctor.mem.explain import Reason, worth_showing
from llmdoctor.mem.pictures import LETTERS, pictures
from llmdoctor.mem.types import Change, Comparison, Estimate, MeasuredRow, MemoryFit

SHORT = 16  # characters of a column's name
FITS = {True: Cell("fits", "good"), False: Cell("too large", "bad"), None: Cell("tight", "warn")}
REASONS = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """What a screen shows: `fits` is empty and `memory` None if the question was not about a device's memory."""

    comparison: Comparison
    reasons: tuple[Reason, ...]
    fits: tuple[MemoryFit, ...]
    memory: int | None
    measured: tuple[MeasuredRow, ...]
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]


def document(shown: Shown) -> tuple[Block, ...]:
    """Return all blocks of `mem compare`; the verdict is not among them."""
    comparison = shown.comparison
    names = column_names(comparison.estimates)
    blocks: list[Block] = [*_legend(comparison, names), _table(comparison, names)]
    blocks += pictures(comparison, names, shown.memory)
    blocks += _reasons(shown, names)
    blocks += _fits(shown, names)
    if shown.measured:
        blocks.append(_measured(shown, names))
    return (*blocks, *shown.findings, *_inputs(comparison), *_advice(shown))


def column_names(estimates: Sequence[Estimate]) -> tuple[str, ...]:
    """Return short names of the strategies: their own, those of files without folder and ending, else letters."""
    own = [short_name(estimate.strategy.name) for estimate in estimates]
    if len(set(own)) == len(own) and all(len(name) <= (SHORT if len(own) < 4 else 10) for name in own):
        return tuple(own)
    return tuple(chr(ord("A") + number % 26) * (1 + number // 26) for number in range(len(estimates)))


def short_name(name: str) -> str:
    """Return a strategy's name without the folder and the ending of its file."""
    ending = os.path.splitext(name)[1]
    return os.path.basename(name).removesuffix(ending) if ending in (".json", ".yaml", ".yml", ".py", ".bin") else name


def _legend(comparison: Comparison, names: Sequence[str]) -> tuple[Block, ...]:
    first = comparison.estimates[0]
    workload, prediction = first.workload, first.prediction
    counts = f"{prediction.parameters / 1e6:,.0f} M parameters, {_millions(prediction.trainable)} M trained"
    if prediction.reached != prediction.trainable:
        counts += f", {_millions(prediction.reached)} M get a gradient"
    image = f", image {workload.image[0]}x{workload.image[1]}" if workload.image else ""
    batches = [str(estimate.workload.batch) for estimate in comparison.estimates]
    batch = batches[0] if len(set(batches)) == 1 else "each strategy's own batch: " + "/".join(batches)
    world = first.strategy.world_size
    devices = "one device" if world == 1 else f"one of {world} devices"
    legend = [Note("Model", f"{counts}; {batch} x {workload.seq_len} tokens{image}; {devices}", "dim")]
    full = [estimate.strategy.name for estimate in comparison.estimates]
    if any(name != whole for name, whole in zip(names, full, strict=True)):
        legend.append(Note("Columns", "\n".join(f"{name} = {whole}" for name, whole in zip(names, full, strict=True)), "dim"))
    return tuple(legend)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}" if count >= 10**7 or count == 0 else f"{count / 1e6:.3f}"


def _table(comparison: Comparison, names: Sequence[str]) -> Table:
    """Return the components at the peak; in a terminal with the letters with which the bars below are drawn."""
    lettered = {name: f"{letter} {LABELS[name]}" for name, letter in LETTERS.items()}
    return replace(_amounts(comparison, names, LABELS), instead=(_amounts(comparison, names, lettered),))


def _amounts(comparison: Comparison, names: Sequence[str], labels: Mapping[str, str]) -> Table:
    estimates, gb = comparison.estimates, unit_of(comparison.estimates)
    held = [by_component(estimate.prediction.peak) for estimate in estimates]
    rows: list[tuple[str | Cell, ...]] = []
    for component in COMPONENTS:
        if any(parts[component] for parts in held):
            rows.append((labels[component], *(gb(parts[component]) for parts in held)))
    rows.append(("PEAK", *(_peak_cell(comparison, estimate) for estimate in estimates)))
    rows.append(("  in the", *(estimate.prediction.peak.phase for estimate in estimates)))
    rows.append(("between steps", *(gb(estimate.prediction.steady.total) for estimate in estimates)))
    rows.append(("  bytes per parameter", *(_each(estimate) for estimate in estimates)))
    rows.append(("reserved, about", *(gb(need_of(estimate).reserved) for estimate in estimates)))
    rows.append(("context, outside it", *(gb(context_of(estimate.strategy)) for estimate in estimates)))
    if any(estimate.prediction.host for estimate in estimates):
        rows.append(("host memory", *(gb(sum(host_parts(estimate.prediction.host).values())) for estimate in estimates)))
    return Table((gb.title, *names), tuple(rows))


def _peak_cell(comparison: Comparison, estimate: Estimate) -> Cell:
    peaks = [other.prediction.peak.total for other in comparison.estimates]
    mine = estimate.prediction.peak.total
    text = unit_of(comparison.estimates)(mine)
    least = ">= " if estimate.traced is None else ""
    return Cell(least + text, "bad" if len(peaks) > 1 and mine == max(peaks) else "plain")


def _each(estimate: Estimate) -> str:
    peak, steady = estimate.prediction.peak.total, estimate.prediction.steady.total
    each = max(1, estimate.prediction.parameters)
    return f"{peak / each:.1f} / {steady / each:.1f}"


def _reasons(shown: Shown, names: Sequence[str]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    gb = unit_of(shown.comparison.estimates)
    for estimate, name in zip(shown.comparison.estimates, names, strict=True):
        mine = [reason for reason in worth_showing(shown.reasons, estimate) if reason.name == estimate.strategy.name]
        if not mine:
            continue
        than = f": {name} against {names[0]}" if mine[0].than is not None else ""
        rows = tuple(
            (f"{reason.size / gb.size:+.1f}", f"{LABELS[reason.component]}: {reason.because} [{reason.setting}]")
            for reason in mine[:REASONS]
        )
        blocks.append(Table((f"Why{than}", ""), rows))
    return tuple(blocks)


def _fits(shown: Shown, names: Sequence[str]) -> tuple[Block, ...]:
    """Return what each strategy needs of the device: peak, margin for the allocator's reserve and context, and the largest batch."""
    if not shown.fits or shown.memory is None:
        return ()
    gb = unit_of(shown.comparison.estimates, shown.memory)
    rows: list[tuple[str | Cell, ...]] = []
    for name, fit, estimate in zip(names, shown.fits, shown.comparison.estimates, strict=True):
        need, counted = need_of(estimate), estimate.traced is not None
        answer = FITS[fit.fits] if counted or fit.fits is False else Cell("not known", "warn")
        sizes = [gb(need.peak), gb(need.reserve), gb(need.context), gb(fit.needs)]
        rows.append((name, answer, *(sizes if counted else [f">= {sizes[0]}", *sizes[1:3], f">= {sizes[3]}"]), _largest(fit, counted)))
    columns = (f"Of {gb(shown.memory)} {gb.name}", "", "peak", "reserve", "context", "needed", "largest batch")
    return (Table(columns, tuple(rows)),)


def _largest(fit: MemoryFit, counted: bool) -> str:
    if not counted:
        return "not known"
    return str(fit.largest_batch) if fit.largest_batch else "none"


def _measured(shown: Shown, names: Sequence[str]) -> Table:
    gb = unit_of(shown.comparison.estimates)
    short = {estimate.strategy.name: name for name, estimate in zip(names, shown.comparison.estimates, strict=True)}
    rows = tuple(
        (
            short[row.strategy],
            row.what,
            gb(row.predicted),
            gb(row.measured),
            Cell(f"{100 * row.error:+.2f}%", "good" if abs(row.error) <= 0.02 else "warn"),
        )
        for row in shown.measured
    )
    return Table(("Measured", "", "predicted", "measured", "error"), rows)


def _inputs(comparison: Comparison) -> tuple[Note, ...]:
    """Return what was done with the settings: used, ignored with the reason, assumed."""
    inputs = comparison.inputs
    notes = []
    if inputs.used:
        notes.append(Note("Used", ", ".join(inputs.used), "dim"))
    by_reason: dict[str, list[str]] = {}
    for key, reason in inputs.ignored.items():
        by_reason.setdefault(reason, []).append(key)
    if by_reason:
        notes.append(Note("Ignored", "\n".join(f"{', '.join(keys)}: {reason}" for reason, keys in by_reason.items()), "dim"))
    if inputs.assumed:
        notes.append(Note("Assumed", ", ".join(f"{what} {value}" for what, value in inputs.assumed.items()), "dim"))
    releases = dict.fromkeys(f"{one.title} {one.version}, {one.how}" for one in comparison.releases)
    notes.append(Note("Library", "\n".join(releases), "dim"))
    return tuple(notes)


def _advice(shown: Shown) -> tuple[Block, ...]:
    """Return the changes that lower the largest peak; if the question was about a device's memory, the findings list what helps."""
    if shown.memory is not None or not shown.changes:
        return ()
    gb = unit_of(shown.comparison.estimates)
    return (Code("Fix", "\n".join(dict.fromkeys(f"{change.text}: peak {gb(change.needs)} {gb.name}" for change in shown.changes))),)
