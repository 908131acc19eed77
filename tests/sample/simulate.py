"""Rows like a chat model's, and tokens drawn from them by an engine's own distribution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from llmdoctor.sample.draws import draw, generator
from llmdoctor.sample.stages import run
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams, TokenContext


def make_rows(seed: int, count: int, vocab: int = 1500) -> np.ndarray:
    """Logits [count, vocab] float32, falling with the log of the rank by a slope that differs from step to step."""
    random = generator(seed)
    slope = 1.2 + random.gamma(0.8, 5.0, (count, 1))
    rows = -slope * np.log(np.arange(1, vocab + 1)) + 0.7 * random.standard_normal((count, vocab))
    return random.permuted(rows, axis=1).astype(np.float32)


def make_tokens(seed: int, rows: np.ndarray, engine: str, settings: SamplingParams) -> list[int]:
    random = generator(seed + 1000)
    tokens: list[int] = []
    for row in rows:
        probs = run(ENGINES[engine], settings, row, TokenContext((), tuple(tokens)))[-1].row.probs(len(row))
        tokens.append(int(draw(probs, 1, random)[0]))
    return tokens


def write_case(folder: Path, seed: int, count: int, truth: tuple[str, SamplingParams], claim: dict[str, object]) -> list[str]:
    """A recorded generation in a folder; the arguments that replay it against `claim`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(seed, count)
    np.save(folder / "logits.npy", rows)
    (folder / "tokens.json").write_text(json.dumps(make_tokens(seed, rows, *truth)))
    (folder / "claim.json").write_text(json.dumps(claim))
    return ["sample", "replay", "logits.npy", "--tokens", "tokens.json", "--claim", "claim.json"]
