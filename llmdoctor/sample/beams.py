"""Beam search replayed: the scores of the returned beams from recorded logits and beam_indices, and why the winner won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.document import Block, Cell, Headline, Note, Table, Tone
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.files.arrays import open_recording
from llmdoctor.sample.claim import Claim, doubts_of
from llmdoctor.sample.findings import findings_of
from llmdoctor.sample.judge import Judgement, Test, undecided
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.stages import run
from llmdoctor.sample.types import Floats, Ids, TokenContext

_NEAR = 1e-3  # nats between a recorded and a recomputed score


@dataclass(frozen=True, slots=True)
class Beam:
    """One returned beam: its tokens, each one's log-probability and rank in its row, the sum, and the score that beams are compared by."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    score: float
    recorded: float | None

    @property
    def total(self) -> float:
        """Sum of the log-probabilities."""
        return sum(self.logprobs)


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
    subject = {"logits": options.logits, "beams": claim.beams, "returned": len(beams), "prompts": prompts, "prompt": shown}
    return Report(
        "sample replay", subject, _result(beams, claim, verdict, options), findings, document=_document(beams, claim, verdict), told=True
    )


def read_beams(array: NDArray[Any], others: dict[str, NDArray[Any]], claim: Claim, path: str) -> list[Beam]:
    """Each returned beam; `array` [steps, beams, V], beam_indices [returned, steps] with -1 behind the end."""
    sequences, indices = np.asarray(others["sequences"]), np.asarray(others["beam_indices"])
    if (
        sequences.ndim != 2
        or indices.ndim != 2
        or len(sequences) != len(indices)
        or {sequences.dtype.kind, indices.dtype.kind} - {"i", "u"}
    ):
        raise QuestionError(f"{path}: expected sequences and beam_indices of whole numbers, one row a returned beam")
    scores = others.get("sequences_scores")
    beams = []
    for at, (sequence, rows) in enumerate(zip(sequences, indices, strict=True)):
        length = int(np.count_nonzero(rows >= 0))
        prompt = len(sequence) - rows.shape[0]
        if length > len(array) or prompt < 0 or (rows[:length] >= array.shape[1]).any() or (rows[:length] < 0).any():
            raise QuestionError(f"{path}: beam {at}: beam_indices do not fit logits of shape {list(array.shape)}")
        before = tuple(int(token) for token in sequence[:prompt])
        recorded = None if scores is None else float(np.asarray(scores).reshape(-1)[at])
        beams.append(
            _beam(array, rows[:length], [int(token) for token in sequence[prompt : prompt + length]], before, claim, recorded, path)
        )
    return beams


def _beam(
    array: NDArray[Any], rows: Ids, tokens: list[int], prompt: tuple[int, ...], claim: Claim, recorded: float | None, path: str
) -> Beam:
    logprobs, ranks = [], []
    for step, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        logits = np.asarray(array[step, row], np.float32)
        if not 0 <= token < len(logits) or not np.isfinite(logits.max()):
            raise QuestionError(
                f"{path}: step {step}: token {token} outside the vocabulary of {len(logits)}, or logits that are not finite"
            )
        scores = _scores(logits, claim, TokenContext(prompt, tuple(tokens[:step])))
        logprobs.append(float(scores[token]))
        ranks.append(1 + int(np.count_nonzero(scores > scores[token])))
    score = sum(logprobs) / max(1, len(tokens)) ** claim.length_penalty
    return Beam(tuple(tokens), tuple(logprobs), tuple(ranks), score, recorded)


def _scores(logits: Floats, claim: Claim, before: TokenContext) -> Floats:
    """transformers' beam search: log_softmax first, then the processors on it, without normalising again."""
    top = logits.max()
    logs: Floats = logits - top - np.log(np.exp(logits - top).sum())
    last = run(claim.engine, claim.settings, logs, before)
    row = next((stage.row for stage in reversed(last) if stage.name != "greedy"), last[0].row)
    dense = np.full(len(logits), -np.inf, np.float32)
    dense[row.tokens()] = row.x
    return dense


def judge_beams(beams: Sequence[Beam], claim: Claim) -> Judgement:
    """Recorded scores, the order of the beams, and tokens that no search of that width would have looked at."""
    wrong = [
        f"beam {at}: recorded score {beam.recorded:.4f}, recomputed {beam.score:.4f}"
        for at, beam in enumerate(beams)
        if beam.recorded is not None and abs(beam.recorded - beam.score) > _NEAR
    ]
    wide = 2 * claim.beams
    wrong += [
        f"beam {at}, step {step}: the token has rank {rank}, a search of {claim.beams} beams looks at {wide} in a row"
        for at, beam in enumerate(beams)
        for step, rank in enumerate(beam.ranks)
        if rank > wide
    ]
    order = [beam.score for beam in beams]
    if any(later > first + _NEAR for first, later in pairwise(order)):
        wrong.append("the beams are not returned from the best score down")
    test = Test("beam_scores", float(len(wrong)), 0.0 if wrong else 1.0, wrong[0] if wrong else "")
    if wrong:
        return Judgement("inconsistent", f"{wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""), test, 0.0, None)
    return Judgement("consistent", "every score is what the logits give", test, 1.0, None)


def _result(beams: Sequence[Beam], claim: Claim, verdict: Judgement, options: ReplayOptions) -> dict[str, Any]:
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": options.alpha,
        "claim": {
            "engine": claim.engine.name,
            "num_beams": claim.beams,
            "length_penalty": claim.length_penalty,
            "settings": claim.settings.named(),
        },
        "tests": [
            {"name": "beam_scores", "statistic": verdict.deciding.statistic if verdict.deciding else 0.0, "p_value": verdict.p_corrected}
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
        "steps": [
            {"token": token, "rank": rank, "logprob_processed": logprob, "possible": rank <= 2 * claim.beams}
            for token, rank, logprob in zip(beams[0].tokens, beams[0].ranks, beams[0].logprobs, strict=True)
        ],
    }


def _document(beams: Sequence[Beam], claim: Claim, verdict: Judgement) -> tuple[Block, ...]:
    tones: dict[str, Tone] = {"consistent": "good", "inconsistent": "bad"}
    tone = tones.get(verdict.outcome, "warn")
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
    blocks: list[Block] = [
        Headline(f"{verdict.outcome.upper()} with {claim.words()}, length_penalty {claim.length_penalty:g}", tone),
        Note("PROOF" if tone == "bad" else "WHY", verdict.reason, tone),
        Table(("beam", "tokens", "sum of log p", "score", "recorded", "tokens that are not the row's largest"), rows),
    ]
    if len(beams) > 1:
        blocks.append(Note("WINNER", _why(beams[0], beams[1]), "plain"))
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
