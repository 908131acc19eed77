"""GEN017 to GEN020 and SMP006 over requests: what is told of one and of a batch, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.check.requests import check_requests
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.files.jsonfile import parse
from llmdoctor.files.project import ProjectSettings
from llmdoctor.gencfg.engines.vllm_checks import refusal
from llmdoctor.requests.request_files import read_batch, requests_in

MESSAGES = [{"role": "user", "content": "hi"}]


def findings(model: str = "m", endpoint: str = "/v1/chat/completions", **settings: Any) -> list[tuple[str, str]]:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 9, **settings}
    body = {key: value for key, value in body.items() if value is not ...}
    file = parse(json.dumps({"url": endpoint, "body": body}, indent=1).encode(), "r.json", "r.json")
    return [(finding.code, finding.message) for finding in check_requests(requests_in(file), LinkedFiles(ProjectSettings()))]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"temperature": -1}, "GEN017", "temperature must be non-negative, got -1"),
        ({"temperature": "warm"}, "GEN017", "refuses it"),
        ({"top_p": 0}, "GEN017", "top_p must be in (0, 1], got 0"),
        ({"top_k": 1.5}, "GEN017", "valid integer"),
        ({"stop": [""]}, "GEN017", "empty string"),
        ({"max_tokens": 0}, "GEN017", "max_tokens must be at least 1"),
        ({"min_tokens": 50}, "GEN017", "less than or equal to max_tokens=9"),
        ({"n": 3, "temperature": 0}, "GEN017", "n must be 1 when using greedy sampling"),
        ({"extra_body": {"repetition_penalty": 0}}, "GEN017", "repetition_penalty must be greater than zero"),
        ({"temperature": 0, "top_p": 0.9, "top_k": 40}, "GEN018", "temperature is 0, so top_p 0.9 and top_k 40 do nothing"),
        ({"max_completion_tokens": 5}, "GEN018", "max_tokens 9 is not read beside max_completion_tokens 5"),
        ({"stop": []}, "GEN018", "empty list"),
        ({"endpoint": "/v1/completions", "max_tokens": ..., "max_completion_tokens": 5}, "GEN018", "not known at /v1/completions"),
        ({"max_tokens": ...}, "GEN019", "may fill the context"),
        ({"endpoint": "/v1/completions", "max_tokens": ...}, "GEN019", "cut after 16 tokens"),
        ({"ignore_eos": True}, "GEN020", "runs to its 9 tokens"),
        ({"model": "gpt-4o", "temperature": 3}, "GEN017", "OpenAI takes a number from 0 to 2"),
        ({"model": "gpt-4o", "stop": ["a", "b", "c", "d", "e"]}, "GEN017", "holds 5 sequences, OpenAI takes at most 4"),
        ({"model": "o3-mini", "top_k": 5}, "GEN017", "OpenAI answers 400"),
    ],
)
def test_what_is_told(settings: dict[str, Any], code: str, words: str) -> None:
    found = [message for found, message in findings(**settings) if found == code]
    assert any(words in message for message in found), findings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "stop": ["\n"], "seed": 1, "n": 3},
        {"temperature": 2, "presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 1.3},
        {"temperature": "0.5", "top_p": 0.9},  # the server's pydantic model makes a number of it
        {"temperature": None, "top_p": None, "stop": None},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"model": "openai/gpt-4o", "top_k": 5},  # a router's, or a folder's name
        {"tools": [], "response_format": {"type": "json_object"}, "unknown": 1},
    ],
)
def test_what_is_left_alone(settings: dict[str, Any]) -> None:
    assert findings(**settings) == []


@pytest.mark.parametrize("body", [3, [], {"a": 1}, "x"])
def test_a_request_with_a_body_of_its_own(body: Any) -> None:
    """Found by the reliability harness: a key named body that is not a batch's."""
    value = {"model": "m", "messages": MESSAGES, "temperature": 0, "top_p": 0.9, "max_tokens": 5, "body": body}
    file = parse(json.dumps(value).encode(), "r.json", "r.json")
    found = check_requests(requests_in(file), LinkedFiles(ProjectSettings()))
    assert [finding.code for finding in found] == ["GEN018"]
    assert [edit.pointer for edit in found[0].edits] == ["/top_p"]


def test_the_limits_are_vllms() -> None:
    """The same function as gencfg show --engine vllm, which is held against vLLM's own rows."""
    assert "top_p" in str(refusal({**dict.fromkeys(("presence_penalty", "frequency_penalty", "min_p", "min_new_tokens"), 0), "top_p": 0,
        "num_return_sequences": 1, "repetition_penalty": 1, "temperature": 1, "top_k": 0, "max_new_tokens": 1, "stop_strings": None}))  # fmt: skip


def test_a_batch_tells_each_kind_of_request_once(tmp_path: Path) -> None:
    def line(number: int, **settings: Any) -> str:
        body = {"model": "m", "messages": [{"role": "user", "content": str(number)}], "max_tokens": 5, **settings}
        return json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"

    path = tmp_path / "batch.jsonl"
    path.write_text("".join(line(number, temperature=0, top_p=0.5 if number % 2 else 1) for number in range(1000)))
    requests = read_batch(str(path))
    assert isinstance(requests, tuple)
    assert [request.count for request in requests] == [500, 500]
    found = check_requests(requests, LinkedFiles(ProjectSettings()))
    assert [(finding.code, finding.location.line if finding.location else None) for finding in found] == [("GEN018", 2)]
    assert "(500 requests from line 2 on)" in found[0].message


@pytest.mark.parametrize(
    ("model", "settings", "names"),
    [
        ("model", {}, "temperature 0.6, top_k 20, repetition_penalty 1.1"),
        ("./model", {"temperature": 1, "top_k": 0}, "repetition_penalty 1.1"),
        ("model", {"temperature": 0}, "repetition_penalty 1.1"),
        ("model", {"temperature": 1, "top_k": 0, "repetition_penalty": 1}, None),
        ("other", {}, None),
    ],
)
def test_defaults_of_the_file(model: str, settings: dict[str, Any], names: str | None, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = {"temperature": 0.6, "top_k": 20, "top_p": 1.0, "repetition_penalty": 1.1}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(config))
    body = {"model": model, "messages": MESSAGES, "max_tokens": 9, **settings}
    path = tmp_path / "r.json"
    file = parse(json.dumps(body).encode(), str(path), str(path))
    found = [finding for finding in check_requests(requests_in(file), LinkedFiles(ProjectSettings())) if finding.code == "SMP006"]
    assert bool(found) == (names is not None)
    if names is not None:
        assert f"vLLM takes {names} from" in found[0].message


def test_the_responses_api_has_a_limit_of_its_own() -> None:
    body = {"model": "gpt-5", "input": "hi", "max_output_tokens": 100, "temperature": 0.5}
    file = parse(json.dumps(body).encode(), "r.json", "r.json")
    assert check_requests(requests_in(file), LinkedFiles(ProjectSettings())) == ()
