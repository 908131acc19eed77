"""The shapes in which engines, trainers and evaluation programs write a record, and the sequences in it.

SHAPES is the one table: the first entry that fits a record reads it. A record that none fits is read by the usual names of columns, and one
whose output is not found is refused with its keys: text that was not read never counts as a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from llmdoctor.requests.record_parts import (
    DEPTH,
    Place,
    RequestObject,
    are_objects,
    count_of,
    first_int,
    has_member,
    holders_of,
    id_lists,
    joined,
    kind_of,
    message_text,
    objects_in,
    read_columns,
    read_lists,
    sequence,
    texts_in,
)
from llmdoctor.requests.sequences import IDS, LIMITS, TEXTS, Columns, OutputSequence, Unusable, ended, is_ids, pack


@dataclass(frozen=True, slots=True)
class RecordShape:
    """One shape: its `name`, the `engine` whose own it is ("" if several write it), whether it fits a record, and how it is read."""

    name: str
    fits: Callable[[RequestObject], bool]
    read: Callable[[RequestObject, Place], Iterator[OutputSequence]]
    engine: str = ""


def sequences_of(value: Any, line: int, columns: Columns) -> Iterator[OutputSequence]:
    """Yield the sequences of one decoded record. Raises Unusable if there are none in it, or none that can be read."""
    yield from _any(value, Place(line, columns))


def _any(value: Any, place: Place) -> Iterator[OutputSequence]:
    if is_ids(value) and value:
        yield OutputSequence(
            line=place.line, ids=pack(value), text=None, tokens=len(value), reported=None, limit=None, raw=None, engine=place.engine
        )
    elif isinstance(value, list) and place.depth < DEPTH:
        for item in value:
            yield from _any(item, replace(place, depth=place.depth + 1))
    elif isinstance(value, dict):
        yield from _object(value, place)
    else:
        raise Unusable(f"expected an object with an output, found {kind_of(value)}")


def _object(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    named = place.columns.ids in value or place.columns.text in value
    shape = None if named or place.depth > DEPTH else next((shape for shape in SHAPES if shape.fits(value)), None)
    if shape is None:
        yield from read_columns(value, place)
    else:
        yield from shape.read(value, replace(place, engine=shape.engine or place.engine))


# --- requests and responses of servers --------------------------------------------------------------------------------------------


def _wrapped(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a response inside another object: OpenAI's batch output (response.body), LiteLLM's log, Anthropic's batch (result.message)."""
    inner = next(held for name in _WRAPPERS if isinstance(held := value.get(name), dict))
    if value.get("status_code", 200) not in (200, None) or _is_error(inner):
        raise Unusable("the request failed, so there is no output", failed=True)
    yield from _any(inner, place.inside(value))


