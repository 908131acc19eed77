"""Records that hold their prompt, or padding at their left: what stands in front of an answer is no terminator that was passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.gencfg.runaway.options import RunawayOptions
from llmdoctor.gencfg.runaway.runaway import runaway_report
from llmdoctor.requests.prompts import answers, ids_start, text_start

CHAT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
END, PAD, TURN = 11, 10, 12


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    tokens = {"<|endoftext|>": PAD, "<|im_end|>": END, "<|im_start|>": TURN}
    added = {str(number): {"content": text, "special": True} for text, number in tokens.items()}
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "added_tokens_decoder": added, "tokenizer_class": "Qwen2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, PAD], "pad_token_id": PAD}))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 400}))
    return str(folder)


def read(path: Path, records: list[Any], model: str | None = None) -> dict[str, Any]:
    path.write_text("\n".join(map(json.dumps, records)))
    result = runaway_report(RunawayOptions(path=str(path), model=model)).result
    assert result is not None
    return result


PROMPT = [TURN, 20, END, TURN, 21]
ANSWER = list(range(30, 60))
CASES: dict[str, dict[str, Any]] = {
    "ids beside it": {"prompt_ids": PROMPT, "output_ids": PROMPT + ANSWER},
    "vllm's name": {"prompt_token_ids": [5, END], "token_ids": [5, END, *ANSWER]},
    "no prompt beside it": {"token_ids": PROMPT + ANSWER},
    "padding at the left": {"token_ids": [PAD] * 4 + ANSWER},
    "padding and a prompt": {"token_ids": [PAD] * 4 + PROMPT + ANSWER},
    "text beside it": {"prompt": CHAT, "generated_text": CHAT + "an answer"},
    "text": {"generated_text": CHAT + "an answer"},
    "messages": {"generated_text": [{"role": "user", "content": "what is <|im_end|> x"}, {"role": "assistant", "content": "an answer"}]},
}


@pytest.mark.parametrize("name", CASES)
def test_what_stands_in_front_was_not_passed(name: str, model: str, tmp_path: Path) -> None:
    cut = [{**CASES[name], "finish_reason": "length"} for _ in range(8)]
    result = read(tmp_path / "o.jsonl", cut, model)
    assert (result["passed_terminators"], result["ended_by"]["length"]) == ([], 8)


@pytest.mark.parametrize("name", CASES)
def test_what_runs_on_behind_it_still_was(name: str, model: str, tmp_path: Path) -> None:
    record = json.loads(json.dumps(CASES[name]))
    for key, value in record.items():
        if key in ("output_ids", "token_ids"):
            record[key] = [*value, END, *range(70, 90)]
        elif key == "generated_text":
            if isinstance(value, list):
                value[-1]["content"] += "<|im_end|> and on and on"
            else:
                record[key] = value + "<|im_end|> and on and on"
    result = read(tmp_path / "o.jsonl", [{**record, "finish_reason": "length"}] * 8, model)
    assert [(entry["sequences"], entry["id"]) for entry in result["passed_terminators"]] == [(8, END)]
    assert result["passed_terminators"][0]["median_position"] in (
        len(ANSWER),
        len(ANSWER) + 1,
        len("an answer"),
        len("assistant\nan answer"),
    )


def test_where_an_answer_starts() -> None:
    assert text_start("<s>[INST] hi [/INST] there</s>") == len("<s>[INST] hi [/INST]")
    assert text_start("an answer about <|im_start|>") == 0
    assert text_start(CHAT + "x") == len("<|im_start|>user\nhi<|im_end|>\n<|im_start|>")
    assert ids_start(b"", frozenset(), {}, {}) == 0
    assert answers([{"role": "user"}, {"role": "assistant"}, {"role": "tool"}]) == [{"role": "assistant"}, {"role": "tool"}]
    assert answers([{"role": "assistant"}, {"role": "user"}]) == [{"role": "assistant"}, {"role": "user"}]
