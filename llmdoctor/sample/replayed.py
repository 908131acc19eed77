"""A recorded generation replayed against a claim: steps, tests, verdict and estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.files.arrays import Logits
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.tokenizer import Tokenizer
from llmdoctor.sample.claim import Claim, doubts_of
from llmdoctor.sample.estimate import Estimates, estimate
from llmdoctor.sample.generation import Generation, read_generation
from llmdoctor.sample.judge import Judgement, Test, judge, run_tests, sorted_cuts, undecided
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.stages import Stage, run, without_filters
from llmdoctor.sample.steps import Steps, Tolerance, replay_steps
from llmdoctor.sample.training import Comparison, compare, kind_of, read_logprobs
from llmdoctor.sample.types import Doubles, TokenContext


@dataclass(frozen=True, slots=True)
class Replay:
    """A replayed generation with everything that was worked out."""

    options: ReplayOptions
    generation: Generation
    claim: Claim
    tested: Claim  # what of the claim is run: all of it, or for scores what can be asked of them again
    tolerance: Tolerance
    steps: Steps
    tests: tuple[Test, ...]
    verdict: Judgement
    estimates: Estimates | None
    training: Comparison | None  # raw log-probabilities against the processed ones of the tokens that were drawn
    versus: Comparison | None
    kind: tuple[str, dict[str, float]] | None
    tokenizer: Tokenizer | None

    @property
    def logits(self) -> Logits:
        """The rows."""
        return self.generation.logits

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens in front, as far as they are known."""
        return self.generation.prompt or ()

    def name(self, token: int) -> str:
        """A token as a person reads it: its id, and its text where a tokenizer is known."""
        text = None if self.tokenizer is None else self.tokenizer.token_of(token)
        return str(token) if text is None else f"{token} {text!r}"


def replay(options: ReplayOptions, claim: Claim) -> Replay:
    """Everything about one generation. Raises QuestionError."""
    generation = read_generation(options, claim)
    logits, tokens, prompt = generation.logits, generation.tokens, generation.prompt or ()
    tolerance = generation.tolerance
    if options.step is not None and not 0 <= options.step < len(tokens):
        raise QuestionError(f"--step {options.step}: expected 0 to {len(tokens) - 1}")
    if options.tolerance is not None:
        if not 0 <= options.tolerance < 1:
            raise QuestionError(f"--tolerance {options.tolerance}: expected a mass from 0 to below 1")
        tolerance = replace(tolerance, mass=options.tolerance, because="--tolerance")
    tested = claim.on_scores() if generation.scores else claim
    steps = replay_steps(logits, tokens, tested, tolerance, prompt, Progress("replay").tick)
    sketch = make_sketch(logits, tokens, tested, prompt, Progress("estimates").tick)
    tests = run_tests(steps, sketch, tested)
    doubts = [] if generation.scores else doubts_of(claim, generation.prompt is not None)
    verdict = undecided(doubts) if doubts else judge(tests, steps, sketch, tested, options.alpha)
    known = not doubts and len(sketch.steps) and tested.settings.do_sample and sorted_cuts(tested.settings) and not generation.scores
    recorded = None if options.logprobs is None else read_logprobs(options.logprobs)
    return Replay(
        options,
        generation,
        claim,
        tested,
        tolerance,
        steps,
        tuple(tests),
        verdict,
        estimate(sketch, steps, tested, tests) if known else None,
        None if doubts else _training(steps),
        _versus(options, steps),
        None if recorded is None or generation.scores else kind_of(recorded, steps, _scaled(logits, tokens, claim, prompt)),
        None if options.model is None else read_model_dir(options.model).tokenizer,
    )


def _training(steps: Steps) -> Comparison | None:
    good = np.isfinite(steps.logprob_processed) & np.isfinite(steps.logprob_raw)
    return compare(steps.logprob_raw[good], steps.logprob_processed[good]) if good.any() else None


def _versus(options: ReplayOptions, steps: Steps) -> Comparison | None:
    if options.versus is None:
        return None
    mine = steps.logprob_near if options.logprobs is None else np.asarray(read_logprobs(options.logprobs))
    return compare_finite(np.asarray(read_logprobs(options.versus)), mine, options.versus)


def compare_finite(new: Doubles, old: Doubles, path: str) -> Comparison:
    if len(new) != len(old):
        raise QuestionError(f"{path}: {len(new)} log-probabilities against {len(old)}, expected one a token on both sides")
    good = np.isfinite(new) & np.isfinite(old)
    if not good.any():
        raise QuestionError(f"{path}: no token has a finite log-probability on both sides")
    return compare(new[good], old[good])


def _scaled(logits: Logits, tokens: Sequence[int], claim: Claim, prompt: Sequence[int]) -> Doubles:
    """Log-probabilities after penalties and temperature, before any cut [S]."""
    settings = without_filters(claim.settings)
    found = np.zeros(len(tokens))
    for start, part in logits.chunks():
        for offset, row in enumerate(part):
            step = start + offset
            last = run(claim.engine, settings, row, TokenContext(tuple(prompt), tuple(tokens[:step])))[-1].row
            probs = last.probs(logits.vocab)
            found[step] = math.log(probs[tokens[step]]) if probs[tokens[step]] > 0 else -np.inf
    return found


def stages_of(done: Replay, step: int) -> list[Stage]:
    """The row of one step after each stage."""
    before = TokenContext(done.prompt, tuple(int(token) for token in done.steps.tokens[:step]))
    with np.errstate(all="ignore"):
        return run(done.tested.engine, done.tested.settings, done.logits.rows(step, step + 1)[0], before)
