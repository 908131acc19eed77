"""`sample replay`: recorded logits and tokens against a claim, step by step, as a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.core.report import Report
from llmdoctor.files.arrays import Logits
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.tokenizer import Tokenizer
from llmdoctor.requests.responses import looks_like_responses
from llmdoctor.sample.claim import Claim, doubts_of, make_claim
from llmdoctor.sample.estimate import Estimates, Interval, estimate
from llmdoctor.sample.inputs import Inputs, read_inputs
from llmdoctor.sample.judge import Judgement, Test, judge, run_tests, sorted_cuts, undecided
from llmdoctor.sample.options import Ask
from llmdoctor.sample.rules import replay_findings
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.stages import Stage, run, without_filters
from llmdoctor.sample.steps import Steps, Tolerance, replay_steps
from llmdoctor.sample.training import Versus, compare, kind_of, read_logprobs
from llmdoctor.sample.types import Before, Doubles


@dataclass(frozen=True, slots=True)
class Replay:
    """A replayed generation with everything that was worked out."""

    ask: Ask
    inputs: Inputs
    claim: Claim
    tested: Claim  # what of the claim is run: all of it, or for scores what can be asked of them again
    tolerance: Tolerance
    steps: Steps
    tests: tuple[Test, ...]
    verdict: Judgement
    estimates: Estimates | None
    training: Versus | None  # raw log-probabilities against the processed ones of the tokens that were drawn
    versus: Versus | None
    kind: tuple[str, dict[str, float]] | None
    tokenizer: Tokenizer | None

    @property
    def logits(self) -> Logits:
        """The rows."""
        return self.inputs.logits

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens in front, as far as they are known."""
        return self.inputs.prompt or ()

    def name(self, token: int) -> str:
        """A token as a person reads it: its id, and its text where a tokenizer is known."""
        text = None if self.tokenizer is None else self.tokenizer.token_of(token)
        return str(token) if text is None else f"{token} {text!r}"


def replay_report(ask: Ask) -> Report:
    """Replay, judge and report. Raises QuestionError."""
    from llmdoctor.sample.screen import document

    if not 0 < ask.alpha < 1:
        raise QuestionError(f"--alpha {ask.alpha}: expected a number between 0 and 1")
    if ask.logits is not None and looks_like_responses(ask.logits):
        from llmdoctor.sample.listed import listed_report

        return listed_report(ask)
    if ask.logits is None and ask.model is None and ask.versus is not None and ask.logprobs is not None:
        return versus_report(ask.logprobs, ask.versus)
    claim = make_claim(ask.claim, ask.options, ask.engine, ask.model)
    if claim.beams > 1:
        from llmdoctor.sample.beams import beam_report

        return beam_report(ask, claim)
    done = replay(ask, claim)
    subject = {
        "logits": done.logits.path,
        "dtype": done.logits.dtype,
        "steps": done.steps.count,
        "vocab": done.logits.vocab,
        "tokens": ask.tokens,
        "model": ask.model,
    }
    return Report("sample replay", subject, result_of(done), replay_findings(done), document=document(done), told=True)


def versus_report(new: str, old: str) -> Report:
    """Two files of log-probabilities of the same tokens: `new` the trainer's, `old` the engine's."""
    from llmdoctor.sample.screen import versus_note

    found = _compare(np.asarray(read_logprobs(new)), np.asarray(read_logprobs(old)), old)
    return Report("sample replay", {"logprobs": new, "versus": old}, {"versus": versus_result(found)}, document=(versus_note(found),))


def replay(ask: Ask, claim: Claim) -> Replay:
    """Everything about one generation. Raises QuestionError."""
    inputs = read_inputs(ask, claim)
    logits, tokens, prompt = inputs.logits, inputs.tokens, inputs.prompt or ()
    tolerance = inputs.tolerance
    if ask.step is not None and not 0 <= ask.step < len(tokens):
        raise QuestionError(f"--step {ask.step}: expected 0 to {len(tokens) - 1}")
    if ask.tolerance is not None:
        if not 0 <= ask.tolerance < 1:
            raise QuestionError(f"--tolerance {ask.tolerance}: expected a mass from 0 to below 1")
        tolerance = replace(tolerance, mass=ask.tolerance, because="--tolerance")
    tested = claim.on_scores() if inputs.scores else claim
    steps = replay_steps(logits, tokens, tested, tolerance, prompt, Progress("replay").tick)
    sketch = make_sketch(logits, tokens, tested, prompt, Progress("estimates").tick)
    tests = run_tests(steps, sketch, tested)
    doubts = [] if inputs.scores else doubts_of(claim, inputs.prompt is not None)
    verdict = undecided(doubts) if doubts else judge(tests, steps, sketch, tested, ask.alpha)
    known = not doubts and len(sketch.steps) and tested.settings.do_sample and sorted_cuts(tested.settings) and not inputs.scores
    recorded = None if ask.logprobs is None else read_logprobs(ask.logprobs)
    return Replay(
        ask,
        inputs,
        claim,
        tested,
        tolerance,
        steps,
        tuple(tests),
        verdict,
        estimate(sketch, steps, tested, tests) if known else None,
        None if doubts else _training(steps),
        _versus(ask, steps),
        None if recorded is None or inputs.scores else kind_of(recorded, steps, _scaled(logits, tokens, claim, prompt)),
        None if ask.model is None else read_model_dir(ask.model).tokenizer,
    )


