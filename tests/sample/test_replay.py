"""Replays: true claims are left alone, wrong ones are told, with the reason; what is printed; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.report import Style, render
from llmdoctor.sample.claim import Claim, make_claim
from llmdoctor.sample.estimate import estimate
from llmdoctor.sample.judge import judge, run_tests
from llmdoctor.sample.laws import LOOP_DOWN, last_pass_wins
from llmdoctor.sample.logits import Logits
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.replay import replay_report
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.statistics import at_most, skewed_tails
from llmdoctor.sample.steps import Tolerance, replay_steps
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome
from tests.reading import read_in_order
from tests.sample.simulate import make_rows, make_tokens, write_case

TOLERANCE = Tolerance(1e-4, 1e-4, "recorded logits")
NUCLEUS = SamplingParams(temperature=0.7, top_p=0.9)
Run = Callable[..., Outcome]


def judged(rows: np.ndarray, tokens: list[int], engine: str, settings: SamplingParams) -> tuple[str, str, Any]:
    logits, claim = Logits("simulated", rows, "float32", {}), Claim(ENGINES[engine], settings, "simulated")
    steps, sketch = replay_steps(logits, tokens, claim, TOLERANCE), make_sketch(logits, tokens, claim)
    tests = run_tests(steps, sketch, claim)
    verdict = judge(tests, steps, sketch, claim, 0.01)
    return verdict.outcome, verdict.deciding.name if verdict.deciding else "", estimate(sketch, steps, claim)


TRUE = [
    ("transformers", NUCLEUS),
    ("vllm", SamplingParams(temperature=1.0, top_k=50)),
    ("llama.cpp", SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)),
    ("sglang", SamplingParams(temperature=1.2, top_k=20, top_p=0.9)),
    ("transformers", SamplingParams(temperature=1.5, min_p=0.1)),
    ("transformers", SamplingParams(repetition_penalty=1.2)),
]


@pytest.mark.parametrize(("engine", "settings"), TRUE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_true_claim_is_consistent(engine: str, settings: SamplingParams) -> None:
    rows = make_rows(3, 300)
    outcome, _, found = judged(rows, make_tokens(3, rows, engine, settings), engine, settings)
    assert outcome == "consistent"
    seen = found.intervals["temperature"]
    assert 0.95 * seen.low <= (settings.temperature or 1.0) <= 1.05 * seen.high


WRONG = [
    (("transformers", SamplingParams(temperature=0.5)), ("transformers", SamplingParams()), {"temperature_lr", "log_likelihood_z"}),
    (("transformers", SamplingParams(temperature=1.6)), ("transformers", SamplingParams()), {"temperature_lr", "log_likelihood_z"}),
    (("transformers", SamplingParams()), ("transformers", SamplingParams(top_p=0.9)), {"impossible_tokens"}),
    (("transformers", SamplingParams()), ("transformers", SamplingParams(top_k=20)), {"impossible_tokens"}),
    (("transformers", SamplingParams(top_k=4)), ("transformers", SamplingParams(top_k=50)), {"rank_beyond", "gap_beyond", "mass_beyond"}),
    (("transformers", SamplingParams(top_p=0.7)), ("transformers", SamplingParams(top_p=0.99)), {"mass_beyond"}),
    (("llama.cpp", NUCLEUS), ("transformers", NUCLEUS), {"impossible_tokens"}),
    (
        ("transformers", SamplingParams(do_sample=False)),
        ("transformers", SamplingParams(temperature=1.0)),
        {"log_likelihood_z", "temperature_lr", "rank_beyond"},
    ),
    (("transformers", SamplingParams()), ("transformers", SamplingParams(do_sample=False)), {"impossible_tokens"}),
]


@pytest.mark.parametrize(("truth", "claim", "reasons"), WRONG, ids=lambda value: "")
def test_a_wrong_claim_is_told(truth: tuple[str, SamplingParams], claim: tuple[str, SamplingParams], reasons: set[str]) -> None:
    rows = make_rows(5, 400)
    outcome, reason, _ = judged(rows, make_tokens(5, rows, *truth), *claim)
    assert outcome == "inconsistent"
    assert reason in reasons


def test_the_order_that_fits_is_named() -> None:
    rows = make_rows(6, 400)
    _, _, found = judged(rows, make_tokens(6, rows, "llama.cpp", NUCLEUS), "transformers", NUCLEUS)
    assert (found.fits[0].engine.name, found.fits[0].impossible) == ("llama.cpp", 0)


def test_few_tokens_are_undecided() -> None:
    rows = make_rows(7, 4)
    assert judged(rows, make_tokens(7, rows, "transformers", SamplingParams()), "transformers", SamplingParams())[0] == "undecided"


def test_the_loop_is_named() -> None:
    rows, random = make_rows(8, 300), np.random.default_rng(8)
    tokens = []
    for row in rows:
        at = np.argsort(-row)[:8]
        p = np.exp(row[at].astype(float) - row.max())
        tokens.append(int(at[random.choice(8, p=last_pass_wins(p / p.sum()))]))
    outcome, _, found = judged(rows, tokens, "transformers", SamplingParams(top_k=8))
    assert (outcome, found.law) == ("inconsistent", LOOP_DOWN)


def test_true_claims_are_rarely_accused() -> None:
    accused = 0
    for seed in range(30):
        engine, settings = TRUE[seed % 5]
        rows = make_rows(seed, 120)
        accused += judged(rows, make_tokens(seed, rows, engine, settings), engine, settings)[0] == "inconsistent"
    assert accused <= 2


def test_equal_logits_have_one_rank() -> None:
    rows = np.tile(np.array([3, 3, 3, 0, 0, -1], np.float32), (60, 1))
    tokens = [0, 1, 2] * 20
    assert judged(rows, tokens, "transformers", SamplingParams(top_p=0.9))[0] != "inconsistent"
    assert judged(rows, tokens, "transformers", SamplingParams(do_sample=False))[0] == "consistent"


def test_counting_and_skewness_against_simulation() -> None:
    random = np.random.default_rng(0)
    probs = random.random(30) * 0.3
    counts = (random.random((200_000, 30)) < probs).sum(axis=1)
    assert at_most(probs, 2) == pytest.approx((counts <= 2).mean(), abs=4e-3)
    sums = random.gamma(5.0, 1.0, 200_000)
    z = (sums - 5) / np.sqrt(5)
    upper = np.array([skewed_tails(float(value), 2 / np.sqrt(5))[1] for value in z[:2000]])
    assert upper.mean() == pytest.approx(0.5, abs=0.03)
    assert (upper < 0.0228).mean() == pytest.approx(0.0228, abs=0.01)


def test_the_steps_of_a_program(tmp_path: Path, llmdoctor: Run) -> None:
    arguments = write_case(tmp_path, 1, 60, ("transformers", SamplingParams()), {"engine": "transformers", "top_p": 0.9, "top_k": 0})
    outcome = llmdoctor(*arguments, "--format", "json", cwd=tmp_path)
    result = outcome.report["result"]
    assert outcome.code == 1
    assert result["verdict"] == "inconsistent"
    assert len(result["steps"]) == 60
    bad = [step for step in result["steps"] if not step["possible"]]
    assert bad
    assert all(step["mass_before"] > 0.9 and step["logprob_processed"] is None and step["removed_by"] == "top_p" for step in bad)
    good = next(step for step in result["steps"] if step["possible"])
    assert good["stages"][0]["name"] == "top_p"
    assert good["logprob_processed"] >= good["logprob_raw"]
    assert {test["name"] for test in result["tests"]} >= {"impossible_tokens", "log_likelihood_z", "temperature_lr", "crossing_token"}
    assert outcome.report["findings"][0]["code"] == "SMP001"


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        (
            {"rows": 6},
            (
                "step token rank before p raw p support entropy removed by 10 1095 5 0.913 0.0194 0 4 1.02 top_p",
                "52 58 21 0.758 0.0052 0.0058 108 2.65",
                "Evidence mass before the drawn token, tokens 0.0 ######################################## 59",
                "Next the same command with --step 10",
            ),
        ),
        (
            {"step": 3},
            ("step 3 logits top_p 147 0.6745 0.7461 drawn", "423 0.0091 - support 1,500 7 mass kept 1.0000 0.9041"),
        ),
        (
            {"dtype": "bfloat16", "rows": 0},
            ("Evidence the same logits rounded to bfloat16, 80 steps: the largest is tied in 0; the support differs in 5",),
        ),
    ],
    ids=["table", "step", "dtype"],
)
def test_the_screens(tmp_path: Path, extra: dict[str, Any], parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(tmp_path, 2, 80, ("transformers", SamplingParams()), {"engine": "transformers", "top_p": 0.9})
    monkeypatch.chdir(tmp_path)
    options = ReplayOptions(logits="logits.npy", tokens="tokens.json", claim="claim.json", **extra)
    read_in_order(
        render(replay_report(options), "text", Style(width=80)),
        "Inconsistent with transformers 5.23.0, top_p 0.9: 5 of 80 tokens are impossible, the first at step 10, removed by top_p",
        "error SMP001",
        "Cause most likely transformers, temperature 1 (no impossible token",
        "Fix Claim what was used (transformers, temperature 1)",
        "step 10 token 1095 rank 5, mass before it 0.913, removed by top_p",
        "Estimate temperature 1.09 [0.93, 1.28], top_p at least 0.965, or off, top_k at least 111, or off",
        "impossible_tokens 5 0",
        "repeated_tokens 2 0.8",
        *parts,
    )


CLAIMS: list[tuple[Any, list[str], str]] = [
    ({"temperature": 0.7}, ["--temperature", "0.9"], "contradictory claims"),
    ({"engine": "vllm"}, ["--engine", "sglang"], "contradictory claims"),
    ({}, ["--greedy", "--top-p", "0.9"], "contradictory claims"),
    ({"engine": "vllm", "temperature": 3.0}, [], "refuses this claim"),
    ({"engine": "nobody"}, [], "expected one of"),
    ({"temperature": "hot"}, [], "finite number"),
    ({"top_k": 2.5}, [], "whole number"),
    ({"do_sample": "yes"}, [], "true or false"),
    ([1], [], "expected an object"),
    ("{", [], "not JSON"),
]


@pytest.mark.parametrize(("claim", "options", "said"), CLAIMS, ids=lambda value: "")
def test_claims_that_cannot_be_asked(claim: Any, options: list[str], said: str, tmp_path: Path, llmdoctor: Run) -> None:
    arguments = write_case(tmp_path, 1, 5, ("transformers", SamplingParams()), {})
    (tmp_path / "claim.json").write_text(claim if isinstance(claim, str) else json.dumps(claim))
    outcome = llmdoctor(*arguments, *options, cwd=tmp_path)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_a_claim_from_a_trace_a_model_and_a_request(tmp_path: Path) -> None:
    trace = [{"kind": "run"}, {"kind": "generate", "effective": {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9}}]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, trace)))
    (tmp_path / "request.json").write_text(json.dumps({"model": "m", "temperature": 0.3, "extra_body": {"top_k": 7}}))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "eos_token_id": 2}')

    def claimed(settings: SamplingParams | None = None, **options: Any) -> SamplingParams:
        return make_claim(ReplayOptions(settings=settings or SamplingParams(), **options)).settings

    assert claimed(claim=str(tmp_path / "run.jsonl")) == SamplingParams(temperature=0.7, top_k=50, top_p=0.9)
    assert claimed(claim=str(tmp_path / "request.json"), engine="vllm") == SamplingParams(temperature=0.3, top_k=7)
    model = str(tmp_path / "model")
    assert claimed(SamplingParams(top_p=0.9), model=model) == SamplingParams(temperature=0.6, top_k=50, top_p=0.9)
    assert claimed(SamplingParams(temperature=1.0, top_k=0), model=model) == SamplingParams(temperature=1.0)
    assert claimed(engine="vllm", model=model) == SamplingParams(temperature=0.6)
    assert claimed(engine="llama.cpp", model=model) == SamplingParams()
    (tmp_path / "model" / "generation_config.json").write_text('{"temperature": 0.6}')
    assert claimed(model=model) == SamplingParams(do_sample=False)
    assert claimed(engine="vllm", model=model) == SamplingParams(temperature=0.6)
    with pytest.raises(QuestionError, match="holds 1 generate"):
        claimed(claim=str(tmp_path / "run.jsonl") + "#4")


CODE = "from vllm import SamplingParams\n\nparams = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=64, seed=None)\n"
TEXTS = {
    "claim.py": CODE,
    "claim.txt": "SamplingParams(n=1, temperature=0.7, top_p=0.9, top_k=0)",
    "claim.yaml": "engine: vllm\ntemperature: 0.7\ntop_p: 0.9\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_claims_as_code_and_yaml(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXTS[name])
    claim = make_claim(ReplayOptions(claim=str(tmp_path / name)))
    assert (claim.engine.name, claim.settings) == ("vllm", SamplingParams(temperature=0.7, top_p=0.9))


def test_a_claim_in_code_that_is_not_literal(tmp_path: Path) -> None:
    (tmp_path / "claim.py").write_text("SamplingParams(temperature=float(text))")
    with pytest.raises(QuestionError, match="temperature is not a literal"):
        make_claim(ReplayOptions(claim=str(tmp_path / "claim.py")))


def test_banned_tokens_are_modelled() -> None:
    rows = make_rows(13, 120, 300) * np.float32(0.4)
    rows[:, 7] = rows.max(axis=1) - np.float32(0.3)
    never = SamplingParams(suppress_tokens=(7,))
    early = SamplingParams(min_tokens=120, stop_token_ids=(7,))
    tokens = make_tokens(13, rows, "transformers", never)
    assert judged(rows, tokens, "transformers", never)[0] != "inconsistent"
    assert judged(rows, tokens, "vllm", early)[0] != "inconsistent"
    assert judged(rows, tokens, "vllm", SamplingParams())[1] == "never_drawn"
    assert judged(rows, [7, *tokens[1:]], "vllm", early)[1] == "impossible_tokens"


def test_greedy_decoding_is_named() -> None:
    rows = make_rows(11, 150)
    outcome, _, found = judged(rows, [int(row.argmax()) for row in rows], "vllm", NUCLEUS)
    assert outcome == "inconsistent"
    assert (found.fits[0].settings.do_sample, found.fits[0].settings.top_k, found.law, found.intervals) == (False, 1, None, {})


@pytest.mark.parametrize(
    ("truth", "claim"),
    [
        (("vllm", SamplingParams(temperature=0.8, top_p=0.9)), ("vllm", NUCLEUS)),
        (("vllm", SamplingParams(top_k=20)), ("vllm", SamplingParams())),
        (("vllm", SamplingParams(top_k=20, top_p=0.7)), ("sglang", SamplingParams(top_k=20, top_p=0.7))),
        (("vllm", SamplingParams(min_p=0.1)), ("vllm", SamplingParams())),
    ],
    ids=["temperature", "top_k", "order", "min_p"],
)
def test_the_truth_is_the_first_fit(truth: tuple[str, SamplingParams], claim: tuple[str, SamplingParams]) -> None:
    rows = make_rows(12, 500)
    outcome, _, found = judged(rows, make_tokens(12, rows, *truth), *claim)
    best = found.fits[0]
    assert (outcome, best.law) == ("inconsistent", None)
    assert best.settings.top_k == truth[1].top_k
    assert best.settings.top_p == pytest.approx(truth[1].top_p, abs=0.02) if truth[1].top_p else best.settings.top_p is None
    seen, wanted = found.intervals["temperature"], truth[1].temperature or 1.0
    assert seen.low <= wanted <= seen.high


def test_a_batch_has_one_verdict(tmp_path: Path) -> None:
    rows = np.stack([make_rows(seed, 40, 400) for seed in range(6)], axis=1)
    tokens = np.array([make_tokens(seed, rows[:, seed], "vllm", SamplingParams(temperature=0.6)) for seed in range(6)])
    tokens[5] = tokens[4]
    rows[:, 5] = rows[:, 4]
    np.savez(tmp_path / "batch.npz", logits=rows, tokens=tokens)
    wrong = replay_report(ReplayOptions(logits=str(tmp_path / "batch.npz"), engine="vllm"))
    assert wrong.result is not None
    assert wrong.result["verdict"] == "inconsistent"
    assert (len(wrong.result["sequences"]), wrong.result["repeats"], len(wrong.result["steps"])) == (5, [[4, 5]], 200)
    true = replay_report(ReplayOptions(logits=str(tmp_path / "batch.npz"), engine="vllm", settings=SamplingParams(temperature=0.6)))
    assert true.result is not None
    assert true.result["verdict"] == "consistent"
    one = replay_report(ReplayOptions(logits=str(tmp_path / "batch.npz"), engine="vllm", sequence=1))
    assert one.result is not None
    assert len(one.result["steps"]) == 40


def test_candidates_that_the_tokens_do_not_tell_apart_are_all_named(tmp_path: Path) -> None:
    """min_p after a temperature keeps what is within T log(min_p) of the largest: T .7 with .1 and T 1 with .2 have nearly one support."""
    words = {"engine": "vllm", "temperature": 1.0, "min_p": 0.1}
    arguments = write_case(tmp_path, 20, 300, ("vllm", SamplingParams(temperature=1.0, min_p=0.2)), words)
    logits, tokens, claim = (str(tmp_path / arguments[at]) for at in (2, 4, 6))
    report = replay_report(ReplayOptions(logits=logits, tokens=tokens, claim=claim))
    assert report.result is not None
    cause = str(report.findings[0].cause)
    assert cause.startswith("not decided, within 3 nats of each other: ")
    assert "min_p 0.2" in cause
    assert report.result["margin"] < 3
    low, high = (report.result["estimate"]["min_p"][key] for key in ("low", "high"))
    assert low <= 0.2 <= high
