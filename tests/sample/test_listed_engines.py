"""Lists as the engines make them: the drawn token beside the likeliest, the engine's own order, documented forms, one claim a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.requests.logprob_files import read_responses
from llmdoctor.sample.listed_report import listed_report
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome
from tests.sample.simulate import make_rows, make_tokens
from tests.sample.test_listed import chat, logs


def as_vllm(rows: np.ndarray, tokens: list[int], n: int, form: str) -> dict[str, Any]:
    """vLLM's dict of a step holds the drawn token, then the n likeliest; its chat server shows the first n of them."""
    steps = []
    for row, token in zip(rows, tokens, strict=True):
        values = logs(row)
        order = [int(at) for at in np.argsort(-values)]
        steps.append({at: (float(values[at]), order.index(at) + 1) for at in [token, *order[:n]]})
    if form == "outputs":
        listed = [{str(at): {"logprob": value, "rank": rank} for at, (value, rank) in step.items()} for step in steps]
        return {"outputs": [{"token_ids": tokens, "logprobs": listed}]}
    if form == "completion":
        tops = [{f"t{at}": value for at, (value, _) in step.items()} for step in steps]
        own = [step[token][0] for step, token in zip(steps, tokens, strict=True)]
        return {"choices": [{"logprobs": {"tokens": [f"t{token}" for token in tokens], "token_logprobs": own, "top_logprobs": tops}}]}
    content = [
        {
            "token": f"t{token}",
            "logprob": step[token][0],
            "top_logprobs": [{"token": f"t{at}", "logprob": value} for at, (value, _) in list(step.items())[:n]],
        }
        for step, token in zip(steps, tokens, strict=True)
    ]
    return {"choices": [{"logprobs": {"content": content}}]}


def result(path: Path, value: Any, **options: Any) -> dict[str, Any]:
    path.write_text(json.dumps(value))
    found = listed_report(ReplayOptions(logits=str(path), **options)).result
    assert found is not None
    return found


@pytest.mark.parametrize("form", ["chat", "completion", "outputs"])
@pytest.mark.parametrize("n", [1, 5])
def test_a_drawn_token_beside_the_list_accuses_nobody(form: str, n: int, tmp_path: Path) -> None:
    for seed, truth in enumerate((SamplingParams(), SamplingParams(top_k=50), SamplingParams(temperature=0.7, top_p=0.95))):
        rows = make_rows(seed, 250, 600)
        tokens = make_tokens(seed, rows, "vllm", truth)
        found = result(tmp_path / "r.json", as_vllm(rows, tokens, n, form), settings=truth, engine="vllm")
        assert found["verdict"] == ("consistent" if n == 5 else "undecided"), found["reason"]


def test_a_wrong_claim_is_still_told_from_such_lists(tmp_path: Path) -> None:
    rows = make_rows(3, 250, 600)
    hot = as_vllm(rows, make_tokens(3, rows, "vllm", SamplingParams()), 5, "chat")
    assert result(tmp_path / "r.json", hot, settings=SamplingParams(top_p=0.8), engine="vllm")["verdict"] == "inconsistent"
    cold = as_vllm(rows, make_tokens(3, rows, "vllm", SamplingParams(temperature=0.4)), 5, "outputs")
    assert result(tmp_path / "r.json", cold, engine="vllm")["verdict"] == "inconsistent"


CHANGED = [
    (SamplingParams(repetition_penalty=1.3), "vllm"),
    (SamplingParams(frequency_penalty=0.8), "vllm"),
    (SamplingParams(logit_bias={3: 5.0, 4: 5.0}), "vllm"),
    (SamplingParams(typical_p=0.5), "transformers"),
]


