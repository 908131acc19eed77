"""What conformance/make_labels.py runs: (trainer, rows of the dataset, settings), for every model."""

from __future__ import annotations

from typing import Any


def turn(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASK, ANSWER = turn("user", "What is two plus two?"), turn("assistant", "It is four.")
TALK = {"messages": [ASK, ANSWER]}
TWO = {"messages": [ASK, ANSWER, turn("user", "Name a river."), turn("assistant", "The Ebro.")]}
SYSTEM = {"messages": [turn("system", "Be brief."), *TALK["messages"]]}
THINKING = {
    "messages": [
        ASK,
        turn("assistant", "<think>\nTwo and two.\n</think>\n\nFour."),
        turn("user", "And a river?"),
        turn("assistant", "<think>\nSpain.\n</think>\n\nThe Ebro."),
    ]
}
UNICODE = {"messages": [turn("user", "naïve café 東京 🙂?"), turn("assistant", "  Rhône,\n\tGaronne.  ")]}
OPEN = {"messages": [ASK, ANSWER, turn("user", "Name a river.")]}
EMPTY = {"messages": [ASK, turn("assistant", "")]}
CALL = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}, "type": "function"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLING = {
    "messages": [
        turn("user", "The weather in Paris?"),
        turn("assistant", None, tool_calls=[CALL]),
        turn("tool", "sunny"),
        turn("assistant", "It is sunny."),
    ],
    "tools": TOOLS,
}
SHAREGPT = {"conversations": [{"from": "user", "value": "Name a river."}, {"from": "assistant", "value": "The Loire."}]}
TEXTS = [{"text": "The Loire is a river in France."}, {"text": "Rome."}, {"text": "  Rhône 東京 🙂 "}]
PAIR = {"prompt": "Question: What is two plus two?\nAnswer:", "completion": " It is four."}
SPACE = {"prompt": "Name a river in France. ", "completion": "The Loire."}
CHAT_PAIR = {"prompt": TALK["messages"][:1], "completion": TALK["messages"][1:]}
TURNS_PAIR = {
    "prompt": [turn("system", "Be brief."), *TALK["messages"], turn("user", "Name a river.")],
    "completion": [turn("assistant", "The Ebro.")],
}
IDS = [{"input_ids": [5, 6, 7, 8, 9]}, {"input_ids": [11, 12]}]
MASKED_IDS = [{"input_ids": [5, 6, 7, 8, 9], "completion_mask": [0, 0, 1, 1, 1]}, {"input_ids": [11, 12], "completion_mask": [0, 1]}]
KWARGS = {**TALK, "chat_template_kwargs": {"enable_thinking": False, "date_string": "30 Nov 2026"}}
SFT: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([TALK, TWO], {}),
    ([SYSTEM, TALK], {}),
    ([THINKING], {}),
    ([UNICODE, OPEN, EMPTY], {}),
    ([CALLING], {}),
    ([SHAREGPT], {}),
    ([KWARGS], {}),
    ([{**TALK, "id": 7, "source": "web"}], {}),
    ([TALK, TWO], {"assistant_only_loss": True}),
    ([UNICODE, THINKING], {"assistant_only_loss": True}),
    ([CALLING], {"assistant_only_loss": True}),
    ([TALK, TWO], {"max_length": 16}),
    ([TALK, TWO], {"assistant_only_loss": True, "max_length": 12}),
    ([TALK, TWO, SYSTEM], {"packing": True, "max_length": 40}),
    ([TALK, TWO, SYSTEM], {"packing": True, "packing_strategy": "wrapped", "max_length": 24}),
    ([TALK, TWO, SYSTEM], {"packing": True, "max_length": 40, "assistant_only_loss": True}),
    ([TALK, TWO], {"padding_free": True, "max_length": None}),
    (TEXTS, {}),
    ([{"body": "The Loire."}], {"dataset_text_field": "body"}),
    ([{"text": "The Loire.", "body": "Rome."}], {"dataset_text_field": "body"}),
    (TEXTS, {"packing": True, "max_length": 16}),
    (TEXTS, {"max_length": 6}),
    ([PAIR, SPACE], {}),
    ([PAIR, SPACE], {"completion_only_loss": False}),
    ([PAIR, SPACE], {"completion_only_loss": True}),
    ([PAIR, SPACE], {"max_length": 12}),
    ([PAIR, SPACE], {"max_length": 12, "truncation_mode": "keep_end"}),
    ([PAIR, SPACE], {"packing": True, "max_length": 32}),
    ([CHAT_PAIR, TURNS_PAIR], {}),
    ([TURNS_PAIR], {"completion_only_loss": False}),
    ([CHAT_PAIR], {"assistant_only_loss": True}),
    ([CHAT_PAIR], {"eos_token": "<|missing|>"}),
    ([TALK], {"pad_token": "<unk>"}),
    ([TALK], {"completion_only_loss": True}),
    (IDS, {}),
    (MASKED_IDS, {}),
]
DESIRED = [
    {"prompt": "Name a river. ", "completion": "The Ebro.", "label": True},
    {"prompt": "Two plus two?", "completion": " Five.", "label": False},
]
CHAT_DESIRED = [{**CHAT_PAIR, "label": True}, {**TURNS_PAIR, "label": False}]
CHOICE = [
    {"prompt": "Name a river. ", "chosen": "The Ebro.", "rejected": "Rome."},
    {"prompt": "Two plus two?", "chosen": " Four.", "rejected": " Five."},
]
IMPLICIT = [{"chosen": "Name a river. The Ebro.", "rejected": "Name a river. Rome."}]
CHAT_CHOICE = [{"prompt": [ASK], "chosen": [ANSWER], "rejected": [turn("assistant", "Five.")]}]
CHAT_IMPLICIT = [{"chosen": [ASK, ANSWER], "rejected": [ASK, turn("assistant", "Five.")]}]
PREFERENCE: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (CHOICE, {}),
    (IMPLICIT, {}),
    (CHAT_CHOICE, {}),
    (CHAT_IMPLICIT, {}),
    (CHOICE, {"max_length": 10}),
    (CHAT_CHOICE, {"max_length": 18}),
    ([{**CHAT_CHOICE[0], "tools": TOOLS}], {}),
]
UNPAIRED: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (DESIRED, {}),
    (CHAT_DESIRED, {}),
    (DESIRED, {"max_length": 10}),
    (CHOICE, {}),
    (CHAT_CHOICE, {}),
]
SCENARIOS = [
    *(("trl-sft", data, config) for data, config in SFT),
    *(("trl-dpo", data, config) for data, config in PREFERENCE),
    *(("trl-kto", data, config) for data, config in UNPAIRED),
    *(("trl-reward", data, config) for data, config in PREFERENCE),
]
