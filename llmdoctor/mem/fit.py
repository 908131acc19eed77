"""What fits into a device's memory: the largest batch, and the change that makes it fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import size_of
from llmdoctor.mem.components import context_of
from llmdoctor.mem.options import Case, Predictor
from llmdoctor.mem.settings import Strategy

MOST = 4096  # sequences


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a case fits, the largest batch that does (0: none), and the changes that make it fit, with the bytes they need."""

    needs: int
    fits: bool
    largest_batch: int
    changes: tuple[tuple[str, int], ...]


def read_size(text: str) -> int:
    """ "80GiB" in bytes; QuestionError for what is no size."""
    size = size_of(text)
    if size is None:
        raise QuestionError(f"--gpu-memory {text}: expected a size such as 80GiB or 24GB")
    return size


def needs(case: Case) -> int:
    """Bytes of the device that a case cannot do without: the peak and what lies outside the allocator (cached blocks are given back before
    the allocator reports that memory is out).
    """
    return case.prediction.peak.total + context_of(case.strategy)


def fit(case: Case, predictor: Predictor, memory: int) -> Fit:
    """Whether `case` fits into `memory` bytes, and what to do about it."""
    wanted = needs(case)
    fits = wanted <= memory
    largest = largest_batch(case, predictor, memory)
    return Fit(wanted, fits, largest, () if fits else _changes(case, predictor, memory))


def largest_batch(case: Case, predictor: Predictor, memory: int) -> int:
    """The most sequences that fit, at most MOST: memory is a line with a few bends over the batch, so each guess is drawn between the largest
    that is known to fit and the smallest that is known not to.
    """
    if case.traced is None:
        return 0

    def over(batch: int) -> int:
        return needs(predictor.case(case.strategy, batch)) - memory

    low, below = 1, over(1)
    if below > 0:
        return 0
    high, above = 2, over(2)
    while above <= 0 and high < MOST:
        slope = max(1, (above - below) // (high - low))
        low, below = high, above
        high = min(MOST, max(low * 2, low + 1 - below // slope + 1))
        above = over(high)
    if above <= 0:
        return high
    return _between(over, low, below, high, above)


def _between(over: Callable[[int], int], low: int, below: int, high: int, above: int) -> int:
    """The largest batch that fits, between `low`, which does, and `high`, which does not; every other guess halves."""
    halve = False
    while high - low > 1:
        guess = (low + high) // 2 if halve else low + (high - low) * -below // max(1, above - below)
        guess, halve = min(high - 1, max(low + 1, guess)), not halve
        size = over(guess)
        low, below, high, above = (guess, size, high, above) if size <= 0 else (low, below, guess, size)
        if size <= 0 and high - low > 1 and over(low + 1) > 0:
            return low
    return low


def _changes(case: Case, predictor: Predictor, memory: int) -> tuple[tuple[str, int], ...]:
    """Single changes that make it fit, the mildest first."""
    out = []
    for text, strategy in variants(case.strategy):
        size = needs(predictor.case(strategy, case.workload.batch))
        if size <= memory:
            out.append((text, size))
    return tuple(out)


def variants(strategy: Strategy) -> list[tuple[str, Strategy]]:
    """Changes that save memory without changing what is computed, or little of it."""
    out: list[tuple[str, Strategy]] = []
    optimizer, engine = strategy.optimizer, strategy.engine
    if optimizer.how == "foreach" and optimizer.kind == "adamw":
        out.append(("optim adamw_torch_fused", replace(strategy, optimizer=replace(optimizer, how="fused"))))
    if not strategy.checkpointing:
        out.append(("gradient_checkpointing true", replace(strategy, checkpointing=True)))
    if engine is None:
        if strategy.dtype == "float32":
            out.append(("bf16 weights (model_init dtype bfloat16)", replace(strategy, dtype="bfloat16", autocast=None)))
        if optimizer.kind == "adamw":
            out.append(
                (
                    "optim adamw_bnb_8bit",
                    replace(strategy, optimizer=replace(optimizer, kind="adamw8bit", how="loop", name="adamw_bnb_8bit")),
                )
            )
            out.append(("optim adafactor", replace(strategy, optimizer=replace(optimizer, kind="adafactor", how="loop", name="adafactor"))))
        return out
    zero = engine.zero
    if strategy.dtype == "bfloat16" and engine.master == "float32" and zero.stage in (1, 2, 3) and engine.grad_accum == "bfloat16":
        out.append(
            ("bf16_master_weights_and_grads and bf16_optimizer_states true", replace(strategy, engine=replace(engine, master="bfloat16")))
        )
    if zero.stage >= 1 and zero.offload_optimizer is None and optimizer.kind == "adamw":
        cpu = replace(optimizer, how="CPUAdam", name="DeepSpeedCPUAdam")
        out.append(
            (
                "offload_optimizer to cpu",
                replace(strategy, optimizer=cpu, engine=replace(engine, zero=replace(zero, offload_optimizer="cpu"))),
            )
        )
    for world in (2, 4, 8):
        if zero.stage >= 1 and strategy.world_size < world:
            out.append((f"{world} devices", replace(strategy, world_size=world)))
    return out
