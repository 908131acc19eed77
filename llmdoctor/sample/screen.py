"""The screen of `sample replay` from logits: evidence, estimates, what it means in training, the tests, the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llmdoctor.core.document import Bar, Bars, Block, Cell, Fold, Note, Table
from llmdoctor.core.finding import Finding
from llmdoctor.core.text import plural
from llmdoctor.sample.compare import evidence_of, training_of
from llmdoctor.sample.findings import cause_of
from llmdoctor.sample.fits import Estimates
from llmdoctor.sample.intervals import Interval
from llmdoctor.sample.precision import precision_note
from llmdoctor.sample.replayed import Replay

_WIDTH, _BINS, _TOP = 40, 10, 8


def document(done: Replay, findings: Sequence[Finding]) -> tuple[Block, ...]:
    """Return the whole screen below the verdict."""
    blocks: list[Block] = [*findings, *_evidence(done), *(Note("Assumed", note, "warn") for note in done.generation.notes)]
    blocks += _inputs(done)
    if done.estimates is not None:
        blocks += _estimates(done, done.estimates)
    blocks += _sequences(done)
    blocks += _training(done)
    blocks.append(_tests(done))
    if done.options.step is not None:
        blocks += _step(done, done.options.step)
    elif done.options.rows:
        blocks += [_table(done), picture(done)]
    if done.options.dtype is not None and done.options.logits is not None:
        blocks.append(precision_note(done))
    if done.options.step is None and len(done.scores) == 1:
        blocks.append(Note("Next", f"the same command with --step {_worst(done)[0]}"))
    return tuple(blocks)


def _inputs(done: Replay) -> list[Block]:
    """Keys of the claim that change nothing, and what was assumed."""
    blocks: list[Block] = []
    ignored = [key for key, reason in done.claim.inputs.ignored.items() if not reason.startswith(("null", "off"))]
    if ignored:
        blocks.append(
            Note("Ignored", ", ".join(ignored[:12]) + (" ..." if len(ignored) > 12 else "") + " (no influence on the draws)", "dim")
        )
    return blocks


def _evidence(done: Replay) -> list[Block]:
    """The impossible tokens."""
    steps = done.steps
    bad = [at for at, name in enumerate(steps.outside) if name]
    if not bad or done.verdict.outcome != "inconsistent":
        return []
    lines = [
        f"{len(bad)} of {plural(steps.count, 'token')} impossible (tolerance {done.tolerance.mass:g} of mass, {done.tolerance.because})"
    ]
    lines += [
        f"{done.place(at)}  token {done.name(int(steps.tokens[at]))}  rank {steps.rank[at]:,}, mass before it {steps.mass_before[at]:.3f}, "
        f"removed by {steps.outside[at]}"
        for at in bad[:3]
    ]
    return [Note("Evidence", "\n".join(lines), "bad")]


def _estimates(done: Replay, estimates: Estimates) -> list[Block]:
    blocks: list[Block] = []
    found = estimates.intervals
    if found:
        parts = [f"temperature {_range(found['temperature'], 2)}"]
        parts.append(f"top_p {_from(found['top_p'], 3, 1.0)}")
        parts.append(f"top_k {_from(found['top_k'], 0, math.inf)}")
        blocks.append(Note("Estimate", ", ".join(parts) + " (95% intervals of the best fit)"))
    cause = cause_of(done)
    if done.verdict.outcome == "inconsistent" and cause is None:
        blocks.append(Note("Limits", "no other setting, engine order or known broken sampler fits better than the claim", "warn"))
    return blocks


def _range(found: Interval, digits: int) -> str:
    if not math.isfinite(found.value):
        return "not determined"
    high = "..." if math.isinf(found.high) else f"{found.high:.{digits}f}"
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {high}]"


def _from(found: Interval, digits: int, off: float) -> str:
    if found.high >= off:
        return f"at least {found.low:,.{digits}f}, or off"
    return f"{found.low:,.{digits}f} to {found.high:,.{digits}f}"


def _sequences(done: Replay) -> list[Block]:
    """The worst sequences, and equal ones."""
    blocks: list[Block] = []
    repeats = done.generation.repeats
    if repeats:
        pairs = ", ".join(f"{first} and {second}" for first, second in repeats[:4])
        text = f"{plural(len(repeats), 'sequence')} equal to another one ({pairs}) judged once: a shared seed, or greedy decoding"
        blocks.append(Note("Warning", text, "warn"))
    if len(done.scores) > 1:
        order = sorted(range(len(done.scores)), key=lambda at: (-done.scores[at].impossible, done.scores[at].p_value))[:5]
        rows = tuple(
            (str(at), f"{len(done.scores[at].steps):,}", f"{done.scores[at].impossible}", f"{done.scores[at].p_value:.2g}") for at in order
        )
        blocks.append(Table(("sequence (worst first)", "tokens", "impossible", "p alone"), rows))
    return blocks


def _training(done: Replay) -> list[Block]:
    blocks: list[Block] = []
    made = done.training
    if made is not None and abs(made.nats) > 0.5:
        text = (
            f"the claim's log-probabilities are processed ones; a ratio of raw ones to them is off by {made.nats:.0f} nats over "
            f"{plural(made.tokens, 'token')}: mean ratio {made.mean_ratio:.4g}, KL k1 {made.k1:.4f}, k3 {made.k3:.4f}"
        )
        blocks.append(Note("Training", text, "warn"))
    if done.kind is not None:
        name, far = done.kind
        text = f"the recorded log-probabilities are {name}: mean distance " + ", ".join(f"{kind} {by:.3g}" for kind, by in far.items())
        blocks.append(Note("Kind", text, "plain" if name == "raw" else "warn"))
    if done.versus is not None:
        blocks.append(
            Note("Versus", f"{evidence_of(done.versus)}; {training_of(done.versus)}", "warn" if done.versus.mean_abs > 0.02 else "plain")
        )
    return blocks


def _tests(done: Replay) -> Table:
    rows = tuple(
        (test.name, f"{test.statistic:.4g}", Cell(f"{test.p_value:.2g}", "bad" if test.p_value < done.options.alpha else "plain"))
        for test in done.tests
    )
    return Table(("test", "statistic", "p alone"), rows)


def _worst(done: Replay) -> list[int]:
    """Steps from the most telling down: impossible ones, then the least likely."""
    steps = done.steps
    with np.errstate(invalid="ignore"):
        order = np.argsort(np.where(np.isfinite(steps.logprob_processed), steps.logprob_processed, -np.inf), kind="stable")
    bad = [at for at, name in enumerate(steps.outside) if name]
    return bad + [int(at) for at in order if not steps.outside[int(at)]]


def _table(done: Replay) -> Table:
    steps = done.steps
    shown = sorted(_worst(done)[: done.options.rows])
    rows: list[tuple[str | Cell, ...]] = []
    for at in shown:
        out = Cell(steps.outside[at], "bad") if steps.outside[at] else Cell("", "dim")
        processed = steps.logprob_processed[at]
        rows.append(
            (
                str(at),
                done.name(int(steps.tokens[at])),
                f"{steps.rank[at]:,}",
                f"{steps.mass_before[at]:.3f}",
                f"{math.exp(steps.logprob_raw[at]):.4f}",
                f"{math.exp(processed):.4f}" if math.isfinite(processed) else "0",
                f"{steps.support[at]:,}",
                f"{steps.entropy[at]:.2f}",
                out,
            )
        )
    return Table(("step", "token", "rank", "before", "p raw", "p", "support", "entropy", "removed by"), tuple(rows))


def picture(done: Replay) -> Bars:
    """How the drawn tokens spread over the mass before them."""
    counts, _ = np.histogram(np.clip(done.steps.mass_before, 0, 1), bins=_BINS, range=(0, 1))
    most = max(1, int(counts.max()))
    lines = [f"{at / _BINS:.1f} {'#' * math.ceil(_WIDTH * int(count) / most):<{_WIDTH}} {int(count):,}" for at, count in enumerate(counts)]
    text = Note("Evidence", "mass before the drawn token, tokens\n" + "\n".join(lines), "dim")
    bars = tuple(Bar(f"{at / _BINS:.1f} to {(at + 1) / _BINS:.1f}", (float(count),)) for at, count in enumerate(counts))
    return Bars("Mass before the drawn tokens", "tokens", ("tokens",), bars, digits=0, instead=(text,))


def _step(done: Replay, step: int) -> list[Block]:
    """One step's distribution after each stage, by token."""
    stages = done.stages(step)
    vocab = done.logits.vocab
    token = int(done.steps.tokens[step])
    first = stages[0].row.probs(vocab)
    tokens = [int(at) for at in np.argsort(-first, kind="stable")[:_TOP]]
    tokens += [] if token in tokens else [token]
    rows: list[tuple[str | Cell, ...]] = []
    dense = [stage.row.probs(vocab) for stage in stages]
    for at in tokens:
        drawn = "drawn" if at == token else ""
        rows.append(
            (
                done.name(at),
                *(f"{probs[at]:.4f}" if probs[at] else "-" for probs in dense),
                Cell(drawn, "bad" if done.steps.outside[step] else "good"),
            )
        )
    rows.append(("support", *(f"{len(stage.row.x):,}" for stage in stages), ""))
    rows.append(("mass kept", *(f"{stage.mass_kept:.4f}" for stage in stages), ""))
    table = Table((f"step {step}", *(stage.name for stage in stages), ""), tuple(rows))
    verdict = done.steps.outside[step]
    note = f"drawn, although {verdict} removed it" if verdict else "drawn"
    bars = tuple(
        Bar(done.name(at), (float(dense[0][at]), float(dense[-1][at])), note if at == token else "", chosen=at == token) for at in tokens
    )
    label = f"Step {step}: probability of the likeliest tokens before and after {' > '.join(stage.name for stage in stages[1:])}"
    return [Bars(label, "", ("before", "after"), bars, stacked=False, digits=4, instead=(table,)), Fold("Stage by stage", (table,))]
