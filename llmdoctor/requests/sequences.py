"""One recorded sequence, out of the shapes in which engines and trainers write it.

Sources of the names: transformers and TRL (completion_ids; trl 1.0.0 grpo_trainer.py:2504, experimental/ppo/ppo_trainer.py:997), OpenAI's
chat.completion, text_completion, response and batch output, vLLM 0.33.0 (outputs.py, entrypoints/openai/*/protocol.py), SGLang (meta_info),
TGI (details), llama.cpp (stop_type), Anthropic (stop_reason).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeGuard

from llmdoctor.requests.prompts import answers, stored_prompts, without_prompt

Ended = Literal["eos", "length", "stop", "other", "unknown"]

IDS = (
    "token_ids output_ids completion_ids response_ids output_token_ids completion_token_ids response_token_ids generated_token_ids "
    "generated_ids generated_tokens tokens completions_ids"
).split()
TEXTS = (
    *"text completion response output generated_text output_text completion_text response_text generation content prediction".split(),
    *("model response", "model_response", "completions", "responses", "generations", "outputs", "tokens"),
)
REASONS = ("finish_reason", "stop_reason", "finish_reasons", "stop_type", "status")
LIMITS = ("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
COUNTS = ("completion_tokens", "output_tokens", "generated_tokens", "num_generated_tokens", "tokens_predicted")
HOLDERS = (
    "meta_info",
    "details",
    "sampling_params",
    "parameters",
    "params",
    "generation_config",
    "generation_settings",
    "request",
    "usage",
    "metadata",
)
_ENDED: Mapping[str, Ended] = {
    **dict.fromkeys("eos eos_token end_turn end_of_text end_of_sequence eos_token_id".split(), "eos"),
    **dict.fromkeys("length max_tokens max_new_tokens max_length max_output_tokens limit incomplete model_length".split(), "length"),
    **dict.fromkeys("stop stop_sequence stop_string stop_str word completed".split(), "stop"),
    **dict.fromkeys(
        "tool_calls function_call tool_use content_filter abort aborted error cancelled refusal failed pause_turn".split(), "other"
    ),
}
_DEPTH = 4


class OutputSequence(NamedTuple):
    """One sequence (a tuple for speed: there are millions of them).

    `line` counts from 1 (rows of a table too), `ids` are int32 in native order, `tokens` the number of generated tokens where it is known,
    `reported` how the engine reports that it ended (None: it does not), `limit` in tokens. `raw` is the line it came from, where
    the text beside the ids was not read.
    """

    line: int
    ids: bytes | None
    text: str | None
    tokens: int | None
    reported: Ended | None
    limit: int | None
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the user named (None: found by the names people use)."""

    ids: str | None = None
    text: str | None = None

    @property
    def id_names(self) -> tuple[str, ...]:
        """Where to look for token ids, in order; nowhere where only a text column was named."""
        return (self.ids,) if self.ids is not None else () if self.text is not None else tuple(IDS + list(TEXTS))

    @property
    def text_names(self) -> tuple[str, ...]:
        """Where to look for text, in order; nowhere where only an ids column was named."""
        return (self.text,) if self.text is not None else () if self.ids is not None else TEXTS


