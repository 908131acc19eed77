"""Which tensors have the size that an out-of-memory message names: of a traced model and batch, or of usual vocabularies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmdoctor.mem.model_config import text_part
from llmdoctor.mem.types import Estimate

WIDTHS = {"bfloat16 or float16": 2, "float32": 4}
# Vocabularies of published models, padded ones included.
VOCABULARIES = (
    32000, 32001, 32064, 32768, 49152, 50257, 50280, 50304, 50432, 51200, 64000, 65024, 92416, 100352, 102400, 128000, 128256, 129280, 130048,
    131072, 151643, 151936, 152064, 151552, 201088, 202048, 248320, 250002, 250880, 255000, 256000, 256128, 257152, 262144, 262208,
)  # fmt: skip
STEP = 64  # tokens of a micro step are assumed to be a multiple of it
MOST = 6
TIMES = 8  # the chance of a guess
MOST_TOKENS = 2**18  # of a guessed micro step


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor of nearly the refused size: its name, shape, dtype, bytes, the setting that decides its size, the phase (None: unknown)."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    setting: str
    phase: str | None = None


def candidates_of(estimate: Estimate, config: dict[str, Any], smallest: int, largest: int, phase: str | None) -> tuple[Candidate, ...]:
    """Return the tensors of a model and batch that have `smallest` to `largest` bytes: those of `phase` first, then the largest.

    The allocator rounds a request up, so the tensor is at most as large as the message says. A tensor without a shape is an allocation of the
    trace that has no name here.
    """
    phases = _phases(estimate, smallest, largest)
    found = [
        Candidate(tensor=name, shape=shape, dtype=dtype, bytes=size, setting=setting, phase=phases.get(size, (None, ""))[0])
        for name, shape, setting in _shapes(estimate, config)
        for dtype, width in WIDTHS.items()
        if smallest <= (size := _product(shape) * width) <= largest
    ]
    known = {one.bytes for one in found}
    found += [
        Candidate(tensor=f"a tensor of {kind}", shape=(), dtype="?", bytes=size, setting="the trace", phase=at)
        for size, (at, kind) in phases.items()
        if size not in known
    ]
    return tuple(
        sorted(found, key=lambda one: (one.phase is None, phase is not None and one.phase != phase, not one.shape, -one.bytes))[:MOST]
    )


def _phases(estimate: Estimate, smallest: int, largest: int) -> dict[int, tuple[str, str]]:
    """Return (phase, component) of the first traced allocation of each size in the range."""
    phase = "forward"
    out: dict[int, tuple[str, str]] = {}
    for event in estimate.job.events:
        if event[0] == "p":
            phase = event[1]
        elif event[0] == "+" and smallest <= event[2] <= largest:
            out.setdefault(event[2], (phase, str(event[3])))
    return out


def _shapes(estimate: Estimate, config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield (name, shape, setting) of the large tensors of a micro step and of the step of the optimizer."""
    workload, text = estimate.workload, text_part(config)
    batch, length = workload.batch, workload.seq_len
    tokens = f"batch {batch} x {length} tokens"
    sizes = {key: value for key, value in text.items() if isinstance(value, int) and not isinstance(value, bool)}
    vocabulary = sizes.get("vocab_size", 0)
    yield "logits", (batch, length, vocabulary), f"{tokens} x vocab_size {vocabulary}"
    yield "logits of the shifted labels", (batch, max(1, length - 1), vocabulary), f"{tokens} x vocab_size {vocabulary}"
    heads = sizes.get("num_attention_heads") or sizes.get("n_head") or 0
    yield "attention scores", (batch, heads, length, length), f"{tokens} squared x {heads} heads (eager attention, or the math kernel)"
    yield "attention mask", (batch, 1, length, length), f"{tokens} squared"
    for key in ("intermediate_size", "n_inner", "hidden_size", "n_embd", "d_model", "d_ff"):
        if key in sizes:
            yield f"activation of {key}", (batch, length, sizes[key]), tokens
    trained = sum(weight.numel for weight in estimate.job.trained)
    world = estimate.strategy.world_size
    yield "all gradients, flat", (trained,), "the trained parameters"
    if world > 1:
        yield "one process's part of the gradients, flat", (-(-trained // world),), f"the trained parameters / {world} processes"
    for weight in sorted(estimate.job.weights, key=lambda one: -one.numel)[:50]:
        yield f"{weight.name}, its gradient or its state", weight.shape, "the model"


def guessed(smallest: int, largest: int) -> tuple[Candidate, ...]:
    """Return logits of usual vocabularies that have `smallest` to `largest` bytes; without a model they are guesses.

    A number of tokens counts only if it is so round (a multiple of a large power of two) that one of TIMES vocabularies at most would match by
    chance.
    """
    found = []
    for vocabulary in VOCABULARIES:
        for dtype, width in WIDTHS.items():
            one = vocabulary * width
            tokens = _roundest(-(-smallest // one), largest // one)
            if STEP <= tokens <= MOST_TOKENS and (tokens & -tokens) * one >= TIMES * (largest - smallest):
                found.append(Candidate("logits", (tokens, vocabulary), dtype, tokens * one, f"{tokens} tokens x vocab_size {vocabulary}"))
    return tuple(sorted(found, key=lambda one: (-(one.shape[0] & -one.shape[0]), -one.bytes))[:MOST])


def _roundest(least: int, most: int) -> int:
    """Return the number from `least` to `most` that is a multiple of the largest power of two; 0 if there is none above 0."""
    if not 0 < least <= most:
        return 0
    power = 1 << most.bit_length()
    while most // power * power < least:
        power >>= 1
    return most // power * power


def _product(shape: tuple[int, ...]) -> int:
    out = 1
    for extent in shape:
        out *= extent
    return out
