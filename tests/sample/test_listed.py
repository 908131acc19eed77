"""Top-n log-probabilities: the intervals hold the truth, verdicts without false precision, every engine's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmdoctor.report import Style, render
from llmdoctor.requests.listed import Listed
from llmdoctor.requests.logprob_files import read_responses
from llmdoctor.sample.bounds import ListedLaw, arrays_of, bound_supports
from llmdoctor.sample.listed_report import listed_report
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.stages import run
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome
from tests.reading import read_in_order
from tests.sample.simulate import make_rows, make_tokens


def logs(row: np.ndarray) -> np.ndarray:
    x = row.astype(np.float64) - row.max()
    return x - np.log(np.exp(x).sum())


def listed(row: np.ndarray, token: int, n: int) -> Listed:
    values = logs(row)
    top = np.argsort(-values)[:n]
    return Listed(str(token), float(values[token]), tuple((str(at), float(values[at])) for at in top))


def chat(rows: np.ndarray, tokens: list[int], n: int) -> dict[str, Any]:
    steps = [listed(row, token, n) for row, token in zip(rows, tokens, strict=True)]
    content = [
        {"token": one.token, "logprob": one.logprob, "top_logprobs": [{"token": name, "logprob": value} for name, value in one.top]}
        for one in steps
    ]
    return {"choices": [{"logprobs": {"content": content}}]}


@settings(max_examples=200, deadline=None)
@example(seed=27, n=7, engine="sglang", temperature=0.7, top_p=None, top_k=40, min_p=None, place=0)  # a float32 sum of more than 1
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 30),
    engine=st.sampled_from(["vllm", "transformers", "sglang", "llama.cpp"]),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.5]),
    top_p=st.sampled_from([None, 0.5, 0.9]),
    top_k=st.sampled_from([None, 5, 40]),
    min_p=st.sampled_from([None, 0.03, 0.2]),
    place=st.integers(0, 60),
)
def test_the_intervals_hold_the_truth(
    seed: int, n: int, engine: str, temperature: float, top_p: float | None, top_k: int | None, min_p: float | None, place: int
) -> None:
    """Against the engine's own stages on the whole row."""
    row = make_rows(seed, 1, 400)[0]
    order = np.argsort(-row)
    token = int(order[place])
    wanted = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    kept = run(ENGINES[engine], wanted, row)[-1].row
    probs = kept.probs(len(row))
    arrays = arrays_of([listed(row, token, n)])
    law = ListedLaw.of("raw", ENGINES[engine], wanted)
    found = bound_supports(arrays, law)
    kept_ids = set(map(int, kept.tokens()))
    sure = {int(order[at]) for at in np.flatnonzero(found.sure[0])}
    maybe = {int(order[at]) for at in np.flatnonzero(found.maybe[0])}
    assert sure <= kept_ids
    assert kept_ids & set(map(int, order[:n])) <= maybe
    assert found.tail[0] or not kept_ids - set(map(int, order[:n]))
    if probs[token] > 0:
        assert found.removed[0] == ""
    least, most = found.outside()
    outside = 1 - sum(probs[at] for at in sure)
    assert least[0] - 1e-6 <= outside <= most[0] + 1e-6
    if top_p is None and engine != "sglang":
        return
    basis = row.astype(np.float64) / (1.0 if engine == "llama.cpp" else temperature)
    weights = np.exp(basis - basis.max())
    if engine != "sglang":
        mask = np.zeros(len(row), bool)
        mask[order[: top_k or len(row)]] = True
        if engine == "vllm" and min_p:
            mask &= basis >= basis.max() + np.log(min_p)
        weights = weights * mask
    before = weights[order[:place]].sum() / weights.sum()
    assert found.before[0, 0] - 1e-4 <= before <= found.before[0, 1] + 1e-4


