"""A recorded generation replayed against a claim: steps, tests, verdict and estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.tokenizer import Tokenizer
from llmdoctor.sample.claim import Claim, doubts_of
from llmdoctor.sample.comparing import Divergence, compare_sides
from llmdoctor.sample.estimate import estimate
from llmdoctor.sample.fits import Estimates
from llmdoctor.sample.generation import Generation, read_generation
from llmdoctor.sample.judge import Judgement, judge, run_tests, undecided
from llmdoctor.sample.logits import Logits
from llmdoctor.sample.logprob_kind import kind_of
from llmdoctor.sample.logprobs import read_side
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.stages import Stage, run, without_filters
from llmdoctor.sample.statistics import skewed_tails
from llmdoctor.sample.steps import Steps, Tolerance, replay_steps
from llmdoctor.sample.testing import Test, has_sorted_cuts
from llmdoctor.sample.types import Doubles
from llmdoctor.sample.unset import with_other_readings


@dataclass(frozen=True, slots=True)
class SequenceScore:
    """One sequence of several: its steps, its impossible tokens, and the p-value of its log-likelihood alone."""

    steps: range
    impossible: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Replay:
    """A replayed generation with everything that was computed.

    `tested` is what of the claim is run: all of it, or for scores what can be asked of them again. `training` compares raw log-probabilities of
    the drawn tokens with processed ones, `versus` two recorded sides, `kind` names the kind of recorded ones with the distance to each.
    """

    options: ReplayOptions
    generation: Generation
    claim: Claim
    tested: Claim
    tolerance: Tolerance
    steps: Steps
    scores: tuple[SequenceScore, ...]
    tests: tuple[Test, ...]
    verdict: Judgement
    estimates: Estimates | None
    training: Divergence | None
    versus: Divergence | None
    kind: tuple[str, dict[str, float]] | None
    tokenizer: Tokenizer | None

    @property
    def logits(self) -> Logits:
        """The rows."""
        return self.generation.logits

    def name(self, token: int) -> str:
        """Return a token as a person reads it: its id, and its text if a tokenizer is known."""
        text = None if self.tokenizer is None else self.tokenizer.token_of(token)
        return str(token) if text is None else f"{token} {text!r}"

    def place(self, step: int) -> str:
        """Return a step in words: its number, and its sequence if there are several."""
        sequences = self.generation.sequences
        if len(sequences.starts) == 1:
            return f"step {step}"
        index = sequences.index(step)
        return f"sequence {index}, step {step - sequences.starts[index]}"

    def stages(self, step: int) -> list[Stage]:
        """Return the row of one step after each stage."""
        before = self.generation.sequences.before(self.generation.tokens, step)
        with np.errstate(all="ignore"):
            return run(self.tested.engine, self.tested.settings, self.logits.rows(step, step + 1)[0], before)


def replay(options: ReplayOptions, claim: Claim) -> Replay:
    """Return everything about one recording. Raises QuestionError."""
    generation = read_generation(options, claim)
    logits, tokens, sequences = generation.logits, generation.tokens, generation.sequences
    if options.step is not None and not 0 <= options.step < len(tokens):
        raise QuestionError(f"--step {options.step}: expected 0 to {len(tokens) - 1}")
    tolerance = _tolerance(options, generation)
    tested = claim.on_scores() if generation.scores else claim
    steps = replay_steps(logits, tokens, tested, tolerance, sequences=sequences, tick=Progress("replay").tick)
    sketch = make_sketch(logits, tokens, tested, sequences=sequences, tick=Progress("estimates").tick)
    tests = run_tests(steps, sketch, tested)
    doubts = [] if generation.scores else doubts_of(claim, generation.prompt_known)
    verdict = judge(tests, steps, sketch, tested, options.alpha)
    if not doubts and not generation.scores:
        verdict = with_other_readings(claim, verdict, lambda other: _judge_again(options, generation, other, tolerance))
    if doubts:
        verdict = undecided(doubts)
    elif generation.scores and verdict.outcome == "consistent" and claim.settings.do_sample:
        verdict = _on_scores(claim, verdict)
    known = not doubts and len(sketch.steps) and tested.settings.do_sample and has_sorted_cuts(tested.settings) and not generation.scores
    return Replay(
        options=options,
        generation=generation,
        claim=claim,
        tested=tested,
        tolerance=tolerance,
        steps=steps,
        scores=_sequence_scores(steps, generation),
        tests=tuple(tests),
        verdict=verdict,
        estimates=estimate(sketch, steps, tested) if known else None,
        training=None if doubts else _training(steps),
        versus=None if options.versus is None else _versus(options, steps),
        kind=None if options.logprobs is None or generation.scores else _kind(options.logprobs, steps, generation, claim),
        tokenizer=None if options.model is None else read_model_dir(options.model).tokenizer,
    )


def _judge_again(options: ReplayOptions, generation: Generation, claim: Claim, tolerance: Tolerance) -> Judgement:
    """The verdict on another reading of the claim."""
    steps = replay_steps(generation.logits, generation.tokens, claim, tolerance, sequences=generation.sequences)
    sketch = make_sketch(generation.logits, generation.tokens, claim, sequences=generation.sequences)
    return judge(run_tests(steps, sketch, claim), steps, sketch, claim, options.alpha)


def _tolerance(options: ReplayOptions, generation: Generation) -> Tolerance:
    if options.tolerance is None:
        return generation.tolerance
    if not 0 <= options.tolerance < 1:
        raise QuestionError(f"--tolerance {options.tolerance}: expected a mass from 0 to below 1")
    return replace(generation.tolerance, mass=options.tolerance, because="--tolerance")


def _on_scores(claim: Claim, verdict: Judgement) -> Judgement:
    """Scores that agree with themselves: undecided if the claim sets what they cannot show again."""
    named = claim.settings.named()
    unseen = [name for name in ("temperature", "top_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff") if name in named]
    if not unseen:
        return verdict
    text = f"scores cannot show {' or '.join(unseen)}: the settings are applied to them already, and any of them give scores that fit"
    return undecided([text], verdict.deciding, verdict.p_corrected)


def _sequence_scores(steps: Steps, generation: Generation) -> tuple[SequenceScore, ...]:
    found = []
    for span in generation.sequences.spans(steps.count):
        part = slice(span.start, span.stop)
        inside = np.array([not name for name in steps.outside[part]], bool)
        variance = float(steps.variance[part][inside].sum())
        p_value = 1.0
        if variance > 1e-12:
            z = float((steps.logprob_near[part] - steps.mean[part])[inside].sum()) / math.sqrt(variance)
            p_value = min(1.0, 2 * min(skewed_tails(z, float(steps.third[part][inside].sum()) / variance**1.5)))
        found.append(SequenceScore(span, int((~inside).sum()), p_value))
    return tuple(found)


def _training(steps: Steps) -> Divergence | None:
    good = np.isfinite(steps.logprob_processed) & np.isfinite(steps.logprob_raw)
    return compare_sides(steps.logprob_raw[good], steps.logprob_processed[good]) if good.any() else None


def _versus(options: ReplayOptions, steps: Steps) -> Divergence:
    """log p(trainer) - log p(engine): --logprobs is the trainer's side (else the claim's own), --versus the engine's."""
    engine = read_side(str(options.versus)).flat()
    trainer = steps.logprob_near if options.logprobs is None else read_side(options.logprobs).flat()
    if len(trainer) != len(engine):
        raise QuestionError(
            f"{options.versus}: {len(engine)} log-probabilities against {len(trainer)}, expected one per token on both sides"
        )
    good = np.isfinite(trainer) & np.isfinite(engine)
    if not good.any():
        raise QuestionError(f"{options.versus}: no token has a finite log-probability on both sides")
    return compare_sides(trainer[good], engine[good])


def _kind(path: str, steps: Steps, generation: Generation, claim: Claim) -> tuple[str, dict[str, float]]:
    recorded = read_side(path).flat()
    if len(recorded) != steps.count:
        raise QuestionError(f"{path}: {len(recorded)} log-probabilities and {steps.count} steps: expected one per step")
    return kind_of(recorded, steps, _scaled(generation, claim))


def _scaled(generation: Generation, claim: Claim) -> Doubles:
    """Log-probabilities after penalties and temperature, before any cut [S]."""
    settings, tokens = without_filters(claim.settings), generation.tokens
    found = np.zeros(len(tokens))
    for start, part in generation.logits.chunks():
        for offset, row in enumerate(part):
            step = start + offset
            last = run(claim.engine, settings, row, generation.sequences.before(tokens, step))[-1].row
            probs = last.probs(generation.logits.vocab)
            found[step] = math.log(probs[tokens[step]]) if probs[tokens[step]] > 0 else -np.inf
    return found
