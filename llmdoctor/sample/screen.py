"""What a person reads of a replay: the verdict, the proof, what fits, what it means in training, the steps, one step by its stages."""

from __future__ import annotations

import math

import numpy as np

from llmdoctor.core.document import Bar, Bars, Block, Cell, Fold, Headline, Note, Table, Tone
from llmdoctor.core.text import plural
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.estimate import Estimates, Interval
from llmdoctor.sample.precision import precision_note
from llmdoctor.sample.replayed import Replay, stages_of
from llmdoctor.sample.training import Comparison

_TONES: dict[str, Tone] = {"consistent": "good", "inconsistent": "bad", "undecided": "warn"}
_WIDTH, _BINS, _TOP = 40, 10, 8


def document(done: Replay) -> tuple[Block, ...]:
    """The whole screen."""
    verdict = done.verdict
    blocks: list[Block] = [
        Headline(f"{verdict.outcome.upper()} with {done.claim.words()}   (alpha {done.options.alpha:g})", _TONES[verdict.outcome]),
        *_proof(done),
        *(Note("TAKEN", note, "warn") for note in done.generation.notes),
        *claim_notes(done.claim),
    ]
    if done.estimates is not None:
        blocks += _fits(done, done.estimates)
    blocks += _training(done)
    blocks.append(_tests(done))
    if done.options.step is not None:
        blocks += _step(done, done.options.step)
    elif done.options.rows:
        blocks += [_table(done), picture(done)]
    if done.options.dtype is not None and done.options.logits is not None:
        blocks.append(precision_note(done))
    if done.options.step is None:
        blocks.append(Note("NEXT", f"the same command with --step {_worst(done)[0]}"))
    return tuple(blocks)


def claim_notes(claim: Claim) -> list[Note]:
    """What of a claim was not understood."""
    return [Note("CLAIM", f"keys that are not known and were passed over: {', '.join(claim.unknown[:8])}", "warn")] if claim.unknown else []


def _proof(done: Replay) -> list[Block]:
    steps, verdict = done.steps, done.verdict
    bad = [at for at, name in enumerate(steps.outside) if name]
    if bad and verdict.outcome == "inconsistent":
        lines = [
            f"{len(bad)} of {plural(steps.count, 'token')} impossible (tolerance {done.tolerance.mass:g} of mass, {done.tolerance.because})"
        ]
        lines += [
            f"step {at}  {done.name(int(steps.tokens[at]))}  rank {steps.rank[at]:,}, mass before it {steps.mass_before[at]:.3f}, "
            f"removed by {steps.outside[at]}"
            for at in bad[:3]
        ]
        return [Note("PROOF", "\n".join(lines), "bad")]
    if verdict.outcome == "inconsistent":
        return [Note("PROOF", f"{verdict.reason}; p = {verdict.p_corrected:.2g} after correction", "bad")]
    if verdict.outcome == "undecided":
        more = "" if verdict.more is None else f": about {plural(verdict.more, 'more token')} would decide"
        return [Note("WHY", verdict.reason + more, "warn")]
    return [Note("WHY", f"{verdict.reason}: {plural(steps.count, 'token')}, smallest p = {verdict.p_corrected:.2g} after correction")]


def _fits(done: Replay, estimates: Estimates) -> list[Block]:
    intervals = estimates.intervals
    lines = []
    if done.verdict.outcome == "inconsistent" and estimates.law is not None:
        lines.append(f"a broken sampler: {estimates.law} ({estimates.law_gain:.0f} nats likelier than the claim)")
    elif done.verdict.outcome == "inconsistent" and estimates.fits and not estimates.fits[0].claimed:
        best = estimates.fits[0]
        said = "none impossible" if not best.impossible else f"{best.impossible} impossible"
        lines.append(f"{best.words()}: {said}, p = {best.p_value:.2g}")
    lines.append(
        f"temperature {_range(intervals['temperature'], 2)}, top_p at least {intervals['top_p'].low:.3f} (95%: to {intervals['top_p'].high:.3f}), "
        f"top_k at least {intervals['top_k'].low:,.0f} (95%: to {intervals['top_k'].high:,.0f})"
    )
    return [Note("FITS" if done.verdict.outcome == "inconsistent" else "SEEN", "\n".join(lines))]


def _range(found: Interval, digits: int) -> str:
    if not math.isfinite(found.value):
        return "not to be told"
    high = "..." if math.isinf(found.high) else f"{found.high:.{digits}f}"
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {high}]"


def _training(done: Replay) -> list[Block]:
    blocks: list[Block] = []
    made = done.training
    if made is not None and abs(made.nats) > 0.5:
        text = (
            f"the claim's log-probabilities are processed ones; a ratio of raw against them is off by {made.nats:.0f} nats over "
            f"{plural(made.tokens, 'token')}: mean ratio {made.mean_ratio:.4g}, KL k1 {made.k1:.4f}, k3 {made.k3:.4f}"
        )
        blocks.append(Note("TRAIN", text, "warn"))
    if done.kind is not None:
        name, far = done.kind
        text = f"the recorded log-probabilities are {name}: mean distance " + ", ".join(f"{kind} {by:.3g}" for kind, by in far.items())
        blocks.append(Note("KIND", text, "plain" if name == "raw" else "warn"))
    if done.versus is not None:
        blocks.append(versus_note(done.versus))
    return blocks


def versus_note(versus: Comparison) -> Note:
    """Two sets of log-probabilities in words."""
    pearson = "-" if versus.pearson is None else f"{versus.pearson:.4f}"
    text = (
        f"{plural(versus.tokens, 'token')}: |dlogp| mean {versus.mean_abs:.4f}, max {versus.max_abs:.4f}, Pearson {pearson}\n"
        f"ratio mean {versus.mean_ratio:.4f}, KL k1 {versus.k1:.4f}, k3 {versus.k3:.4f}, gap {versus.gap:.4f}, PPL ratio {versus.ppl_ratio:.4f}, "
        f"sum {versus.nats:.1f} nats"
    )
    if versus.gap > 0.02:
        text += f"\na mean ratio below 1 by {versus.gap:.3f} is mass that one side cut off: k3 does not show it"
    return Note("VERSUS", text, "warn" if versus.mean_abs > 0.02 else "plain")


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
    told = Note("WHERE", "mass before the drawn token, tokens\n" + "\n".join(lines), "dim")
    bars = tuple(Bar(f"{at / _BINS:.1f} to {(at + 1) / _BINS:.1f}", (float(count),)) for at, count in enumerate(counts))
    return Bars("Mass before the drawn tokens", "tokens", ("tokens",), bars, digits=0, instead=(told,))


def _step(done: Replay, step: int) -> list[Block]:
    """One step's distribution after each stage, by token."""
    stages = stages_of(done, step)
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
    note = f"drawn, though {verdict} removed it" if verdict else "drawn"
    bars = tuple(
        Bar(done.name(at), (float(dense[0][at]), float(dense[-1][at])), note if at == token else "", chosen=at == token) for at in tokens
    )
    label = f"Step {step}: probability of the likeliest tokens before and after {' > '.join(stage.name for stage in stages[1:])}"
    return [Bars(label, "", ("before", "after"), bars, stacked=False, digits=4, instead=(table,)), Fold("Stage by stage", (table,))]