def test_a_stored_request_is_the_claim(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    rows = make_rows(1, 200)
    for name, truth, verdict, code in (("good", SamplingParams(top_p=0.9), "consistent", 0), ("bad", SamplingParams(), "inconsistent", 1)):
        record = {"request": {"temperature": 1.0, "top_p": 0.9}, "response": chat(rows, make_tokens(1, rows, "vllm", truth), 20)}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
        outcome = llmdoctor("sample", "replay", f"{name}.jsonl", "--format", "json", cwd=tmp_path)
        assert (outcome.code, outcome.report["result"]["verdict"]) == (code, verdict)
        assert outcome.report["result"]["claim"]["settings"] == {"temperature": 1.0, "top_p": 0.9}
        assert all(isinstance(step["mass_before"], list) for step in outcome.report["result"]["steps"])


@pytest.mark.parametrize("temperature", [0.4, 1.8])
def test_another_temperature_is_told_from_the_list_alone(temperature: float, tmp_path: Path) -> None:
    rows = make_rows(2, 300)
    tokens = make_tokens(2, rows, "vllm", SamplingParams(temperature=temperature))
    (tmp_path / "r.json").write_text(json.dumps(chat(rows, tokens, 20)))
    result = listed_report(ReplayOptions(logits=str(tmp_path / "r.json"))).result
    assert result is not None
    assert result["verdict"] == "inconsistent"
    seen = result["estimate"]["temperature"]
    assert seen["low"] / 1.1 <= temperature <= seen["high"] * 1.1


def test_a_kind_is_not_guessed(tmp_path: Path) -> None:
    """vLLM documents raw ones: lists that are scaled leave the question open, and --kind settles it."""
    rows = make_rows(3, 300)
    settings_ = SamplingParams(temperature=0.6)
    tokens = make_tokens(3, rows, "vllm", settings_)
    found = {}
    for name, scaled, kind in (
        ("raw", rows, None),
        ("scaled", rows / np.float32(0.6), None),
        ("stated", rows / np.float32(0.6), "temperature"),
    ):
        (tmp_path / "r.json").write_text(json.dumps(chat(scaled, tokens, 20)))
        report = listed_report(ReplayOptions(logits=str(tmp_path / "r.json"), settings=settings_, kind=kind))
        assert report.result is not None
        assert report.verdict is not None
        found[name] = (report.result["logprobs"]["kind"], report.result["verdict"], report.result["estimate"] != {})
        assert ("if the log-probabilities are raw" in report.verdict.text) == (kind is None)
    assert found == {
        "raw": ("raw", "consistent", True),
        "scaled": ("raw", "undecided", False),
        "stated": ("temperature", "undecided", False),
    }


def test_vllms_sglangs_and_the_old_format(tmp_path: Path) -> None:
    vllm = {"outputs": [{"token_ids": [5], "logprobs": [{"5": {"logprob": -2.0, "rank": 3}, "1": {"logprob": -0.5, "rank": 1}}]}]}
    sglang = {"meta_info": {"output_token_logprobs": [[-0.2, 7, "x"]], "output_top_logprobs": [[[-0.2, 7, "x"], [-1.9, 3, "y"]]]}}
    old = {"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": -2.5}]}}]}
    found = []
    for name, value in (("v", vllm), ("s", sglang), ("o", old)):
        (tmp_path / name).write_text(json.dumps(value))
        found.append(read_responses(str(tmp_path / name)))
    assert found[0].steps[0] == Listed("5", -2.0, (("1", -0.5), ("5", -2.0)), 3)
    assert found[1].steps[0].top == (("7", -0.2), ("3", -1.9))
    assert found[2].steps[0].top == (("a", -0.1), ("b", -2.5))
    assert [one.engine for one in found] == ["vllm", "sglang", ""]


def test_a_sampling_mask_settles_the_support(tmp_path: Path) -> None:
    rows = make_rows(4, 3)
    tokens = [int(row.argmax()) for row in rows]
    response = {**chat(rows, tokens, 5), "sampling_mask": [[tokens[0]], [tokens[1], 3], [0 if tokens[2] else 1]]}
    (tmp_path / "r.json").write_text(json.dumps(response))
    result = listed_report(ReplayOptions(logits=str(tmp_path / "r.json"), settings=SamplingParams(top_p=0.9))).result
    assert result is not None
    assert [step["removed_by"] for step in result["steps"]] == [None, None, "sampling_mask"]


@pytest.mark.parametrize("text", ["{}", '{"choices": [{"logprobs": {"content": [{}]}}]}', '{"choices": 3}', '{"a": 1}\n{"b"'])
def test_what_is_no_response(text: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    outcome = llmdoctor("sample", "replay", "r.jsonl", cwd=tmp_path)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


def test_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = make_rows(5, 60)
    record = {"request": {"top_p": 0.9}, "response": chat(rows, make_tokens(5, rows, "vllm", SamplingParams()), 20)}
    Path("r.jsonl").write_text(json.dumps(record))
    read_in_order(
        render(listed_report(ReplayOptions(logits="r.jsonl", rows=4)), "text", Style(width=80)),
        "Inconsistent with vllm 0.33.0, top_p 0.9: 1 of 60 tokens are impossible whatever the unlisted ones are, the first at step 5, removed by top_p",
        "error SMP001",
        "Kind log-probabilities read as raw, the documented default of vllm 0.33.0, assumed because no engine is stated",
        "Estimate temperature 1.21 (95%: 0.83 to 2.01), from the listed tokens alone",
        "step token rank mass before support removed by 5 1361 2 0.954 1 top_p 40 185 over 20 0.651 to 1.000 20 to ...",
        "Limits 20 log-probabilities per step are listed; mass and support are bounds",
    )
