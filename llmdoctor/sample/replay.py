"""`sample replay`: recorded logits and tokens against a claim, step by step, as a report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmdoctor.core.report import Report
from llmdoctor.requests.logprob_files import looks_like_responses
from llmdoctor.sample.beams import beam_report
from llmdoctor.sample.claim import make_claim
from llmdoctor.sample.estimate import Estimates, Interval
from llmdoctor.sample.findings import replay_findings
from llmdoctor.sample.listed import listed_report
from llmdoctor.sample.options import ReplayOptions, check_alpha
from llmdoctor.sample.replayed import Replay, compare_finite, replay
from llmdoctor.sample.screen import document, versus_note
from llmdoctor.sample.statistics import require_statistics
from llmdoctor.sample.steps import Steps
from llmdoctor.sample.training import Comparison, read_logprobs


def replay_report(options: ReplayOptions) -> Report:
    """Replay, judge and report. Raises QuestionError."""
    check_alpha(options.alpha)
    require_statistics("sample replay")
    if options.logits is not None and looks_like_responses(options.logits):
        return listed_report(options)
    if options.logits is None and options.model is None and options.versus is not None and options.logprobs is not None:
        return versus_report(options.logprobs, options.versus)
    claim = make_claim(options.claim, options.settings, options.engine, options.model)
    if claim.beams > 1:
        return beam_report(options, claim)
    done = replay(options, claim)
    subject = {
        "logits": done.logits.path,
        "dtype": done.logits.dtype,
        "steps": done.steps.count,
        "vocab": done.logits.vocab,
        "tokens": options.tokens,
        "model": options.model,
    }
    return Report("sample replay", subject, result_of(done), replay_findings(done), document=document(done), told=True)


def versus_report(new: str, old: str) -> Report:
    """Two files of log-probabilities of the same tokens: `new` the trainer's, `old` the engine's."""
    found = compare_finite(np.asarray(read_logprobs(new)), np.asarray(read_logprobs(old)), old)
    return Report("sample replay", {"logprobs": new, "versus": old}, {"versus": versus_result(found)}, document=(versus_note(found),))


def result_of(done: Replay) -> dict[str, Any]:
    """The contract's result object."""
    verdict = done.verdict
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": done.options.alpha,
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
        "scores": done.generation.scores,
        "notes": list(done.generation.notes),
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
            "engine": fit.engine.name,
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


def versus_result(versus: Comparison | None) -> dict[str, Any] | None:
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
