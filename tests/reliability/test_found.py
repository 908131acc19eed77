"""What mutated inputs brought to light once: each ends in an answer or in one sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.mask.models import CONFIGS
from tests.reliability.cases import DEEPSPEED, PHASE, _word_tokenizer
from tests.reliability.harness import harnessed, run, write

HUGE = 10**400
LLAMA = json.dumps(CONFIGS["llama"])
RESPONSE = {
    "choices": [{"logprobs": {"content": [{"token": "a", "logprob": -9000.0, "top_logprobs": [{"token": "b", "logprob": -9000.0}]}]}}]
}
WORDS = {
    "model/tokenizer.json": _word_tokenizer(),
    "model/tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer",
        "eos_token": "<|im_end|>",
        "chat_template": "{% for message in messages %}{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}",
    },
}
AXOLOTL = "base_model: model\ndatasets:\n  - {path: d, type: chat_template, field_messages: messages}\nsequence_len: 128\n"
STATES = "mem compare model --strategy deepspeed:zero2,bf16 --static --measured run.jsonl"


def line(**changes: Any) -> str:
    return json.dumps({**PHASE, **changes}) + "\n"


FOUND: list[tuple[str, dict[str, Any], int, str]] = [
    (
        "sample replay x.json --tokens t.json --claim c.json",
        {"x.json": [[1.0, 2.0]], "t.json": [1], "c.json": {"temperature": HUGE}},
        2,
        "finite",
    ),
    (
        "sample replay x.json --tokens t.json --claim c.json",
        {"x.json": [[1.0, 2.0]], "t.json": [1], "c.json": {"logit_bias": {"1": HUGE}}},
        2,
        "bias",
    ),
    ("sample replay --logprobs a.json --versus b.json", {"a.json": [-0.5], "b.json": [HUGE]}, 2, "log-probabilit"),
    ("sample replay --logprobs a.json --versus b.json", {"a.json": [-0.5, -1], "b.json": [-HUGE, -1]}, 0, "1 token"),
    ("sample engines --logits x.json", {"x.json": [1e300, 1]}, 2, "+inf"),
    ("sample replay x.json --tokens t.json --temperature 1e-320", {"x.json": [[1.0, 2.0]], "t.json": [1]}, 2, "float32"),
    ("sample replay x.json --tokens t.json --temperature 1e308", {"x.json": [[1.0, 2.0]], "t.json": [1]}, 2, "float32"),
    ("sample replay x.json --tokens t.json --temperature 1e29", {"x.json": [[1.0, 2.0]], "t.json": [1]}, 0, ""),
    ("sample replay x.json --tokens t.json --temperature 1e-29", {"x.json": [[1e30, 2.0]], "t.json": [1]}, 0, ""),
    ("sample replay x.json --tokens t.json --temperature 1", {"x.json": [[1.0, 2.0, -1.5e34]], "t.json": [1]}, 0, "Undecided"),
    (
        "sample replay x.json --tokens t.json --claim c.json",
        {"x.json": [[1.0, 2.0]], "t.json": [1], "c.json": {"engine": ["vllm"]}},
        2,
        "engine",
    ),
    (
        "gencfg trace --summary run.jsonl",
        {"run.jsonl": json.dumps({"kind": "run", "schema": "llmdoctor.trace/1", "seconds": HUGE}) + "\n"},
        0,
        "",
    ),
    ("mask inspect model --shape 1,4", {"model/config.json": {**CONFIGS["mistral"], "sliding_window": 2**63}}, 2, "sliding_window is"),
    ("sample replay r.json --temperature 0.01 --engine vllm", {"r.json": RESPONSE}, 0, "a"),
    ("sample replay r.json --temperature 2 --engine vllm", {"r.json": RESPONSE}, 0, "a"),
    (
        "mask inspect model --input-ids a.json",
        {"model/config.json": LLAMA, "a.json": {"input_ids": [[4], [5]], "attention_mask": [[1]]}},
        2,
        "rows",
    ),
    ("check", {".gitignore": "[z-a]\n", "a.py": ""}, 0, "1 Python"),
    ("mem measure --summary run.jsonl", {"run.jsonl": line(components={"params": "a", "grads": HUGE})}, 0, "MEASURED"),
    ("mem measure --summary run.jsonl", {"run.jsonl": line(peak={"bytes": 5, "by_site": [[1], 7, ["a", 5, 1]]})}, 0, "MEASURED"),
    ("mem measure --summary run.jsonl", {"run.jsonl": line(peak={"bytes": 5, "by_site": 7})}, 0, "MEASURED"),
    (STATES, {"model/config.json": LLAMA, "run.jsonl": line(phase={}, strategy=None) + line(components=[1])}, 0, ""),
    (
        "mem measure --snapshot s.pickle",
        {"s.pickle": pickle.dumps({"segments": [{"device": 0, "blocks": 5}], "device_traces": 1.5})},
        0,
        "DEVICE 0",
    ),
    (
        "mem measure --snapshot s.pickle",
        {"s.pickle": pickle.dumps({"segments": [{"device": -1}], "device_traces": {"a": 1}})},
        0,
        "DEVICE -1",
    ),
    (
        "mem compare model --strategy ds.json --static",
        {"model/config.json": LLAMA, "ds.json": {**DEEPSPEED, "zero_optimization": {"stage": 2, "reduce_bucket_size": "1e999"}}},
        2,
        "whole number",
    ),
    ("sample compare a.json b.json --temperature 0", {"a.json": [-0.5], "b.json": [-0.6]}, 2, "above 0"),
    (
        "labels audit model d.jsonl --trainer axolotl --config a.yml",
        {**WORDS, "a.yml": AXOLOTL, "d.jsonl": {"messages": "not JSON"}},
        0,
        "JSONDecodeError",
    ),
    (
        "labels audit model d.jsonl --trainer axolotl --config a.yml",
        {**WORDS, "a.yml": "base_model: model\ndatasets: [d]\n", "d.jsonl": {"messages": []}},
        2,
        "datasets[0]",
    ),
    (
        "labels audit model d.jsonl --trainer unsloth",
        {**WORDS, "model/tokenizer.json": b'{"model": }', "d.jsonl": {"text": "a"}},
        2,
        "tokenizer",
    ),
    ("labels audit model d.jsonl --trainer unsloth", {**WORDS, "d.jsonl": {"messages": -0.5}}, 2, "found float"),
    ("gencfg runaway o.jsonl", {"o.jsonl": {"type": "message", "content": [[1, 2]], "stop_reason": "end_turn"}}, 0, "1 sequence"),
    (
        "gencfg runaway o.jsonl",
        {"o.jsonl": {"type": "message", "content": [7, {"type": "text", "text": "a"}], "stop_reason": "end_turn"}},
        2,
        "no column",
    ),
    (
        "labels audit model d.jsonl",
        {**WORDS, "model/tokenizer_config.json": {"eos_token": "\ud800"}, "d.jsonl": {"text": "a"}},
        2,
        "surrogate",
    ),
    ("prompt diff model --messages d.json", {**WORDS, "d.json": [{"role": "user", "content": 7.5}]}, 2, "found float"),
    (
        "prompt diff model --messages d.json --left-kwargs " + "[" * 50_000,
        {**WORDS, "d.json": [{"role": "user", "content": "a"}]},
        2,
        "not JSON",
    ),
]


@pytest.mark.parametrize(("command", "files", "code", "said"), FOUND)
def test_found_once(command: str, files: dict[str, Any], code: int, said: str, tmp_path: Path) -> None:
    with harnessed(tmp_path):
        write(
            {
                name: data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
                for name, data in files.items()
            }
        )
        outcome = run(tuple(command.split()))
    assert outcome.fault == ""
    assert outcome.code in (code, 1 if code == 0 else code, 3 if code == 0 else code), outcome.err
    assert said.lower() in (outcome.err if code == 2 else outcome.out).lower()