class Unusable(Exception):
    """A record that holds no sequence: one clause that says why. `names` are its columns where the reason is that none fits."""

    def __init__(self, reason: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.names = names


def sequences_of(value: Any, line: int, columns: Columns) -> Iterator[OutputSequence]:
    """The sequences of one decoded record.

    Raises Unusable where there are none in it.
    """
    yield from _walk(value, line, columns, {}, 0)


def _walk(value: Any, line: int, columns: Columns, around: Mapping[str, Any], depth: int) -> Iterator[OutputSequence]:
    if is_ids(value) and value:
        yield OutputSequence(line, pack(value), None, len(value), None, None)
        return
    if isinstance(value, list) and depth < _DEPTH:
        for item in value:
            yield from _walk(item, line, columns, around, depth + 1)
        return
    if not isinstance(value, dict):
        raise Unusable(f"expected an object with an output, found {_kind(value)}")
    yield from _object(value, line, columns, around, depth)


def _object(value: dict[str, Any], line: int, columns: Columns, around: Mapping[str, Any], depth: int) -> Iterator[OutputSequence]:
    named = columns.ids in value or columns.text in value
    inner = value.get("response", value.get("body"))
    if not named and isinstance(inner, dict) and depth < _DEPTH:
        yield from _walk(inner, line, columns, {**around, **_scalars(value)}, depth + 1)
    elif not named and "response" in value and value["response"] is None and value.get("error"):
        raise Unusable("the request failed, so there is no output")
    elif not named and isinstance(choices := value.get("choices"), list):
        yield from _choices(value, choices, line, around)
    elif not named and _objects(outputs := value.get("outputs", value.get("output"))):
        messages = any("content" in item or "type" in item for item in outputs)  # OpenAI's response object, else vLLM's RequestOutput
        around = {**around, **_scalars(value)}
        for item in [{"text": _joined(outputs)}] if messages else outputs:
            yield from _flat(item, line, columns, around)
    else:
        yield from _flat(value, line, columns, around)


def _choices(value: dict[str, Any], choices: list[Any], line: int, around: Mapping[str, Any]) -> Iterator[OutputSequence]:
    """OpenAI's and vLLM's chat.completion and text_completion."""
    usage = value.get("usage") if len(choices) == 1 else None
    for choice in choices:
        if not isinstance(choice, dict):
            raise Unusable(f"expected an object in choices, found {_kind(choice)}")
        if "delta" in choice:
            raise Unusable("a chunk of a streamed answer: join the chunks of each answer first")
        message = choice.get("message")
        text = _joined([message]) if isinstance(message, dict) else choice.get("text")
        ids, count = _logprob_ids(choice.get("logprobs"))
        own = choice.get("token_ids")
        ids = own if is_ids(own) and own else ids
        count = _count(usage) if _count(usage) is not None else count
        said = ended(choice.get("finish_reason"), choice.get("stop_reason", ...))
        limit = _first_int(LIMITS, value, around)
        yield _row(line, ids, text if isinstance(text, str) else None, count, said, limit)


def _logprob_ids(logprobs: Any) -> tuple[list[int] | None, int | None]:
    """The ids in logprobs (vLLM's return_tokens_as_token_ids writes "token_id:5"), and the number of tokens."""
    if not isinstance(logprobs, dict):
        return None, None
    content = logprobs.get("content")
    tokens = [entry.get("token") for entry in content if isinstance(entry, dict)] if isinstance(content, list) else logprobs.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        return None, None
    numbers = [token[9:] for token in tokens if isinstance(token, str) and token.startswith("token_id:")]
    if len(numbers) == len(tokens) and all(number.isdecimal() and len(number) < 11 for number in numbers):
        return [int(number) for number in numbers], len(tokens)
    return None, len(tokens)


def _flat(value: Mapping[str, Any], line: int, columns: Columns, around: Mapping[str, Any]) -> Iterator[OutputSequence]:
    """A record with its output in a column; a column of lists holds several sequences."""
    ids = next((lists for name in columns.id_names if (lists := _id_lists(value.get(name))) is not None), None)
    texts = next((column for name in columns.text_names if (column := _texts(value.get(name), name)) is not None), None)
    if texts is not None and ids is not None and not any(ids) and any(texts):
        ids = None  # an engine that was not asked for ids leaves the list empty
    if ids is None and texts is None:
        raise Unusable("no column with an output", tuple(map(str, value)))
    if prompts := stored_prompts(value):
        ids = None if ids is None else [without_prompt(row, prompts) for row in ids]
        texts = None if texts is None else [without_prompt(text, prompts) for text in texts]
    many = max(len(ids or ()), len(texts or ()))
    holders = [value, *(held for name in HOLDERS if isinstance(held := value.get(name), dict)), around]
    reasons = next((item[name] for item in holders for name in REASONS if item.get(name) is not None and _tells(name, item[name])), None)
    stop = next((item["stop_reason"] for item in holders if "stop_reason" in item), ...)
    limit = _first_int(LIMITS, *holders)
    count = next((size for item in holders if (size := _count(item)) is not None), None) if many == 1 else None
    for index in range(many):
        reason = reasons[index] if isinstance(reasons, list) and index < len(reasons) else reasons
        yield _row(line, _at(ids, index), _at(texts, index), count, ended(reason, stop), limit)


def ended(reason: Any, stop: Any = ...) -> Ended | None:
    """How an engine says that it ended: its finish reason and, where it gives one (else ...), vLLM's stop_reason beside it.

    vLLM: finish_reason "stop" with stop_reason null is eos, an int is a stop token, a text is a stop string (0.33.0 outputs.py:73).
    """
    if isinstance(reason, dict):  # SGLang: {"type": "stop", "matched": 151645}
        reason, stop = reason.get("type"), reason.get("matched", stop)
    if not isinstance(reason, str) or not reason:
        return None
    found = _ENDED.get(reason.lower())
    if found == "stop" and stop is not ... and reason.lower() == "stop":
        return "stop" if isinstance(stop, str) else "eos"
    return found or "other"


def _row(line: int, ids: list[int] | None, text: str | None, count: int | None, reported: Ended | None, limit: int | None) -> OutputSequence:
    if ids is None and text is None:
        text = ""
    packed = None if ids is None else pack(ids)
    return OutputSequence(line, packed, text, count if ids is None else len(ids), said, limit)


def pack(ids: list[int]) -> bytes:
    """`ids` as int32 in native order; Unusable where one is no token id."""
    try:
        return _packer(len(ids)).pack(*ids)
    except struct.error:
        raise Unusable("a token id that is no 32-bit number") from None


@lru_cache(maxsize=4096)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"={count}i")


