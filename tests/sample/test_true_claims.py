"""True claims that were accused once: scores, padding, edges of each cut, half precision, what a claim says and is not modelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.sample.claim import Claim, make_claim
from llmdoctor.sample.estimate import estimate
from llmdoctor.sample.generation import _FORCED, _recorded, ending
from llmdoctor.sample.judge import judge, run_tests
from llmdoctor.sample.logits import Logits
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.replay import replay_report
from llmdoctor.sample.rounding import rounded
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.stages import run
from llmdoctor.sample.steps import Tolerance, replay_steps
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.testing import never_drawn
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome
from tests.sample.simulate import make_rows, make_tokens

NUCLEUS = SamplingParams(temperature=0.7, top_p=0.9)


def replayed(tmp_path: Path, options: SamplingParams, **arrays: Any) -> dict[str, Any]:
    np.savez(tmp_path / "x.npz", **arrays)
    result = replay_report(ReplayOptions(logits=str(tmp_path / "x.npz"), settings=options)).result
    assert result is not None
    return result


def outside(rows: np.ndarray, tokens: list[int], engine: str, settings: SamplingParams, tolerance: Tolerance | None = None) -> list[str]:
    logits = Logits("simulated", rows, "float32", {})
    claim = Claim(ENGINES[engine], settings, "simulated")
    return [name for name in replay_steps(logits, tokens, claim, tolerance or _recorded(logits)).outside if name]


@pytest.mark.parametrize("vocab", [800, 2000])
def test_scores_are_tested_against_themselves(vocab: int, tmp_path: Path) -> None:
    rows = make_rows(1, 200, vocab)
    tokens = make_tokens(1, rows, "transformers", NUCLEUS)
    scores = np.full(rows.shape, -np.inf, np.float32)
    for step, row in enumerate(rows):
        last = run(ENGINES["transformers"], NUCLEUS, row)[-1].row
        scores[step, last.tokens()] = last.x
    found = replayed(tmp_path, NUCLEUS, scores=scores, tokens=np.array(tokens))
    assert (found["scores"], found["verdict"]) == (True, "undecided")  # any temperature and top_p give scores that fit
    narrow = replayed(tmp_path, SamplingParams(temperature=0.7, top_k=3), scores=scores, tokens=np.array(tokens))
    assert narrow["verdict"] == "inconsistent"  # scores that top_k 3 has made hold three tokens
    raw = replayed(tmp_path, NUCLEUS, scores=rows, tokens=np.array(tokens))
    assert (raw["scores"], raw["verdict"]) == (False, "consistent")


def test_padding_behind_the_end_is_no_draw(tmp_path: Path) -> None:
    rows = make_rows(2, 160)
    tokens = make_tokens(2, rows, "transformers", NUCLEUS)
    tokens[120:] = [7] * 40
    found = replayed(tmp_path, NUCLEUS, logits=rows, tokens=np.array(tokens))
    assert (found["verdict"] != "inconsistent", len(found["steps"])) == (True, 120)
    assert ending([5, 6, 2, 9, 9], (2,), ())[0] == 3
    assert ending([5, 6, 2, 9, 9], (), (2,))[0] == 3
    assert ending([5, 6, 2, 9, 8], (), (2,))[0] == 5  # it went on: the call ignored its end
    assert ending([5, 6, 9, 9], (), ())[0] == 4


def test_generates_own_sequences_hold_prompt_and_answer(tmp_path: Path) -> None:
    rows = make_rows(3, 120)
    tokens = make_tokens(3, rows, "transformers", SamplingParams())
    sequences = np.array([[4, 5, 6, *tokens]])
    found = replayed(tmp_path, SamplingParams(), logits=rows[:, None], sequences=sequences)
    assert (found["verdict"], [step["token"] for step in found["steps"]]) == ("consistent", tokens)


def test_sglangs_cuts_are_measured_apart() -> None:
    row = np.array([[4, 3, 2.5, 2, 1, 0]], np.float32)
    assert outside(row, [3], "sglang", SamplingParams(top_k=2, top_p=0.99)) == ["joint"]
    assert outside(row, [3], "sglang", SamplingParams(top_p=0.99, min_p=0.5)) == ["joint"]
    assert outside(row, [1], "sglang", SamplingParams(top_k=2, top_p=0.99)) == []


def test_min_p_is_measured_from_its_own_edge() -> None:
    """Noise of a second pass moves a token over max + log p, far below the least one that stays."""
    row = np.array([[3.0, 2.9, 3.0 + np.log(0.1) - 0.1, -5.0]], np.float32)
    assert outside(row, [2], "transformers", SamplingParams(min_p=0.1), _FORCED["bfloat16"]) == []
    assert outside(row, [3], "transformers", SamplingParams(min_p=0.1), _FORCED["bfloat16"]) == ["min_p"]


@pytest.mark.parametrize("truth", [SamplingParams(top_p=0.9), SamplingParams(top_k=50), SamplingParams(min_p=0.05)], ids=["p", "k", "m"])
def test_logits_that_were_saved_in_half_precision(truth: SamplingParams) -> None:
    rows = make_rows(4, 250) + np.float32(18)
    tokens = make_tokens(4, rows, "transformers", truth)
    half = rounded(rows, "bfloat16")
    assert outside(half, tokens, "transformers", truth) == []
    assert outside(half, make_tokens(4, rows, "transformers", SamplingParams()), "transformers", truth) != []


@pytest.mark.parametrize(
    ("engine", "truth"), [("transformers", SamplingParams(top_k=50, top_p=0.9)), ("llama.cpp", NUCLEUS)], ids=["transformers", "llama.cpp"]
)
def test_the_intervals_cover(engine: str, truth: SamplingParams) -> None:
    held = {"top_p": 0, "top_k": 0}
    for seed in range(8):
        rows = make_rows(seed, 200, 600)
        tokens = make_tokens(seed, rows, engine, truth)
        logits, claim = Logits("simulated", rows, "float32", {}), Claim(ENGINES[engine], truth, "simulated")
        steps, sketch = replay_steps(logits, tokens, claim, _recorded(logits)), make_sketch(logits, tokens, claim)
        found = estimate(sketch, steps, claim).intervals
        for name in held:
            value = getattr(truth, name)
            held[name] += value is None or found[name].low <= value <= found[name].high
    assert min(held.values()) >= 6


def test_consistent_is_not_said_where_twice_the_temperature_would_not_have_shown() -> None:
    said = []
    for seed in range(20):
        rows = make_rows(seed + 9000, 12, 600)
        tokens = make_tokens(seed, rows, "transformers", SamplingParams(temperature=1.0))
        logits, claim = Logits("simulated", rows, "float32", {}), Claim(ENGINES["transformers"], SamplingParams(temperature=2.0), "")
        steps, sketch = replay_steps(logits, tokens, claim, _recorded(logits)), make_sketch(logits, tokens, claim)
        said.append(judge(run_tests(steps, sketch, claim), steps, sketch, claim, 0.01).outcome)
    assert said.count("consistent") <= 2


def write(folder: Path, claim: dict[str, Any]) -> ReplayOptions:
    rows = make_rows(5, 60)
    np.save(folder / "l.npy", rows)
    (folder / "t.json").write_text(json.dumps(make_tokens(5, rows, "transformers", SamplingParams())))
    (folder / "c.json").write_text(json.dumps(claim))
    return ReplayOptions(logits=str(folder / "l.npy"), tokens=str(folder / "t.json"), claim=str(folder / "c.json"))


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"top_k": 2, "no_repeat_ngram_size": 2}, "no_repeat_ngram_size is not modelled"),
        ({"engine": "llama.cpp", "top_k": 2, "mirostat": 2}, "mirostat is not modelled"),
        ({"top_k": 2, "repetition_penalty": 1.3}, "looks at the prompt"),
    ],
)
def test_what_cannot_be_rebuilt_is_undecided(claim: dict[str, Any], said: str, tmp_path: Path) -> None:
    report = replay_report(write(tmp_path, claim))
    assert report.result is not None
    assert report.result["verdict"] == "undecided"
    assert said in report.result["reason"]
    assert report.findings == ()


def test_keys_of_a_claim_do_not_vanish(tmp_path: Path) -> None:
    claim = {"temperature": 1.0, "no_repeat_ngram_size": 0, "model": "m", "colour": "red"}
    with pytest.raises(QuestionError, match="colour is no known setting"):
        replay_report(write(tmp_path, claim))
    report = replay_report(replace(write(tmp_path, claim), without=("colour",)))
    assert report.result is not None
    assert report.verdict is not None
    assert "colour left out" in report.verdict.text
    inputs = report.result["inputs"]
    assert inputs["used"] == {"engine": "transformers", "temperature": 1.0}
    assert {entry["key"] for entry in inputs["ignored"]} == {"no_repeat_ngram_size", "model", "colour"}
    with pytest.raises(QuestionError, match="did you mean temperature"):
        replay_report(write(tmp_path, {"temprature": 0.7}))


def test_a_banned_token_and_llama_cpps_greedy() -> None:
    assert make_claim(ReplayOptions(settings=SamplingParams(temperature=-1.0), engine="llama.cpp")).settings == SamplingParams(
        do_sample=False
    )
    row = np.array([[1.0, 2.0, 0.5]], np.float32)
    banned = SamplingParams(logit_bias={1: -np.inf}, top_p=0.99)
    assert outside(row, [0], "transformers", banned) == []
    assert outside(row, [1], "transformers", banned) == ["logit_bias"]


BAD = [
    '{"top_k": 1' + "0" * 400 + "}",
    '{"logit_bias": {"1": NaN}}',
    '{"logit_bias": {"1": 1' + "0" * 400 + "}}",
    '{"num_beams": true, "length_penalty": []}',
]


@pytest.mark.parametrize("text", BAD)
def test_bad_claims_are_one_sentence(text: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    write(tmp_path, {})
    (tmp_path / "c.json").write_text(text)
    outcome = llmdoctor("sample", "replay", "l.npy", "--tokens", "t.json", "--claim", "c.json", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)


def test_a_token_is_missing_by_chance_as_often_as_it_should_be() -> None:
    """Many tokens that are likely at one step each: some of them are not drawn, and that proves nothing."""
    random, low = np.random.default_rng(0), 0
    for _ in range(400):
        probs = random.uniform(0.5, 0.99, 60)
        drawn = np.flatnonzero(random.random(60) < probs)
        low += never_drawn(np.arange(60), probs, drawn).p_value < 0.05
    assert low <= 30
