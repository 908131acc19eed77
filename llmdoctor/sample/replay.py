"""`sample replay`: recorded tokens against a claim, from logits, from a response's top log-probabilities, or from a model."""

from __future__ import annotations

import math

from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.requests.logprob_files import looks_like_responses
from llmdoctor.sample.beam_report import beam_report
from llmdoctor.sample.claim import make_claim
from llmdoctor.sample.compare import compared_as, versus_result
from llmdoctor.sample.findings import replay_findings
from llmdoctor.sample.fits import Estimates
from llmdoctor.sample.listed_report import listed_report
from llmdoctor.sample.options import ReplayOptions, SampleCompareOptions, check_alpha
from llmdoctor.sample.replayed import Replay, replay
from llmdoctor.sample.result_parts import STATUSES, claim_result, finite, interval_result, plain_values, test_result
from llmdoctor.sample.results import FittedSettingsResult, ReplayResult, StepResult
from llmdoctor.sample.screen import document
from llmdoctor.sample.statistics import require_statistics
from llmdoctor.sample.steps import Steps


def replay_report(options: ReplayOptions) -> Report:
    """Return the replay, judged. Raises QuestionError."""
    check_alpha(options.alpha)
    if options.logits is None and options.model is None and options.versus is not None and options.logprobs is not None:
        sides = SampleCompareOptions(trainer=options.logprobs, engine=options.versus, temperature=options.settings.temperature)
        return compared_as("sample replay", sides)
    require_statistics("sample replay")
    if options.logits is not None and looks_like_responses(options.logits):
        return listed_report(options)
    claim = make_claim(options)
    if claim.beams > 1:
        return beam_report(options, claim)
    done = replay(options, claim)
    subject = {
        "logits": done.logits.path,
        "dtype": done.logits.dtype,
        "steps": done.steps.count,
        "sequences": len(done.scores),
        "vocab": done.logits.vocab,
        "tokens": options.tokens,
        "model": options.model,
    }
    findings = replay_findings(done)
    return Report("sample replay", subject, _result(done), findings, document=document(done, findings), verdict=_verdict(done))


def _verdict(done: Replay) -> Verdict:
    """The first line: the decision, the claim, and every limit that could turn it."""
    decided = done.verdict
    words = done.claim.words()
    many = f"{plural(done.steps.count, 'token')}" + (f" in {plural(len(done.scores), 'sequence')}" if len(done.scores) > 1 else "")
    more = f"; about {plural(decided.more, 'more token')} would decide" if decided.more else ""
    limits = ["scores tested against themselves"] if done.generation.scores else []
    limits += [f"{name} left out" for name in done.options.without]
    limits += [done.claim.engine.doubt] if done.claim.engine.doubt else []
    limit = f" ({'; '.join(limits)})" if limits else ""
    text = f"{decided.outcome.capitalize()} with {words}: {decided.reason}{more} ({many}, alpha {done.options.alpha:g}).{limit}"
    return Verdict(text, STATUSES[decided.outcome])


def _result(done: Replay) -> ReplayResult:
    verdict, estimates = done.verdict, done.estimates
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": done.options.alpha,
        "p_value": verdict.p_corrected,
        "more_tokens": verdict.more,
        "claim": claim_result(done.claim),
        "scores": done.generation.scores,
        "notes": list(done.generation.notes),
        "tolerance": {"mass": done.tolerance.mass, "logit": done.tolerance.logit, "because": done.tolerance.because},
        "tests": [test_result(test) for test in done.tests],
        "estimate": {} if estimates is None else {name: interval_result(found) for name, found in estimates.intervals.items()},
        "fits": [] if estimates is None else _fits(estimates),
        "margin": None if estimates is None or not math.isfinite(estimates.margin) else estimates.margin,
        "law": None if estimates is None or estimates.law is None else {"name": estimates.law, "nats": estimates.law_gain},
        "training": versus_result(done.training),
        "versus": versus_result(done.versus),
        "logprobs": None if done.kind is None else {"kind": done.kind[0], "mean_distance": done.kind[1]},
        "sequences": [
            {"sequence": index, "tokens": len(one.steps), "impossible": one.impossible, "p_value": one.p_value}
            for index, one in enumerate(done.scores)
        ],
        "repeats": [list(pair) for pair in done.generation.repeats],
        "steps": _steps(done.steps),
        "inputs": done.claim.inputs.result(),
    }


def _fits(estimates: Estimates) -> list[FittedSettingsResult]:
    return [
        {
            "engine": fit.engine.name,
            "settings": plain_values(fit.settings.named()),
            "law": fit.law,
            "impossible": fit.impossible,
            "loglik": fit.loglik,
            "score": fit.score,
            "p_value": fit.p_value,
            "claimed": fit.claimed,
        }
        for fit in estimates.fits
    ]


def _steps(steps: Steps) -> list[StepResult]:
    return [
        {
            "token": int(steps.tokens[at]),
            "rank": int(steps.rank[at]),
            "logprob_raw": finite(steps.logprob_raw[at]),
            "logprob_processed": finite(steps.logprob_processed[at]),
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
