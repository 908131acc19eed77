"""What a person reads of a comparison: the verdict, a table, bars, the reasons, the fix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmdoctor.core.document import Bar, Bars, Block, Cell, Code, Fold, Headline, Note, Table
from llmdoctor.mem.components import COMPONENTS, LABELS, Unit, by_component, context_of, host_parts
from llmdoctor.mem.explain import Reason, worth
from llmdoctor.mem.fit import Fit
from llmdoctor.mem.ledger import Moment
from llmdoctor.mem.measured import Beside
from llmdoctor.mem.options import Answer, Case
from llmdoctor.mem.predict import PHASES

LETTERS = dict(zip(COMPONENTS, "wmocgbaltx", strict=True))
BAR, STEP, LINE = 56, 40, 58  # characters of a bar, and of a bar with its name: they fit 60 columns
SHORT = 16


def document(
    answer: Answer, reasons: tuple[Reason, ...], fits: Sequence[Fit], memory: int | None, beside: Sequence[Beside]
) -> tuple[Block, ...]:
    """All blocks of `mem compare`."""
    names = column_names(answer.cases)
    blocks: list[Block] = [_verdict(answer, names, fits, memory), *_legend(answer, names), _table(answer, names)]
    blocks += pictures(answer, names, memory)
    blocks += _reasons(answer, reasons, names)
    blocks += _fits(answer, fits, memory, names)
    if beside:
        blocks.append(_beside(beside, answer, names))
    return (*blocks, *_advice(answer, fits))


def column_names(cases: Sequence[Case]) -> tuple[str, ...]:
    """Short names of the strategies: their own, a file's without folder and ending, else letters."""
    own = [short_name(case.strategy.name) for case in cases]
    if len(set(own)) == len(own) and all(len(name) <= (SHORT if len(own) < 4 else 10) for name in own):
        return tuple(own)
    return tuple(chr(ord("A") + number % 26) * (1 + number // 26) for number in range(len(cases)))


def short_name(name: str) -> str:
    """A strategy's name without what its file's folder and ending add."""
    base = os.path.basename(name) if name.endswith((".json", ".yaml", ".yml")) else name
    return base.rsplit(".", 1)[0] if base != name or name.endswith((".json", ".yaml", ".yml")) else base


def unit_of(answer: Answer) -> Unit:
    """The unit in which all of an answer's numbers are given."""
    return Unit(max(case.prediction.peak.total for case in answer.cases))


def _verdict(answer: Answer, names: Sequence[str], fits: Sequence[Fit], memory: int | None) -> Headline:
    cases, gb = answer.cases, unit_of(answer)
    peaks = [case.prediction.peak.total for case in cases]
    least, most = min(range(len(cases)), key=peaks.__getitem__), max(range(len(cases)), key=peaks.__getitem__)
    if fits and memory is not None and not all(fit.fits for fit in fits):
        over = ", ".join(f"{name} {gb(fit.needs)} {gb.name}" for name, fit in zip(names, fits, strict=True) if not fit.fits)
        return Headline(f"DOES NOT FIT INTO {gb(memory)} {gb.name}: {over} needed", "bad")
    peak = cases[most].prediction.peak
    where = {"step": "the optimizer step, not your batch", "start": "the start"}.get(peak.phase, f"the {peak.phase}")
    if len(cases) == 1 or peaks[most] - peaks[least] < 0.001 * peaks[most]:
        same = "" if len(cases) == 1 else "NO DIFFERENCE: "
        return Headline(f"{same}{names[most].upper()} PEAKS AT {gb(peaks[most])} {gb.name}, in {where}", "good" if fits else "plain")
    return Headline(
        f"{names[most].upper()} TAKES {gb(peaks[most] - peaks[least])} {gb.name} MORE than {names[least]}: its peak is {where}", "plain"
    )


def _legend(answer: Answer, names: Sequence[str]) -> tuple[Block, ...]:
    first = answer.cases[0]
    workload, prediction = first.workload, first.prediction
    said = f"{prediction.parameters / 1e6:,.0f} M parameters, {prediction.trainable / 1e6:,.0f} M trained"
    if prediction.reached != prediction.trainable:
        said += f", {prediction.reached / 1e6:,.0f} M get a gradient"
    image = f", image {workload.image[0]}x{workload.image[1]}" if workload.image else ""
    batches = {case.workload.batch for case in answer.cases}
    batch = (
        f"{workload.batch}"
        if len(batches) == 1
        else "each strategy's own batch:" + "/".join(str(case.workload.batch) for case in answer.cases)
    )
    world = first.strategy.world_size
    devices = "one device" if world == 1 else f"one of {world} devices"
    legend = [Note("OF", f"{said}; {batch} x {workload.seq_len} tokens{image}; {devices}", "dim")]
    if any(name != case.strategy.name for name, case in zip(names, answer.cases, strict=True)):
        legend.append(
            Note("WHERE", "\n".join(f"{name} = {case.strategy.name}" for name, case in zip(names, answer.cases, strict=True)), "dim")
        )
    return tuple(legend)


def _table(answer: Answer, names: Sequence[str]) -> Table:
    """The components at the peak; in a terminal with the letters that the bars below are drawn with."""
    lettered = {name: f"{letter} {LABELS[name]}" for name, letter in LETTERS.items()}
    return replace(_amounts(answer, names, LABELS), instead=(_amounts(answer, names, lettered),))


def _amounts(answer: Answer, names: Sequence[str], labels: Mapping[str, str]) -> Table:
    gb = unit_of(answer)
    held = [by_component(case.prediction.peak) for case in answer.cases]
    rows: list[tuple[str | Cell, ...]] = []
    for component in COMPONENTS:
        if any(parts[component] for parts in held):
            rows.append((labels[component], *(gb(parts[component]) for parts in held)))
    rows.append(("PEAK", *(Cell(gb(case.prediction.peak.total), "bad" if _largest(answer, case) else "plain") for case in answer.cases)))
    rows.append(("  in the", *(case.prediction.peak.phase for case in answer.cases)))
    rows.append(("between steps", *(gb(case.prediction.steady.total) for case in answer.cases)))
    rows.append(("  bytes a parameter", *(_each(case) for case in answer.cases)))
    rows.append(("reserved, about", *(gb(max(case.prediction.reserved, case.prediction.peak.total)) for case in answer.cases)))
    rows.append(("context, beside it", *(gb(context_of(case.strategy)) for case in answer.cases)))
    if any(case.prediction.host for case in answer.cases):
        rows.append(("host memory", *(gb(sum(host_parts(case.prediction.host).values())) for case in answer.cases)))
    return Table((gb.title, *names), tuple(rows))


def _each(case: Case) -> str:
    peak, steady = case.prediction.peak.total, case.prediction.steady.total
    each = max(1, case.prediction.parameters)
    return f"{peak / each:.1f} / {steady / each:.1f}"


def _largest(answer: Answer, case: Case) -> bool:
    return len(answer.cases) > 1 and case.prediction.peak.total == max(other.prediction.peak.total for other in answer.cases)


def pictures(answer: Answer, names: Sequence[str], memory: int | None) -> tuple[Block, ...]:
    """The peaks by component, and every phase of each strategy's step; in a terminal the phases of the largest one alone."""
    unit = unit_of(answer)
    peaks = tuple(Bar(name, _scaled(case.prediction.peak, unit), _where(case)) for name, case in zip(names, answer.cases, strict=True))
    held = [_moments(case) for case in answer.cases]
    used = [at for at, name in enumerate(COMPONENTS) if any(by_component(moment)[name] for case in held for _, moment in case)]
    limit = None if memory is None else memory / unit.size
    most = max(case.prediction.peak.total for case in answer.cases) / unit.size
    largest = max(range(len(held)), key=lambda at: answer.cases[at].prediction.peak.total)

    def bars(label: str, rows: tuple[Bar, ...], *instead: Note | Table) -> Bars:
        parts = tuple(LABELS[COMPONENTS[at]] for at in used)
        kept = tuple(replace(row, values=tuple(row.values[at] for at in used)) for row in rows)
        return Bars(label, unit.name, parts, kept, limit=limit, limit_name="a device's memory", most=most, instead=instead)

    blocks: list[Block] = [bars("Where each one is largest", peaks, _letters(answer, names))]
    for at, (name, moments) in enumerate(zip(names, held, strict=True)):
        peak = max(moments, key=lambda item: item[1].total)[0]
        rows = tuple(Bar(phase, _scaled(moment, unit), chosen=phase == peak) for phase, moment in moments)
        picture = bars(f"A step of {name}, the most held in each phase", rows, *_timeline(name, moments, unit))
        blocks.append(picture if at == largest else Fold(picture.label, (picture,)))
    return tuple(blocks)


def _where(case: Case) -> str:
    return f"in the {case.prediction.peak.phase}"


def _scaled(moment: Moment, unit: Unit) -> tuple[float, ...]:
    return tuple(size / unit.size for size in by_component(moment).values())


def _moments(case: Case) -> list[tuple[str, Moment]]:
    """The largest moment of each phase, in the order of a step."""
    prediction = case.prediction
    phases = [(name, prediction.phases[name]) for name in PHASES if name in prediction.phases]
    return [("start", prediction.start), *phases, ("between", prediction.steady)]


def _letters(answer: Answer, names: Sequence[str]) -> Table:
    """A bar a strategy: each component its letter, as long as its share of the largest peak."""
    most = max(case.prediction.peak.total for case in answer.cases)
    wide = min(BAR, LINE - max(map(len, names)))
    rows = tuple((name, _bar(by_component(case.prediction.peak), most, wide)) for name, case in zip(names, answer.cases, strict=True))
    return Table(("", ""), rows)


def _bar(parts: dict[str, int], most: int, wide: int) -> str:
    out, done = "", 0
    for component in COMPONENTS:
        done += parts[component]
        out += LETTERS[component] * (round(wide * done / most) - len(out))
    return out


def _timeline(name: str, moments: Sequence[tuple[str, Moment]], unit: Unit) -> tuple[Note, Table]:
    """The step's phases as bars of one kind."""
    most = max(moment.total for _, moment in moments)
    rows = tuple((phase, unit(moment.total), "#" * max(1, round(STEP * moment.total / most))) for phase, moment in moments)
    return Note(f"STEP of {name}, {unit.name}", ""), Table(("", "", ""), rows)


def _reasons(answer: Answer, reasons: tuple[Reason, ...], names: Sequence[str]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    gb = unit_of(answer)
    for case, name in zip(answer.cases, names, strict=True):
        told = [reason for reason in worth(reasons, case) if reason.case == case.strategy.name]
        if not told:
            continue
        than = f" {name} against {names[0]}" if told[0].than is not None else ""
        rows = tuple(
            (f"{reason.size / gb.size:+.1f}", f"{LABELS[reason.component]}: {reason.because} [{reason.setting}]") for reason in told[:6]
        )
        blocks.append(Table((f"WHY{than}", ""), rows))
    return tuple(blocks)


def _fits(answer: Answer, fits: Sequence[Fit], memory: int | None, names: Sequence[str]) -> tuple[Block, ...]:
    if not fits or memory is None:
        return ()
    gb = unit_of(answer)
    rows = tuple(
        (
            name,
            Cell("fits", "good") if fit.fits else Cell("too large", "bad"),
            gb(fit.needs),
            str(fit.largest_batch) if case.traced else "?",
        )
        for name, fit, case in zip(names, fits, answer.cases, strict=True)
    )
    return (Table((f"OF {gb(memory)} {gb.name}", "", "needs", "largest batch"), rows),)


def _beside(beside: Sequence[Beside], answer: Answer, names: Sequence[str]) -> Table:
    gb = unit_of(answer)
    short = {case.strategy.name: name for name, case in zip(names, answer.cases, strict=True)}
    rows = tuple(
        (
            short[row.strategy],
            row.what,
            gb(row.predicted),
            gb(row.measured),
            Cell(f"{100 * row.error:+.2f}%", "good" if abs(row.error) <= 0.02 else "warn"),
        )
        for row in beside
    )
    return Table(("MEASURED", "", "predicted", "measured", "error"), rows)


def _advice(answer: Answer, fits: Sequence[Fit]) -> tuple[Block, ...]:
    """The changes that make it fit; without a limit those that need no other trace."""
    gb = unit_of(answer)
    changes = [f"{text}: {gb(size)} {gb.name}" for fit in fits if not fit.fits for text, size in fit.changes]
    if fits and not changes and not all(fit.fits for fit in fits):
        return (Note("FIX", "no single change known here makes it fit: more devices, a smaller batch, LoRA", "warn"),)
    if not changes and not fits:
        changes = _cheap(max(answer.cases, key=lambda case: case.prediction.peak.total), gb)
    return (Code("FIX", "\n".join(dict.fromkeys(changes))),) if changes else ()


def _cheap(case: Case, gb: Unit) -> list[str]:
    from llmdoctor.mem.fit import variants
    from llmdoctor.mem.predict import predict
    from llmdoctor.mem.runners.base import Job

    out = []
    for text, strategy in variants(case.strategy):
        if strategy.checkpointing != case.strategy.checkpointing or strategy.dtype != case.strategy.dtype:
            continue
        peak = predict(Job(strategy, case.job.weights, case.job.buffers, case.job.events, case.job.rank)).peak.total
        if peak < 0.98 * case.prediction.peak.total:
            out.append(f"{text}: peak {gb(peak)} {gb.name}")
    return out