def _message(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read an Anthropic message without text: a tool call, a refusal."""
    yield sequence(place, text=joined(value["content"]), count=count_of(value.get("usage")), reported=ended(value.get("stop_reason")))


def _failed(_value: RequestObject, _place: Place) -> Iterator[OutputSequence]:
    raise Unusable("the request failed, so there is no output", failed=True)


def _is_error(value: RequestObject) -> bool:
    """Return whether an object holds an error and nothing of an answer: OpenAI's, or a result of Anthropic's batches that did not succeed."""
    return (bool(value.get("error")) and not {"choices", "output", "outputs", "text", "content"} & value.keys()) or (
        value.get("type") in ("errored", "canceled", "expired") and "message" not in value
    )


def _choices(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read chat.completion and text_completion, and the results of inspect-ai, which have the same choices."""
    choices = value["choices"]
    usage = value.get("usage") if len(choices) == 1 else None
    for choice in choices:
        if not isinstance(choice, dict):
            raise Unusable(f"expected an object in choices, found {kind_of(choice)}")
        if "delta" in choice:
            raise Unusable("a chunk of a streamed answer: join the chunks of each answer first")
        if isinstance(choice.get("turns"), list):
            yield from _turns(choice, place)
            continue
        message = choice.get("message")
        text = message_text(message) if isinstance(message, dict) else choice.get("text")
        ids, count = _logprob_ids(choice.get("logprobs"))
        own = choice.get("token_ids")
        ids = own if is_ids(own) and own else ids
        if ids is None and not isinstance(text, str):
            raise Unusable("no text and no token ids in its choices", tuple(map(str, choice)))
        count = count_of(usage) if count_of(usage) is not None else count
        reason = choice.get("finish_reason", choice.get("stop_reason") if "finish_reason" not in choice else None)
        reported = ended(reason, choice.get("stop_reason", ...) if "finish_reason" in choice else ...)
        engine = "sglang" if "matched_stop" in choice else "vllm" if {"finish_reason", "stop_reason"} <= choice.keys() else place.engine
        limit = first_int(LIMITS, value, place.around)
        yield sequence(
            replace(place, engine=engine),
            ids=ids,
            text=text if isinstance(text, str) else None,
            count=count,
            reported=reported,
            limit=limit,
        )


def _turns(choice: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read FastChat's MT-Bench answers: choices[].turns, a text per turn."""
    for text in choice["turns"]:
        if not isinstance(text, str):
            raise Unusable(f"expected a text in turns, found {kind_of(text)}")
        yield sequence(place, text=text, limit=first_int(LIMITS, place.around))


def _logprob_ids(logprobs: Any) -> tuple[list[int] | None, int | None]:
    """Return the ids in logprobs (vLLM's return_tokens_as_token_ids writes "token_id:5") and the number of tokens; None if unknown."""
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


def _outputs(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read vLLM's RequestOutput, and OpenAI's response object, whose outputs are messages that belong together."""
    outputs = value.get("outputs", value.get("output"))
    if not isinstance(outputs, list):
        raise Unusable(f"expected a list of outputs, found {kind_of(outputs)}")
    messages = any("content" in item or "type" in item for item in outputs)
    inner = place.inside(value, "" if messages else "vllm")
    for item in [{"text": joined(outputs)}] if messages else outputs:
        yield from read_columns(item, inner)


def _gemini(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read Gemini's GenerateContentResponse: candidates[].content.parts[].text."""
    usage = value.get("usageMetadata") if len(value["candidates"]) == 1 else None
    for candidate in value["candidates"]:
        content = candidate.get("content") if isinstance(candidate, dict) else None
        parts = content.get("parts") if isinstance(content, dict) else None
        reason = candidate.get("finishReason", candidate.get("finish_reason")) if isinstance(candidate, dict) else None
        reported = None if reason is None else ended(reason)
        if not isinstance(parts, list) and reported is None:
            raise Unusable("a candidate without content.parts")
        text = "".join(part["text"] for part in parts or [] if isinstance(part, dict) and isinstance(part.get("text"), str))
        yield sequence(
            place, text=text, count=count_of(usage), reported=reported, limit=first_int(LIMITS, *holders_of(value), place.around)
        )


def _ollama(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read Ollama's /api/generate and /api/chat (docs/api.md): eval_count tokens, done_reason; `context` holds the prompt too and is not read."""
    if value.get("done") is False:
        raise Unusable("a chunk of a streamed answer: join the chunks of each answer first")
    message = value.get("message")
    text = message_text(message) if isinstance(message, dict) else value.get("response")
    if not isinstance(text, str):
        raise Unusable("no text in its response or message", tuple(map(str, value)))
    thinking = value.get("thinking")
    text = thinking + text if isinstance(thinking, str) else text
    yield sequence(
        place,
        text=text,
        count=count_of(value),
        reported=ended(value.get("done_reason")),
        limit=first_int(LIMITS, *holders_of(value), place.around),
    )


# --- files of evaluation programs -------------------------------------------------------------------------------------------------


def _lm_eval(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a sample of lm-evaluation-harness (0.4.13, --log_samples): resps[request][repeat], the limit in arguments."""
    limit = first_int(LIMITS, *objects_in(value.get("arguments")), place.around)
    for response in value["resps"]:
        for text in response if isinstance(response, list) else [response]:
            if not isinstance(text, str) or (isinstance(response, list) and len(response) == 2 and response[1] in ("True", "False")):
                raise Unusable("a log-likelihood request: the model generated nothing", failed=True)
            yield sequence(place, text=text, limit=limit)


def _helm(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a request state of HELM's scenario_state.json: result.completions[].text, request.max_tokens."""
    result = value["result"]
    if not isinstance(result, dict) or result.get("success") is False:
        raise Unusable("the request failed, so there is no output", failed=True)
    for completion in result.get("completions") or []:
        if not isinstance(completion, dict) or not isinstance(completion.get("text"), str):
            raise Unusable("a completion without a text")
        tokens = completion.get("tokens")
        count = len(tokens) if isinstance(tokens, list) and tokens else None
        reported = ended(completion.get("finish_reason"))
        yield sequence(
            place,
            text=completion["text"],
            count=count,
            reported=reported,
            limit=first_int(LIMITS, value.get("request") or {}, place.around),
        )


def _members(name: str) -> Callable[[RequestObject, Place], Iterator[OutputSequence]]:
    """Return a reader of the records in the list `name` of one object: HELM's request_states, inspect-ai's samples."""

    def read(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
        inner = place.inside(value)
        for item in value[name]:
            yield from _any(item, inner)

    return read


def _inspect_sample(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a sample of inspect-ai's JSON log: output.choices."""
    yield from _any(value["output"], place.inside(value))


def _opencompass(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read OpenCompass' predictions: {"0": {"origin_prompt": ..., "prediction": ...}, "1": ...}."""
    for item in value.values():
        yield from read_columns(item, place.inside(value))


def _lighteval(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a row of lighteval's details: model_response {text, output_tokens}."""
    response = value["model_response"]
    ids, texts = id_lists(response.get("output_tokens")), texts_in(response.get("text"), "text")
    if not any(ids or ()) and texts is None:
        raise Unusable("no text and no token ids in its model_response", tuple(map(str, response)))
    yield from read_lists(ids if any(ids or ()) else None, texts, value, place)


def _conversation(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a conversation: ShareGPT's `conversations` (from, value), or `messages` (role, content); each run of the model's turns is an output."""
    turns = next(held for name in _CONVERSATIONS if are_objects(held := value.get(name)))
    found = False
    answer: list[dict[str, Any]] = []
    for turn in [*turns, {"role": "user"}]:
        if str(turn.get("role", turn.get("from"))) in _ASSISTANTS:
            answer.append(turn)
        elif answer:
            found = True
            yield sequence(place, text=joined(answer), limit=first_int(LIMITS, value, place.around))
            answer = []
    if not found:
        raise Unusable("a conversation without an answer of the model")


_CONVERSATIONS = ("conversations", "conversation", "messages")
_ASSISTANTS = ("assistant", "gpt", "model", "chatgpt", "bing", "bard", "bot", "ai")
_WRAPPERS = ("response", "result", "body", "message")


def _is_anthropic_result(value: RequestObject) -> bool:
    result = value.get("result")
    return isinstance(result, dict) and result.get("type") in ("succeeded", "errored", "canceled", "expired")


def _is_message(value: RequestObject) -> bool:
    """Return whether an object holds an Anthropic message and nothing else of an answer."""
    return isinstance(value.get("message"), dict) and value.get("type") == "succeeded"


def _has_no_text(value: RequestObject) -> bool:
    """Return whether an object is an Anthropic message none of whose parts is a text."""
    content: Any = value.get("content")
    parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    return value.get("type") == "message" and "stop_reason" in value and parts and not joined(content)


def _is_opencompass(value: RequestObject) -> bool:
    return bool(value) and all(isinstance(item, dict) and "prediction" in item for item in value.values())


SHAPES: tuple[RecordShape, ...] = (
    RecordShape(
        "failed request", lambda value: _is_error(value) or (value.get("response", 1) is None and bool(value.get("error"))), _failed
    ),
    RecordShape(
        "Ollama", lambda value: "done" in value and ("response" in value or isinstance(value.get("message"), dict)), _ollama, "ollama"
    ),
    RecordShape("Gemini", lambda value: are_objects(value.get("candidates")), _gemini),
    RecordShape("Anthropic message without text", _has_no_text, _message),
    RecordShape("Anthropic batch", lambda value: _is_anthropic_result(value) or _is_message(value), _wrapped),
    RecordShape(
        "HELM request state", lambda value: isinstance(value.get("request"), dict) and has_member(value, "result", "completions"), _helm
    ),
    RecordShape("HELM scenario state", lambda value: isinstance(value.get("request_states"), list), _members("request_states")),
    RecordShape("wrapped response", lambda value: any(isinstance(value.get(name), dict) for name in ("response", "body")), _wrapped),
    RecordShape("choices", lambda value: isinstance(value.get("choices"), list), _choices),
    RecordShape("inspect-ai sample", lambda value: has_member(value, "output", "choices"), _inspect_sample),
    RecordShape("inspect-ai log", lambda value: isinstance(value.get("samples"), list) and "eval" in value, _members("samples")),
    RecordShape("outputs", lambda value: are_objects(value.get("outputs", value.get("output"))), _outputs),
    RecordShape("lm-evaluation-harness sample", lambda value: isinstance(value.get("resps"), list) and "doc" in value, _lm_eval),
    RecordShape("lighteval details", lambda value: isinstance(value.get("model_response"), dict), _lighteval),
    RecordShape("OpenCompass predictions", _is_opencompass, _opencompass),
    RecordShape(
        "conversation",
        lambda value: any(are_objects(value.get(name)) for name in _CONVERSATIONS) and not any(name in value for name in (*IDS, *TEXTS)),
        _conversation,
    ),
)
# The keys of a record that hold its outputs, beside the columns of ids and texts.
CONTAINERS = (
    "choices",
    "outputs",
    "body",
    "result",
    "candidates",
    "request_states",
    "samples",
    "resps",
    "doc",
    "message",
    "done",
    *_CONVERSATIONS,
)
