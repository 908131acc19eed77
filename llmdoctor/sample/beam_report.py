"""`sample replay` of beam search: the returned beams judged, and why the winner won."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.sample.beams import Beam, judge_beams, read_beams
from llmdoctor.sample.claim import Claim, doubts_of
from llmdoctor.sample.findings import findings_of
from llmdoctor.sample.judge import Judgement, undecided
from llmdoctor.sample.logits import open_recording
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.result_parts import STATUSES, claim_result
from llmdoctor.sample.results import BeamStepResult, ReplayResult


def beam_report(options: ReplayOptions, claim: Claim) -> Report:
    """Recompute and judge the beams of one prompt. Raises QuestionError."""
    useless = [name for name in ("step", "tolerance", "versus", "logprobs", "dtype", "tokens") if getattr(options, name) is not None]
    if useless:
        raise QuestionError(f"--{useless[0]}: not for beam search, which is recomputed as a whole")
    if options.logits is None:
        raise QuestionError("beam search is recomputed from recorded logits: expected an .npz of logits, sequences and beam_indices")
    array, others = open_recording(options.logits)
    missing = [name for name in ("sequences", "beam_indices") if name not in others]
    if array.ndim != 3 or missing:
        raise QuestionError(
            f"{options.logits}: beam search needs an .npz of logits [steps, beams, V], sequences and beam_indices, as generate() returns them; "
            + (f"{' and '.join(missing)} missing" if missing else f"the logits have {array.ndim} dimensions")
        )
    prompts = array.shape[1] // claim.beams
    if array.shape[1] % claim.beams:
        raise QuestionError(
            f"{options.logits}: logits of {array.shape[1]} beams, expected a multiple of the claim's num_beams {claim.beams}"
        )
    if options.sequence is not None and not 0 <= options.sequence < prompts:
        raise QuestionError(f"--sequence {options.sequence}: expected 0 to {prompts - 1}, the prompts of the batch")
    every = read_beams(array, others, claim, options.logits)
    if len(every) % prompts:
        raise QuestionError(f"{options.logits}: {len(every)} returned beams of {prompts} prompts: expected as many of each")
    each = len(every) // prompts
    groups = [every[at : at + each] for at in range(0, len(every), each)]
    verdicts = [judge_beams(group, claim) for group in groups]
    worst = next((at for at, one in enumerate(verdicts) if one.outcome == "inconsistent"), 0)
    shown = worst if options.sequence is None else options.sequence
    beams = groups[shown]
    verdict = undecided(doubts_of(claim, True)) if claim.unmodelled else verdicts[shown]
    findings = findings_of(verdict, claim, str(options.logits), [])
    doubt = f" ({claim.engine.doubt})" if claim.engine.doubt else ""
    text = f"{verdict.outcome.capitalize()} with {claim.words()}, length_penalty {claim.length_penalty:g}: {verdict.reason}.{doubt}"
    subject = {"logits": options.logits, "beams": claim.beams, "returned": len(beams), "prompts": prompts, "prompt": shown}
    return Report(
        "sample replay",
        subject,
        _result(beams, claim, verdict, options),
        findings,
        document=(*findings, *_document(beams)),
        verdict=Verdict(text, STATUSES[verdict.outcome]),
    )


def _result(beams: Sequence[Beam], claim: Claim, verdict: Judgement, options: ReplayOptions) -> ReplayResult:
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": options.alpha,
        "claim": {**claim_result(claim), "num_beams": claim.beams, "length_penalty": claim.length_penalty},
        "inputs": claim.inputs.result(),
        "tests": [
            {
                "name": "beam_scores",
                "statistic": verdict.deciding.statistic if verdict.deciding else 0.0,
                "p_value": verdict.p_corrected,
                "says": verdict.reason,
            }
        ],
        "estimate": {},
        "beams": [
            {
                "tokens": list(beam.tokens),
                "logprobs": list(beam.logprobs),
                "ranks": list(beam.ranks),
                "sum": beam.total,
                "score": beam.score,
                "recorded": beam.recorded,
            }
            for beam in beams
        ],
        "steps": _steps(beams[0], claim),
    }


def _steps(best: Beam, claim: Claim) -> list[BeamStepResult]:
    return [
        {"token": token, "rank": rank, "logprob_processed": logprob, "possible": rank <= 2 * claim.beams}
        for token, rank, logprob in zip(best.tokens, best.ranks, best.logprobs, strict=True)
    ]


def _document(beams: Sequence[Beam]) -> tuple[Block, ...]:
    rows = tuple(
        (
            str(at),
            f"{len(beam.tokens)}",
            f"{beam.total:.4f}",
            f"{beam.score:.4f}",
            "-" if beam.recorded is None else f"{beam.recorded:.4f}",
            Cell(_greedy(beam), "dim"),
        )
        for at, beam in enumerate(beams)
    )
    blocks: list[Block] = [Table(("beam", "tokens", "sum of log p", "score", "recorded", "tokens that are not the row's largest"), rows)]
    if len(beams) > 1:
        blocks.append(Note("Evidence", _why(beams[0], beams[1]), "plain"))
    return tuple(blocks)


def _greedy(beam: Beam) -> str:
    return f"{sum(rank > 1 for rank in beam.ranks)} of {len(beam.ranks)}"


def _why(best: Beam, second: Beam) -> str:
    """Where the two best part, what the winner lost and won back there."""
    steps = min(len(best.tokens), len(second.tokens))
    parts = next((step for step in range(steps) if best.tokens[step] != second.tokens[step]), steps)
    if parts == steps:
        lengths = f"it is {len(best.tokens)} tokens long, the second {len(second.tokens)}"
        return f"{lengths}: with this length_penalty {best.score:.4f} beats {second.score:.4f}"
    at, after = best.logprobs[parts] - second.logprobs[parts], sum(best.logprobs[parts + 1 :]) - sum(second.logprobs[parts + 1 :])
    return f"it parts from the second at step {parts}: {at:+.4f} nats there, {after:+.4f} after it; score {best.score:.4f} against {second.score:.4f}"
