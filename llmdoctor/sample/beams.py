"""Beam search recomputed: the scores of the returned beams from recorded logits and beam_indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.judge import Judgement
from llmdoctor.sample.stages import run
from llmdoctor.sample.testing import Test
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
            _beam(
                array,
                rows[:length],
                tokens=[int(token) for token in sequence[prompt : prompt + length]],
                prompt=before,
                claim=claim,
                recorded=recorded,
                path=path,
            )
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
