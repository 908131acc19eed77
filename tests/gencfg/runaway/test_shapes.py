"""One record of each engine and trainer, as their documentation and sources write it, comes to the right sequences."""

from __future__ import annotations

from typing import Any

import pytest

from llmdoctor.requests.sequences import Columns, OutputSequence, Unusable, ended, pack
from llmdoctor.requests.shapes import sequences_of

Expected = list[tuple[list[int] | None, str | None, int | None, str | None, int | None]]  # ids, text, tokens, said, limit

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": None}, "logprobs": None, "finish_reason": "length"}
    ],
    "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
}
BATCH = {"id": "b", "custom_id": "r-1", "response": {"status_code": 200, "request_id": "r", "body": CHAT}, "error": None}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "max_output_tokens": 16,
    "output": [
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Once", "annotations": []}]},
    ],
    "usage": {"input_tokens": 9, "output_tokens": 16},
}
VLLM = {  # dataclasses.asdict of vLLM's RequestOutput
    "request_id": "0",
    "prompt": "Hello",
    "prompt_token_ids": [1, 2],
    "outputs": [
        {"index": 0, "text": " a", "token_ids": [5, 6], "finish_reason": "stop", "stop_reason": None},
        {"index": 1, "text": " b", "token_ids": [7, 8], "finish_reason": "length", "stop_reason": None},
        {"index": 2, "text": " c", "token_ids": [7, 9], "finish_reason": "stop", "stop_reason": "\n\n"},
        {"index": 3, "text": " d", "token_ids": [7, 11], "finish_reason": "stop", "stop_reason": 11},
    ],
    "finished": True,
}
SGLANG = {
    "text": " Paris",
    "output_ids": [12095, 13],
    "meta_info": {"id": "x", "finish_reason": {"type": "length", "length": 2}, "prompt_tokens": 5, "completion_tokens": 2},
}
TGI = {
    "generated_text": "ok",
    "details": {"finish_reason": "eos_token", "generated_tokens": 2, "seed": None, "tokens": [{"id": 9, "text": "ok", "special": False}]},
}
LLAMA_CPP = {
    "content": " hi",
    "tokens": [],
    "stop": True,
    "stop_type": "limit",
    "tokens_predicted": 4,
    "generation_settings": {"n_predict": 4},
}
ANTHROPIC = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {"output_tokens": 3}}
TRL_CHAT = {
    "step": 10,
    "prompt": [{"role": "user", "content": "q"}],
    "completion": [{"role": "assistant", "content": "a"}],
    "advantage": 0.1,
}
LOGPROBS = {**CHAT["choices"][0], "logprobs": {"content": [{"token": "token_id:5", "logprob": -1}, {"token": "token_id:11", "logprob": 0}]}}  # type: ignore[index]