def _id_lists(value: Any) -> list[list[int]] | None:
    """A column's token ids as lists: of one sequence, or of several; None where it does not hold ids."""
    if is_ids(value):
        return [value]
    if isinstance(value, list) and value and all(is_ids(item) for item in value):
        return value
    return None


def _texts(value: Any, name: str) -> list[str] | None:
    """A column's texts: one, a list of them, or the messages of a conversation; None where it holds no text."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return ["".join(value)] if name == "tokens" else value
    if _objects(value):
        return [_joined(answers(value))] if any("content" in item or "text" in item for item in value) else None
    if all(_objects(item) for item in value):
        return [_joined(answers(item)) for item in value]
    return None


def _joined(messages: list[dict[str, Any]]) -> str:
    """The text of messages whose content is a text or a list of parts; an assistant's reasoning stands before its content."""
    parts: list[str] = []
    for message in messages:
        content = message.get("content", message.get("text"))
        parts += [text for name in ("reasoning_content", "reasoning") if isinstance(text := message.get(name), str)]
        if isinstance(content, list) and _objects(content):
            parts.append(_joined(content))
        elif isinstance(content, str):
            parts.append(content)
    return "".join(parts)


def is_ids(value: Any) -> bool:
    """Whether `value` is a list of whole numbers; an empty list is too."""
    return isinstance(value, list) and set(map(type, value)) <= {int}


def _objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _scalars(value: Mapping[str, Any]) -> dict[str, Any]:
    """What a record, or an object in it that holds such things, says about the outputs inside it: limits, reasons, counts."""
    known = {*LIMITS, *REASONS, *COUNTS}
    holders = (*(held for name in HOLDERS if isinstance(held := value.get(name), dict)), value)
    return {name: item for holder in holders for name, item in holder.items() if name in known}


def _tells(name: str, reason: Any) -> bool:
    """Whether a column that may hold a finish reason does: what it is called tells, but "status" and "stop_reason" may be anything."""
    if isinstance(reason, str):
        return reason.lower() in _ENDED or (bool(reason) and name == "finish_reason")
    return isinstance(reason, list | dict)


def _count(value: Any) -> int | None:
    found = next((value[name] for name in COUNTS if type(value.get(name)) is int), None) if isinstance(value, Mapping) else None
    return found if found is not None and found >= 0 else None


def _first_int(names: tuple[str, ...], *holders: Mapping[str, Any]) -> int | None:
    for holder in holders:
        for name in names:
            found = holder.get(name)
            if type(found) is int and found > 0:
                return found
    return None


def _at(values: list[Any] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
    return kinds.get(type(value), "null")