@pytest.mark.parametrize(("truth", "engine"), CHANGED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_raw_lists_do_not_show_is_undecided(truth: SamplingParams, engine: str, tmp_path: Path) -> None:
    rows = (make_rows(7, 1, 300) * 0.7 + make_rows(8, 120, 300) * 0.5).astype(np.float32)
    response = chat(rows, make_tokens(8, rows, engine, truth), 20)
    found = result(tmp_path / "r.json", response, settings=truth, engine=engine)
    assert (found["verdict"], found["more_tokens"]) == ("undecided", None)
    assert next(iter(truth.named())) in found["reason"] or "cannot be told" in found["reason"]


@pytest.mark.parametrize("temperature", [None, 0.7, 1.5])
def test_llama_cpp_cuts_before_its_temperature(temperature: float | None, tmp_path: Path) -> None:
    truth = SamplingParams(temperature=temperature, top_p=0.8)
    for seed in range(4):
        rows = make_rows(seed, 150, 600)
        response = chat(rows, make_tokens(seed, rows, "llama.cpp", truth), 20)
        found = result(tmp_path / "r.json", response, settings=truth, engine="llama.cpp")
        assert found["verdict"] != "inconsistent", found["reason"]
        assert found["logprobs"]["kind"] == "raw"


STEP = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.0}]}
NUMBERED = {"id": 5, "token": "a", "logprob": -0.5, "top_logprobs": [{"id": 5, "logprob": -0.5}, {"id": 6, "logprob": -1.0}]}
AFTER = {"id": 5, "token": "a", "prob": 0.75, "top_probs": [{"id": 5, "prob": 0.75}, {"id": 6, "prob": 0.25}]}
TRT = {"5": {"logprob": -0.5, "rank": 1}, "6": {"logprob": -1.0, "rank": 2}}
OLD = {"content": "a", "probs": [{"tok_str": "a", "prob": 0.75}, {"tok_str": "b", "prob": 0.25}]}
BODY = {"status_code": 200, "body": {"choices": [{"logprobs": {"content": [STEP]}}]}}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "a", "logprobs": [STEP]}]}]
TOKENS = [{"id": 5, "text": "a", "logprob": -0.5}]
FORMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "batch": ({"custom_id": "r", "response": BODY}, "a", ""),
    "responses": ({"object": "response", "temperature": 0.5, "output": OUTPUT}, "a", ""),
    "llama.cpp": ({"content": "a", "completion_probabilities": [NUMBERED]}, "5", "llama.cpp"),
    "llama.cpp after": ({"completion_probabilities": [AFTER]}, "5", "llama.cpp"),
    "llama.cpp old": ({"completion_probabilities": [OLD]}, "a", "llama.cpp"),
    "tensorrt-llm": (
        {"outputs": [{"token_ids": [5], "logprobs": [{"5": {"logprob": -0.5, "rank": 1}, "6": {"logprob": -1.0, "rank": 2}}]}]},
        "5",
        "vllm",
    ),
    "ollama": ({"model": "m", "response": "a", "logprobs": [STEP]}, "a", ""),
    "tgi": ({"details": {"tokens": TOKENS, "top_tokens": [[*TOKENS, {"id": 6, "logprob": -1.0}]]}}, "5", "tgi"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_documented_forms(name: str, tmp_path: Path) -> None:
    value, token, engine = FORMS[name]
    (tmp_path / "r.jsonl").write_text(json.dumps(value) + "\n")
    found = read_responses(str(tmp_path / "r.jsonl"))
    assert (found.engine, found.steps[0].token, len(found.steps[0].top)) == (engine, token, 2)
    assert found.steps[0].logprob == pytest.approx(np.log(0.75) if name in ("llama.cpp after", "llama.cpp old") else -0.5)
    assert found.requests[0][1] == ({"temperature": 0.5} if name == "responses" else None)


def test_each_group_of_settings_is_judged(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    lines = []
    for seed, claimed in enumerate((1.0, 1.0, 0.3)):
        rows = make_rows(seed, 120, 600)
        response = chat(rows, make_tokens(seed, rows, "vllm", SamplingParams()), 20)
        lines.append({"request": {"temperature": claimed, "messages": [seed]}, "response": response})
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    outcome = llmdoctor("sample", "replay", "r.jsonl", "--kind", "raw", "--format", "json", cwd=tmp_path)
    assert outcome.code == 1
    groups = outcome.report["result"]["groups"]
    assert [(len(group["requests"]), group["outcome"]) for group in groups] == [(2, "consistent"), (1, "inconsistent")]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines[:2])))
    assert llmdoctor("sample", "replay", "r.jsonl", cwd=tmp_path).code == 0


def test_the_prompt_of_an_echo_is_not_judged(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    names, values = ["a", "b", "c", "d"], [None, -9.0, -0.5, -0.5]
    tops = [None, {"x": -0.1}, {"c": -0.5, "x": -1.0}, {"d": -0.5, "x": -1.0}]
    logprobs = {"tokens": names, "token_logprobs": values, "top_logprobs": tops}
    whole = {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    (tmp_path / "r.json").write_text(json.dumps(whole))
    found = read_responses(str(tmp_path / "r.json"))
    assert ([step.token for step in found.steps], len(found.notes)) == (["c", "d"], 1)
    (tmp_path / "r.json").write_text(json.dumps({"choices": whole["choices"]}))
    outcome = llmdoctor("sample", "replay", "r.json", cwd=tmp_path)
    assert (outcome.code, "echo" in outcome.err) == (2, True)


def test_an_event_stream_is_one_response(tmp_path: Path) -> None:
    chunks = [{"id": "x", "choices": [{"index": 0, "logprobs": {"content": [STEP]}}]} for _ in range(3)]
    (tmp_path / "r.sse").write_text("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n")
    found = read_responses(str(tmp_path / "r.sse"))
    assert (len(found.steps), found.sizes) == (3, [3])


@pytest.mark.parametrize(
    "text",
    [
        '{"sampling_mask": [[Infinity]], "choices": []}',
        '{"outputs": [{"token_ids": [5], "logprobs": [{"5": {"logprob": -1, "rank": Infinity}}]}]}',
        '{"choices": [{"logprobs": {"content": [{"token": "a", "logprob": -1' + "0" * 400 + "}]}}]}",
        '{"choices": [null]}',
    ],
)
def test_bad_values_are_one_sentence(text: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / "r.json").write_text(text)
    outcome = llmdoctor("sample", "replay", "r.json", cwd=tmp_path)
    assert outcome.code == 2
    assert "r.json:1: not a response with log-probabilities" in outcome.err
    assert "Error" not in outcome.err
