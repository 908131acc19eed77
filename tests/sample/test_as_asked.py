"""Answers that are what was asked for: what a call leaves to its engine, shared seeds, constrained answers, texts of several tokens, versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.requests.logprob_files import read_responses
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.engines import engines_report
from llmdoctor.sample.keys import read_keys
from llmdoctor.sample.known_engines import find_engine
from llmdoctor.sample.listed_report import listed_report
from llmdoctor.sample.options import EnginesOptions, ReplayOptions
from llmdoctor.sample.replay import replay_report
from llmdoctor.sample.tables import LLAMA_CPP
from llmdoctor.sample.types import SamplingParams, TokenContext
from llmdoctor.sample.unset import other_readings
from tests.sample.simulate import make_rows, make_tokens
from tests.sample.test_listed import chat, listed

NUCLEUS = SamplingParams(temperature=0.7, top_p=0.9)


def answer(path: Path, *responses: dict[str, Any], request: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    path.write_text("\n".join(json.dumps(one if request is None else {"request": request, "response": one}) for one in responses))
    report = listed_report(ReplayOptions(logits=str(path), **options))
    assert report.result is not None
    return dict(report.result)


def flat_rows(count: int) -> np.ndarray:
    """Logits [count, 200] float32 of which a cut shows in few tokens."""
    return (1.5 * np.random.default_rng(3).standard_normal((count, 200))).astype(np.float32)


def test_a_request_to_llama_cpp_that_leaves_its_cuts_to_the_server_is_not_accused(tmp_path: Path) -> None:
    rows = flat_rows(120)
    tokens = make_tokens(5, rows, "llama.cpp", SamplingParams(temperature=0.7, top_k=40, top_p=0.95, min_p=0.05))
    steps = [listed(row, token, 100) for row, token in zip(rows, tokens, strict=True)]
    items = [
        {"id": int(one.token), "logprob": one.logprob, "top_logprobs": [{"id": int(name), "logprob": value} for name, value in one.top]}
        for one in steps
    ]
    response = {"completion_probabilities": items}
    found = answer(tmp_path / "a.jsonl", response, request={"temperature": 0.7})
    assert found["verdict"] == "undecided"
    assert "llama.cpp 0c1e570's own defaults for what is not set (top_k 40, top_p 0.95, min_p 0.05)" in found["reason"]
    off = {"temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert answer(tmp_path / "b.jsonl", response, request=off)["verdict"] == "inconsistent"


def test_a_call_of_generate_has_top_k_50(tmp_path: Path) -> None:
    rows = flat_rows(80)
    tokens = make_tokens(3, rows, "transformers", SamplingParams(top_k=50))
    np.savez(tmp_path / "hf.npz", logits=rows, tokens=np.array(tokens))
    (tmp_path / "call.py").write_text("GenerationConfig(do_sample=True, temperature=1.0, compile_config=CompileConfig())\n")
    report = replay_report(ReplayOptions(logits=str(tmp_path / "hf.npz"), claim=str(tmp_path / "call.py")))
    assert report.result is not None
    assert report.result["verdict"] != "inconsistent"
    off = ReplayOptions(logits=str(tmp_path / "hf.npz"), engine="transformers", settings=SamplingParams(temperature=1.0, top_k=0))
    stated = replay_report(off)
    assert stated.result is not None
    assert stated.result["verdict"] == "inconsistent"


def test_greedy_calls_and_engines_without_cuts_have_one_reading() -> None:
    assert not list(other_readings(Claim(LLAMA_CPP, SamplingParams(do_sample=False), "a test")))
    vllm = find_engine("vllm")
    assert vllm is not None
    assert not list(other_readings(Claim(vllm, NUCLEUS, "a test")))


def test_answers_with_a_shared_seed_are_one(tmp_path: Path) -> None:
    rows = make_rows(21, 120)
    one = chat(rows, make_tokens(21, rows, "vllm", NUCLEUS), 20)
    content = one["choices"][0]["logprobs"]["content"]
    four = {"choices": [{"index": index, "logprobs": {"content": content}} for index in range(4)]}
    for name, responses in (("seed", [one] * 8), ("n", [four])):
        found = answer(tmp_path / f"{name}.jsonl", *responses, engine="vllm", settings=NUCLEUS)
        assert found["verdict"] != "inconsistent"
        assert len(found["steps"]) == 120
        assert "left out: equal to an earlier one" in found["notes"][-1]
    short = {"choices": [{"logprobs": {"content": content[:2]}}]}
    assert len(answer(tmp_path / "short.jsonl", *[short] * 8, engine="vllm", settings=NUCLEUS)["steps"]) == 16  # chance repeats those


def test_a_stream_of_two_choices_is_two_sequences(tmp_path: Path) -> None:
    rows = make_rows(1, 12)
    content = chat(rows, make_tokens(1, rows, "vllm", NUCLEUS), 5)["choices"][0]["logprobs"]["content"]
    chunks = [{"id": "1", "choices": [{"index": at % 2, "logprobs": {"content": [item]}}]} for at, item in enumerate(content)]
    (tmp_path / "s.sse").write_text("\n\n".join(f"data: {json.dumps(chunk)}" for chunk in chunks))
    found = read_responses(str(tmp_path / "s.sse"))
    assert found.sizes == [6, 6]
    assert [step.token for step in found.steps] == [item["token"] for item in (*content[::2], *content[1::2])]


def test_an_object_by_text_keeps_one_of_several_tokens(tmp_path: Path) -> None:
    rows = make_rows(1, 300)
    tokens = make_tokens(1, rows, "vllm", NUCLEUS)
    steps = [listed(row, token, 20) for row, token in zip(rows, tokens, strict=True)]

    def text(token: str) -> str:
        return "same" if int(token) % 7 == 0 else f"t{token}"

    tops = [{text(name): value for name, value in one.top} for one in steps]  # the less likely one is kept
    logprobs = {"tokens": [text(one.token) for one in steps], "token_logprobs": [one.logprob for one in steps], "top_logprobs": tops}
    found = answer(tmp_path / "a.json", {"choices": [{"logprobs": logprobs}]}, engine="vllm", settings=NUCLEUS)
    assert found["verdict"] != "inconsistent"
    assert "several tokens have one text" in found["notes"][0]


@pytest.mark.parametrize(
    ("request_body", "name"),
    [
        ({"best_of": 4, "n": 1}, "best_of"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "tools"),
        ({"thinking_token_budget": 100}, "thinking_token_budget"),
        ({"logprob_token_ids": [1, 2]}, "logprob_token_ids"),
    ],
)
def test_answers_that_are_no_plain_draws(request_body: dict[str, Any], name: str) -> None:
    assert read_keys(request_body, "a request").unmodelled == [name]
    assert not read_keys(request_body, "a request", without=[name]).unmodelled


def test_plain_requests_are_plain() -> None:
    assert not read_keys({"best_of": 2, "n": 2, "tool_choice": "auto", "tools": [{"function": {"name": "f"}}]}, "a request").unmodelled


@pytest.mark.parametrize(
    ("name", "version", "known"),
    [
        ("vllm", "0.33.0", True),
        ("vllm@0.34.0", "0.33.0", False),
        ("vllm@0.10.2", "0.23.0 (read, not run)", True),
        ("vllm@0.5", "0.7.3 (V0 engine, read, not run)", False),
        ("sglang@0.4.3.post4", "0.4.3 (read, not run)", True),
        ("sglang@0.4.7", "0.4.7 (read, not run)", True),
        ("sglang@0.5.3", "0.5.9 (read, not run)", True),
        ("sglang@0.5.10", "0.5.23", True),
        ("llama.cpp@b9000", "0c1e570", True),
        ("llama.cpp@b4000", "0c1e570", False),
        ("tgi@3.3.4", "00cef24 (read, not run)", False),
    ],
)
def test_the_rules_of_a_version(name: str, version: str, known: bool) -> None:
    engine = find_engine(name)
    assert engine is not None
    assert (engine.version, engine.doubt == "") == (version, known)


def test_sglang_penalises_by_release(tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", np.array([[2.0, 1.0, 0.5]], np.float32))
    names = ("sglang@0.4.3", "sglang@0.5.3", "sglang")
    settings = SamplingParams(repetition_penalty=2.0)
    report = engines_report(
        EnginesOptions(logits=str(tmp_path / "row.npy"), settings=settings, engines=names, context=TokenContext((0,), (1,)))
    )
    assert report.result is not None
    engines = report.result["engines"]
    assert list(engines) == ["sglang@0.4.3", "sglang@0.5.3", "sglang@0.5.23"]
    first = {name: one["probs"] for name, one in engines.items()}
    plain = np.exp([2.0, 1.0, 0.5]) / np.exp([2.0, 1.0, 0.5]).sum()
    assert first["sglang@0.5.3"] == pytest.approx(plain)  # accepted, and read by nothing
    both, output = np.exp([1.0, 0.5, 0.5]), np.exp([2.0, 0.5, 0.5])
    assert first["sglang@0.4.3"] == pytest.approx(both / both.sum())
    assert first["sglang@0.5.23"] == pytest.approx(output / output.sum())


def test_an_unread_version_stands_in_the_verdict(tmp_path: Path) -> None:
    rows = make_rows(2, 40)
    np.savez(tmp_path / "a.npz", logits=rows, tokens=np.array(make_tokens(2, rows, "vllm", NUCLEUS)))
    report = replay_report(ReplayOptions(logits=str(tmp_path / "a.npz"), engine="vllm@9.1", settings=NUCLEUS))
    assert report.verdict is not None
    assert "vllm 9.1" in report.verdict.text
    assert "vllm 9.1 was not read: these are the rules of 0.33.0" in report.verdict.text


def test_temperatures_above_two_by_release(tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", np.array([[2.0, 1.0, 0.5]], np.float32))
    options = EnginesOptions(logits=str(tmp_path / "row.npy"), settings=SamplingParams(temperature=2.5), engines=("vllm@0.23", "vllm"))
    result = engines_report(options).result
    assert result is not None
    assert [one["error"] is None for one in result["engines"].values()] == [True, False]