SHAPES: dict[str, tuple[Any, Expected]] = {
    "ids": ([5, 6, 11], [([5, 6, 11], None, 3, None, None)]),
    "ids and a limit": (
        {"token_ids": [5, 6], "finish_reason": "length", "max_tokens": 2},
        [([5, 6], None, 2, "length", 2)],
    ),
    "ids and text": ({"response_ids": [5], "response": "a"}, [([5], "a", 1, None, None)]),
    "ids left empty by the engine": ({"token_ids": [], "text": "a"}, [(None, "a", None, None, None)]),
    "an empty answer": ({"token_ids": [], "text": ""}, [([], "", 0, None, None)]),
    "text": ({"output": "a", "finish_reason": None}, [(None, "a", None, None, None)]),
    "a batch in one record": (
        {"completions": ["a", "b"], "finish_reasons": ["stop", "length"]},
        [(None, "a", None, "stop", None), (None, "b", None, "length", None)],
    ),
    "a batch of ids": ({"completion_ids": [[1, 2], [3]]}, [([1, 2], None, 2, None, None), ([3], None, 1, None, None)]),
    "a status that is none": ({"text": "a", "status": "reviewed"}, [(None, "a", None, None, None)]),
    "OpenAI chat": (CHAT, [(None, "Hi", 10, "length", None)]),
    "OpenAI text": (
        {"object": "text_completion", "choices": [{"text": "a", "index": 0, "finish_reason": "stop"}]},
        [(None, "a", None, "stop", None)],
    ),
    "OpenAI batch": (BATCH, [(None, "Hi", 10, "length", None)]),
    "OpenAI response": (RESPONSE, [(None, "Once", 16, "length", 16)]),
    "vLLM server, ids as logprobs": ({"choices": [LOGPROBS]}, [([5, 11], "Hi", 2, "length", None)]),
    "vLLM server, token_ids": (
        {"choices": [{"message": {"content": "a"}, "token_ids": [5, 11], "finish_reason": "stop", "stop_reason": None}]},
        [([5, 11], "a", 2, "eos", None)],
    ),
    "vLLM offline": (
        VLLM,
        [
            ([5, 6], " a", 2, "eos", None),
            ([7, 8], " b", 2, "length", None),
            ([7, 9], " c", 2, "stop", None),
            ([7, 11], " d", 2, "eos", None),
        ],
    ),
    "SGLang": (SGLANG, [([12095, 13], " Paris", 2, "length", None)]),
    "SGLang, stopped": (
        {"text": "a", "meta_info": {"finish_reason": {"type": "stop", "matched": 11}, "completion_tokens": 2}},
        [(None, "a", 2, "eos", None)],
    ),
    "TGI": (TGI, [(None, "ok", 2, "eos", None)]),
    "llama.cpp": (LLAMA_CPP, [(None, " hi", 4, "length", 4)]),
    "Anthropic": (ANTHROPIC, [(None, "Hi", 3, "eos", None)]),
    "TRL's conversations": (TRL_CHAT, [(None, "a", None, None, None)]),
    "a tool call": (
        {"choices": [{"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}]},
        [(None, "", None, "stop", None)],
    ),
    "a tool call of Anthropic's": (
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "tool_use", "input": {}}],
            "stop_reason": "tool_use",
            "usage": {"output_tokens": 9},
        },
        [(None, "", 9, "stop", None)],
    ),
    "Gemini by Vertex": (
        {"status": "", "response": {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finish_reason": "MAX_TOKENS"}]}},
        [(None, "a", None, "length", None)],
    ),
    "lighteval's limit": (
        {"doc": {"query": "q", "generation_size": 64}, "model_response": {"text": ["a"], "output_tokens": [[5, 6]]}},
        [([5, 6], "a", 2, None, 64)],
    ),
    "reasoning before the content": (
        {"choices": [{"message": {"reasoning_content": "Hm.", "content": "Yes."}, "finish_reason": "stop", "stop_reason": None}]},
        [(None, "Hm.Yes.", None, "eos", None)],
    ),
    "FastChat's MT-Bench answer": (
        {"question_id": 1, "model_id": "m", "choices": [{"index": 0, "turns": ["one", "two"]}], "tstamp": 1.0},
        [(None, "one", None, None, None), (None, "two", None, None, None)],
    ),
    "lm-evaluation-harness sample": (
        {
            "doc": {"q": "?"},
            "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": {"until": ["."], "max_gen_toks": 32}}},
            "resps": [["a", "b"]],
            "filtered_resps": ["a"],
        },
        [(None, "a", None, None, 32), (None, "b", None, None, 32)],
    ),
    "inspect-ai log": (
        {
            "version": 2,
            "status": "success",
            "eval": {"model": "m"},
            "samples": [
                {"id": 1, "output": {"choices": [{"message": {"role": "assistant", "content": "a"}, "stop_reason": "max_tokens"}]}}
            ],
        },
        [(None, "a", None, "length", None)],
    ),
    "lighteval details": (
        {"doc": {"query": "q"}, "metric": {}, "model_response": {"text": ["ab"], "output_tokens": [[5, 6]], "input_tokens": [1]}},
        [([5, 6], "ab", 2, None, None)],
    ),
    "HELM scenario state": (
        {
            "adapter_spec": {"max_tokens": 9},
            "request_states": [
                {
                    "request": {"prompt": "q", "max_tokens": 5},
                    "result": {
                        "success": True,
                        "completions": [{"text": "a", "tokens": [{"text": "a"}], "finish_reason": {"reason": "length"}}],
                    },
                }
            ],
        },
        [(None, "a", 1, "length", 5)],
    ),
    "LLaMA-Factory prediction": ({"prompt": "q", "predict": "a", "label": "b"}, [(None, "a", None, None, None)]),
    "OpenCompass predictions": (
        {"0": {"origin_prompt": "q", "prediction": "a", "gold": "b"}, "1": {"origin_prompt": "r", "prediction": "c"}},
        [(None, "a", None, None, None), (None, "c", None, None, None)],
    ),
    "Anthropic's batch": (
        {"custom_id": "r", "result": {"type": "succeeded", "message": {**ANTHROPIC, "stop_reason": "max_tokens"}}},
        [(None, "Hi", 3, "length", None)],
    ),
    "Gemini": (
        {
            "candidates": [{"content": {"parts": [{"text": "a"}, {"text": "b"}], "role": "model"}, "finishReason": "MAX_TOKENS"}],
            "usageMetadata": {"candidatesTokenCount": 7},
        },
        [(None, "ab", 7, "length", None)],
    ),
    "Gemini's batch": (
        {
            "key": "r",
            "request": {"generationConfig": {"maxOutputTokens": 5}},
            "response": {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]},
        },
        [(None, "a", None, "stop", None)],
    ),
    "LiteLLM's log": (
        {"messages": [{"role": "user", "content": "q"}], "model_parameters": {"max_tokens": 4}, "response": CHAT},
        [(None, "Hi", 10, "length", 4)],
    ),
    "Ollama's generate": (
        {"model": "m", "response": "a", "done": True, "done_reason": "length", "eval_count": 9, "context": [1, 2, 3]},
        [(None, "a", 9, "length", None)],
    ),
    "Ollama's chat": (
        {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": True, "done_reason": "stop", "eval_count": 9},
        [(None, "a", 9, "stop", None)],
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
                {"from": "human", "value": "r"},
                {"from": "gpt", "value": "b"},
            ]
        },
        [(None, "a", None, None, None), (None, "b", None, None, None)],
    ),
    "messages": (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        [(None, "a", None, None, None)],
    ),
    "request and response": (
        {"request": {"max_tokens": 10}, "response": CHAT},
        [(None, "Hi", 10, "length", 10)],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    value, expected = SHAPES[name]
    rows = [row._replace(engine="") for row in sequences_of(value, 4, Columns())]
    assert rows == [OutputSequence(4, None if ids is None else pack(ids), *rest) for ids, *rest in expected]


REFUSED = {
    "a number": (5, "expected an object with an output, found a number"),
    "other columns": ({"id": 1, "score": 2.0}, "no column with an output"),
    "fractional ids": ({"token_ids": [1.0, 2.0]}, "no column with an output"),
    "an id of 64 bits": ({"token_ids": [2**40]}, "a token id that is not a 32-bit number"),
    "a failed request": ({"custom_id": "r", "response": None, "error": {"code": "x"}}, "the request failed, so there is no output"),
    "a choice without a known text": ({"choices": [{"index": 0, "words": ["a"]}]}, "no text and no token ids in its choices"),
    "a log-likelihood request": ({"doc": {}, "resps": [["-3.2", "False"]]}, "a log-likelihood request"),
    "a candidate without content": ({"candidates": [{"index": 0}]}, "a candidate without content.parts"),
    "Anthropic's failed request": ({"custom_id": "r", "result": {"type": "errored", "error": {}}}, "the request failed"),
    "OpenAI's failed request": (
        {"custom_id": "r", "response": {"status_code": 400, "body": {"error": {"message": "m"}}}, "error": None},
        "the request failed",
    ),
    "a chunk of Ollama": ({"model": "m", "response": "a", "done": False}, "a chunk of a streamed answer"),
    "a conversation without an answer": ({"conversations": [{"from": "human", "value": "q"}]}, "a conversation without an answer"),
    "a chunk of a stream": (
        {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "a"}}]},
        "a chunk of a streamed answer: join the chunks of each answer first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_sequence_says_why(name: str) -> None:
    value, said = REFUSED[name]
    with pytest.raises(Unusable, match=said):
        list(sequences_of(value, 1, Columns()))


