"""Findings of the MEM rules about the estimates of one comparison."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from llmdoctor.core.finding import Finding, Location
from llmdoctor.mem.components import Unit, by_component
from llmdoctor.mem.rules import BUCKET, MISPREDICTED, NO_GRADIENT, TIGHT, TOO_LARGE, UNSHARDED
from llmdoctor.mem.types import Change, Comparison, Estimate, MeasuredRow, MemoryFit

FAR = 0.05  # share of the measured peak


def findings_of(
    comparison: Comparison, fits: Sequence[MemoryFit], memory: int | None, measured: Sequence[MeasuredRow]
) -> tuple[Finding, ...]:
    """Return all findings of a comparison in the order of its strategies. `fits` is empty without `memory`, the bytes of a device."""
    out: list[Finding] = []
    for number, estimate in enumerate(comparison.estimates):
        if fits and memory is not None:
            out += _of_memory(estimate, fits[number], memory, comparison.options.model)
        if estimate.strategy.engine is not None:
            out += [*_no_gradient(estimate), *_unsharded(estimate), *_bucket(estimate)]
    return (*out, *mispredicted(measured))


def _place(estimate: Estimate) -> Location | None:
    return Location(estimate.strategy.file) if estimate.strategy.file is not None else None


def _of_memory(estimate: Estimate, fit: MemoryFit, memory: int, model: str) -> Iterator[Finding]:
    """Yield that an estimate does not fit, or is tight. Without traced activations the rest alone can decide that it does not fit."""
    if fit.fits or (fit.fits is None and estimate.traced is None):
        return
    rule = TOO_LARGE if fit.fits is False else TIGHT
    least = "at least " if estimate.traced is None else ""
    unit = Unit(memory)
    yield rule.at(
        _place(estimate),
        f"{estimate.strategy.name} needs {least}{unit(fit.needs)} {unit.name} with a margin for the allocator's reserve, "
        f"the device has {unit(memory)} {unit.name}",
        cause=f"the peak is in the {estimate.prediction.peak.phase}",
        fix=changes_text(fit.changes, memory) or f"{_search(estimate, memory, model)}   searches for changes that make it fit",
        needs_bytes=fit.needs,
        memory_bytes=memory,
        largest_batch=fit.largest_batch,
    )


def _search(estimate: Estimate, memory: int, model: str) -> str:
    """Return the command that searches for a combination of changes, to paste."""
    name = estimate.strategy.file or estimate.strategy.name
    return f"llmdoctor mem fit {shlex.quote(model)} --strategy {shlex.quote(name)} --gpu-memory {memory / 2**30:g}GiB"


def changes_text(changes: Sequence[Change], memory: int) -> str:
    """Return the changes that help, one per line, with what the device needs then."""
    unit = Unit(memory)
    lines = [f"{change.text}: needs {unit(change.needs)} {unit.name}" for change in changes]
    if lines and not any(change.enough for change in changes):
        lines.append("None of them is enough by itself: llmdoctor mem fit combines them.")
    return "\n".join(lines)


def _no_gradient(estimate: Estimate) -> Iterator[Finding]:
    strategy, prediction = estimate.strategy, estimate.prediction
    unreached = prediction.trainable - prediction.reached
    if not unreached or estimate.traced is None or (strategy.stage <= 0 and strategy.dtype == "float32"):
        return
    parts = by_component(prediction.steady)
    held = int((parts["master_params"] + parts["optimizer_state"]) * unreached / max(1, prediction.trainable))
    yield NO_GRADIENT.at(
        _place(estimate),
        f"{strategy.name}: {unreached:,} trained parameters get no gradient and hold {held:,} bytes",
        cause="DeepSpeed updates flat tensors whole",
        parameters=unreached,
        bytes=held,
    )


def _unsharded(estimate: Estimate) -> Iterator[Finding]:
    strategy = estimate.strategy
    if strategy.stage >= 1 and strategy.world_size == 1 and strategy.deepspeed.zero.offload_optimizer is None:
        yield UNSHARDED.at(_place(estimate), f"{strategy.name}: ZeRO stage {strategy.stage} on one device shards nothing")


def _bucket(estimate: Estimate) -> Iterator[Finding]:
    zero, trainable = estimate.strategy.deepspeed.zero, estimate.prediction.trainable
    if zero.stage >= 2 and zero.contiguous_gradients and zero.reduce_bucket_size > 2 * trainable:
        yield BUCKET.at(
            _place(estimate), f"{estimate.strategy.name}: a bucket of {zero.reduce_bucket_size:,} elements for {trainable:,} gradients"
        )


def mispredicted(measured: Sequence[MeasuredRow]) -> Iterator[Finding]:
    """Yield the peaks and the memory between steps whose prediction is far off."""
    for row in measured:
        if (row.what.endswith("peak") or row.what == "steady") and abs(row.error) > FAR:
            message = f"{row.strategy}: {row.what} is {row.measured:,} bytes, {row.predicted:,} bytes were predicted"
            yield MISPREDICTED.at(None, message, strategy=row.strategy, error=row.error)