def _training(steps: Steps) -> Versus | None:
    good = np.isfinite(steps.logprob_processed) & np.isfinite(steps.logprob_raw)
    return compare(steps.logprob_raw[good], steps.logprob_processed[good]) if good.any() else None


def _versus(ask: Ask, steps: Steps) -> Versus | None:
    if ask.versus is None:
        return None
    mine = steps.logprob_near if ask.logprobs is None else np.asarray(read_logprobs(ask.logprobs))
    return _compare(np.asarray(read_logprobs(ask.versus)), mine, ask.versus)


def _compare(new: Doubles, old: Doubles, path: str) -> Versus:
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
            last = run(claim.engine, settings, row, Before(tuple(prompt), tuple(tokens[:step])))[-1].row
            probs = last.probs(logits.vocab)
            found[step] = math.log(probs[tokens[step]]) if probs[tokens[step]] > 0 else -np.inf
    return found


def stages_of(done: Replay, step: int) -> list[Stage]:
    """The row of one step after each stage."""
    before = Before(done.prompt, tuple(int(token) for token in done.steps.tokens[:step]))
    with np.errstate(all="ignore"):
        return run(done.tested.engine, done.tested.settings, done.logits.rows(step, step + 1)[0], before)


def result_of(done: Replay) -> dict[str, Any]:
    """The contract's result object."""
    verdict = done.verdict
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": done.ask.alpha,
        "p_value": verdict.p_corrected,
        "more_tokens": verdict.more,
        "claim": {
            "engine": done.claim.engine.name,
            "source": done.claim.source,
            "settings": done.claim.settings.named(),
            "words": done.claim.words(),
            "unmodelled": list(done.claim.unmodelled),
            "unknown": list(done.claim.unknown),
        },
        "scores": done.inputs.scores,
        "notes": list(done.inputs.notes),
        "tolerance": {"mass": done.tolerance.mass, "logit": done.tolerance.logit, "because": done.tolerance.because},
        "tests": [{"name": test.name, "statistic": test.statistic, "p_value": test.p_value, "says": test.says} for test in done.tests],
        "estimate": {} if done.estimates is None else {name: _interval(found) for name, found in done.estimates.intervals.items()},
        "fits": [] if done.estimates is None else _fits(done.estimates),
        "law": None
        if done.estimates is None or done.estimates.law is None
        else {"name": done.estimates.law, "nats": done.estimates.law_gain},
        "training": versus_result(done.training),
        "versus": versus_result(done.versus),
        "logprobs": None if done.kind is None else {"kind": done.kind[0], "mean_distance": done.kind[1]},
        "steps": steps_result(done.steps),
    }


def _fits(estimates: Estimates) -> list[dict[str, Any]]:
    return [
        {
            "engine": fit.engine,
            "settings": fit.settings.named(),
            "impossible": fit.impossible,
            "loglik": fit.loglik,
            "p_value": fit.p_value,
            "claimed": fit.claimed,
        }
        for fit in estimates.fits
    ]


def _interval(found: Interval) -> dict[str, float | None]:
    return {"value": _finite(found.value), "low": _finite(found.low), "high": _finite(found.high)}


def versus_result(versus: Versus | None) -> dict[str, Any] | None:
    """A comparison of log-probabilities for a program."""
    if versus is None:
        return None
    return {
        "tokens": versus.tokens,
        "mean_abs": versus.mean_abs,
        "max_abs": versus.max_abs,
        "pearson": versus.pearson,
        "mean_ratio": versus.mean_ratio,
        "k1": versus.k1,
        "k3": versus.k3,
        "gap": versus.gap,
        "nats": versus.nats,
        "ppl_ratio": versus.ppl_ratio,
    }


def steps_result(steps: Steps) -> list[dict[str, Any]]:
    """Every step for a program; numbers that are not finite are null."""
    return [
        {
            "token": int(steps.tokens[at]),
            "rank": int(steps.rank[at]),
            "logprob_raw": _finite(steps.logprob_raw[at]),
            "logprob_processed": _finite(steps.logprob_processed[at]),
            "mass_before": float(steps.mass_before[at]),
            "support": int(steps.support[at]),
            "entropy": float(steps.entropy[at]),
            "entropy_raw": float(steps.entropy_raw[at]),
            "stages": [
                {"name": name, "support": int(steps.stage_support[at, column]), "mass_kept": float(steps.stage_mass[at, column])}
                for column, name in enumerate(steps.stage_names)
            ],
            "possible": not steps.outside[at],
            "removed_by": steps.outside[at] or None,
        }
        for at in range(steps.count)
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