def test_named_columns_are_the_only_ones() -> None:
    value = {"text": "a", "answer": "b", "ids": [4], "token_ids": [5], "choices": []}
    assert next(sequences_of(value, 1, Columns(text="answer"))).text == "b"
    assert next(sequences_of(value, 1, Columns(ids="ids"))).ids == pack([4])
    both = next(sequences_of(value, 1, Columns("ids", "answer")))
    assert (both.ids, both.text) == (pack([4]), "b")


@pytest.mark.parametrize(
    ("reason", "stop", "said"),
    [
        ("stop", ..., "stop"),
        ("stop", None, "eos"),
        ("stop", 11, "eos"),
        ("stop", "END", "stop"),
        ("LENGTH", ..., "length"),
        ("max_tokens", ..., "length"),
        ("eos_token", ..., "eos"),
        ("content_filter", ..., "other"),
        ("made up", ..., "other"),
        (None, ..., None),
        (5, ..., None),
        ({"type": "stop", "matched": "END"}, ..., "stop"),
    ],
)
def test_reasons(reason: Any, stop: Any, said: str | None) -> None:
    assert ended(reason, stop) == said


@pytest.mark.parametrize(
    ("value", "engine"),
    [
        (SGLANG, "sglang"),
        (TGI, "tgi"),
        (LLAMA_CPP, "llama.cpp"),
        (VLLM, "vllm"),
        (TRL_CHAT, ""),
        ({"model": "m", "response": "a", "done": True}, "ollama"),
    ],
)
def test_the_engine_whose_format_it_is(value: Any, engine: str) -> None:
    assert {row.engine for row in sequences_of(value, 1, Columns())} == {engine}
