"""The first line of `mem compare`: the peaks, or whether they fit, with every limit that could turn the answer."""

from __future__ import annotations

import os
from collections.abc import Sequence

from llmdoctor.core.report import Verdict
from llmdoctor.mem.components import Unit, unit_of
from llmdoctor.mem.types import Comparison, Estimate, MemoryFit

ALIKE = 0.001  # of the larger peak: a smaller difference counts as equal
WHERE = {"step": "in the optimizer's step, so a smaller batch does not lower it", "start": "before the first step"}


def verdict_of(comparison: Comparison, fits: Sequence[MemoryFit], memory: int | None) -> Verdict:
    """Return the verdict. `fits` is empty without `memory`, the bytes of a device."""
    if memory is not None and fits:
        return _of_fits(comparison, fits, memory)
    if any(estimate.traced is None for estimate in comparison.estimates):
        return Verdict(_bound(comparison), "bound")
    return Verdict(f"{_peaks(comparison)}{limits_of(comparison)}.", "ok")


def label_of(estimate: Estimate) -> str:
    """Return the name of a strategy for a sentence: a file without its folder."""
    name = estimate.strategy.name
    return os.path.basename(name) if estimate.strategy.file is not None else name


def _peaks(comparison: Comparison) -> str:
    estimates, unit = comparison.estimates, unit_of(comparison.estimates)
    ordered = sorted(estimates, key=lambda estimate: -estimate.prediction.peak.total)
    most, least = ordered[0].prediction.peak, ordered[-1].prediction.peak
    if len(ordered) == 1:
        return f"{label_of(ordered[0])} peaks at {unit(most.total)} {unit.name}{at_of(comparison)}, {_where(ordered[0])}"
    if most.total - least.total < ALIKE * most.total:
        names = " and ".join(label_of(estimate) for estimate in estimates) if len(estimates) < 4 else "all strategies"
        return f"No difference: {names} peak at {unit(most.total)} {unit.name}{at_of(comparison)}"
    listed = ", ".join(f"{label_of(estimate)} {unit(estimate.prediction.peak.total)} {unit.name}" for estimate in ordered)
    more = f" (+{unit(most.total - least.total)} {unit.name})"
    return f"Peaks: {listed}{more}{at_of(comparison)}; the largest is {_where(ordered[0])}"


def _where(estimate: Estimate) -> str:
    phase = estimate.prediction.peak.phase
    evaluation = estimate.strategy.evaluation
    if phase == "evaluation" and evaluation is not None:
        return f"in the evaluation, {evaluation.batch} sequences at once, so a smaller batch of the training does not lower it"
    return WHERE.get(phase, f"in the {phase}")


def at_of(comparison: Comparison) -> str:
    """Return the micro step of an answer, with what was assumed of it."""
    batches = {estimate.workload.batch for estimate in comparison.estimates}
    lengths = {estimate.workload.seq_len for estimate in comparison.estimates}
    batch = str(batches.pop()) if len(batches) == 1 else "each file's own batch"
    length = str(lengths.pop()) if len(lengths) == 1 else "each file's own number of"
    assumed = [f"{value} assumed: {option}" for option, value in _assumed(comparison)]
    return f" at batch {batch} x {length} tokens" + (f" ({', '.join(assumed)})" if assumed else "")


def _assumed(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (option, value) of each assumption about the micro step."""
    known = comparison.inputs.assumed
    found = [(option, str(known[option])) for option in ("--batch", "--seq-len") if option in known]
    return [*found, ("--image", "no image")] if "--image" in known else found


def limits_of(comparison: Comparison) -> str:
    """Return what else could turn the answer, as clauses after semicolons: parts that are missing, keys that were left out."""
    parts = [f"{skipped.what}: not counted" for skipped in comparison.skipped]
    without = [f"without {', '.join(comparison.options.without)}"] if comparison.options.without else []
    return "".join(f"; {part}" for part in parts) + _clauses(comparison) + "".join(f"; {part}" for part in without)


def _clauses(comparison: Comparison) -> str:
    """Return what the files themselves say about the limits of the answer."""
    return "".join(
        f"; {limit}" for limit in dict.fromkeys(limit for estimate in comparison.estimates for limit in estimate.strategy.limits)
    )


def _bound(comparison: Comparison) -> str:
    estimates, unit = comparison.estimates, unit_of(comparison.estimates)
    amounts = ", ".join(
        f"{unit(estimate.prediction.peak.total)} {unit.name}" + (f" for {label_of(estimate)}" if len(estimates) > 1 else "")
        for estimate in estimates
    )
    clauses = _clauses(comparison)
    of_what = " of what was read" if "not read" in clauses else ""
    reason = f"because {_reason(comparison)}{_without(comparison)}{clauses}"
    return f"At least {amounts}: activations are not counted, {reason}. This is a lower bound{of_what}."


def _reason(comparison: Comparison) -> str:
    return "--static was given" if comparison.options.static else "torch and transformers are not installed"


def _without(comparison: Comparison) -> str:
    return f" (read without {', '.join(comparison.options.without)})" if comparison.options.without else ""


def _of_fits(comparison: Comparison, fits: Sequence[MemoryFit], memory: int) -> Verdict:
    unit = unit_of(comparison.estimates, memory)
    size, stated = f"{unit(memory)} {unit.name}", getattr(comparison.options, "gpu_memory", None)
    device = f"{stated} ({size})" if stated else size
    pairs = list(zip(comparison.estimates, fits, strict=True))
    over = [pair for pair in pairs if pair[1].fits is False]
    where = f"{at_of(comparison)}{limits_of(comparison)}"
    if over:
        least = "at least " if any(estimate.traced is None for estimate, _ in over) else ""
        return Verdict(f"Does not fit into {device}: {least}{_needs(over, unit)} needed{where}.", "problem")
    if any(estimate.traced is None for estimate, _ in pairs):
        return Verdict(f"{_bound(comparison)} It does not decide whether the run fits into {device}.", "bound")
    tight = [pair for pair in pairs if pair[1].fits is None]
    if tight:
        return Verdict(
            f"Too tight for {device}: the peak and the context alone fit, but {_needs(tight, unit)} needed with a margin for the "
            f"allocator's reserve{where}; the run may end out of memory.",
            "problem",
        )
    return Verdict(f"Fits into {device}: {_needs(pairs, unit)} needed{where}.", "ok")


def _needs(pairs: Sequence[tuple[Estimate, MemoryFit]], unit: Unit) -> str:
    several = len(pairs) > 1
    amounts = [f"{unit(fit.needs)} {unit.name}" + (f" for {label_of(estimate)}" if several else "") for estimate, fit in pairs]
    return f"{', '.join(amounts)} {'are' if several else 'is'}"
