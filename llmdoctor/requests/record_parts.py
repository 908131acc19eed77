"""The parts of a record of recorded outputs: columns of ids and texts, messages, limits, reasons and counts, by the names that people use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from llmdoctor.requests.prompts import answers, stored_prompts, without_prompt
from llmdoctor.requests.sequences import (
    COUNTS,
    HOLDERS,
    LIMITS,
    REASONS,
    Columns,
    Ended,
    OutputSequence,
    Unusable,
    ended,
    is_ids,
    is_reason,
    pack,
)

DEPTH = 4  # levels of a record in which outputs are searched
RequestObject = Mapping[str, Any]
# The key by which an engine's own record is known.
_ENGINE_KEYS = {
    "meta_info": "sglang",
    "details": "tgi",
    "stop_type": "llama.cpp",
    "tokens_predicted": "llama.cpp",
    "kv_transfer_params": "vllm",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is: its line, the columns that the user named, and what the records around it give (limits, reasons, counts)."""

    line: int
    columns: Columns
    around: RequestObject = field(default_factory=dict)
    depth: int = 0
    engine: str = ""

    def inside(self, record: RequestObject, engine: str = "") -> Place:
        """Return the place of what `record` holds."""
        return replace(self, around={**self.around, **facts_of(record)}, depth=self.depth + 1, engine=engine or self.engine)


def read_columns(value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Read a record with its output in a column; a column of lists holds several sequences."""
    columns = place.columns
    ids = next((lists for name in columns.id_names if (lists := id_lists(value.get(name))) is not None), None)
    texts = next((column for name in columns.text_names if (column := texts_in(value.get(name), name)) is not None), None)
    if texts is not None and ids is not None and not any(ids) and any(texts):
        ids = None  # an engine that was not asked for ids leaves the list empty
    if ids is None and texts is None:
        raise Unusable("no column with an output", tuple(map(str, value)))
    yield from read_lists(ids, texts, value, place)


def read_lists(ids: list[list[int]] | None, texts: list[str] | None, value: RequestObject, place: Place) -> Iterator[OutputSequence]:
    """Yield the sequences of columns `ids` and `texts` of the record `value`, with the reasons and limits that it and its holders give."""
    if prompts := stored_prompts(value):
        ids = None if ids is None else [without_prompt(row, prompts) for row in ids]
        texts = None if texts is None else [without_prompt(text, prompts) for text in texts]
    many = max(len(ids or ()), len(texts or ()))
    holders = [*holders_of(value), place.around]
    reasons = next((item[name] for item in holders for name in REASONS if item.get(name) is not None and is_reason(name, item[name])), None)
    stop = next((item["stop_reason"] for item in holders if "stop_reason" in item), ...)
    limit = first_int(LIMITS, *holders)
    count = next((size for item in holders if (size := count_of(item)) is not None), None) if many == 1 else None
    engine = next((engine for key, engine in _ENGINE_KEYS.items() if key in value), place.engine)
    place = replace(place, engine=engine)
    for index in range(many):
        reason = reasons[index] if isinstance(reasons, list) and index < len(reasons) else reasons
        yield sequence(place, ids=_at(ids, index), text=_at(texts, index), count=count, reported=ended(reason, stop), limit=limit)


def sequence(
    place: Place,
    *,
    ids: list[int] | None = None,
    text: str | None = None,
    count: int | None = None,
    reported: Ended | None = None,
    limit: int | None = None,
) -> OutputSequence:
    """Return one output. `count` are its tokens if there are no ids, `limit` the most that it could have."""
    if ids is None and text is None:
        text = ""  # fewer outputs in one of two columns
    packed = None if ids is None else pack(ids)
    return OutputSequence(
        line=place.line,
        ids=packed,
        text=text,
        tokens=count if ids is None else len(ids),
        reported=reported,
        limit=limit,
        raw=None,
        engine=place.engine,
    )


def id_lists(value: Any) -> list[list[int]] | None:
    """Return a column's token ids as lists: of one sequence, or of several; None if it does not hold ids."""
    if is_ids(value):
        return [value]
    if isinstance(value, list) and value and all(is_ids(item) for item in value):
        return value
    return None


def texts_in(value: Any, name: str) -> list[str] | None:
    """Return a column's texts: one, a list of them, or the messages of a conversation; None if it holds no text."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return ["".join(value)] if name == "tokens" else value
    if are_objects(value):
        return [joined(answers(value))] if any({"content", "text", "value"} & item.keys() for item in value) else None
    if all(are_objects(item) for item in value):
        return [joined(answers(item)) for item in value]
    return None


def message_text(message: RequestObject) -> str | None:
    """Return the text of an assistant's message: "" if it has none by itself (a tool call, a refusal, content null), None if its text is not found."""
    if {"content", "text"} & message.keys() or {
        "tool_calls",
        "function_call",
        "refusal",
        "reasoning",
        "reasoning_content",
    } & message.keys():
        return joined([message])
    return None


def joined(messages: list[Any]) -> str:
    """Return the text of messages whose content is a text or a list of parts; an assistant's reasoning comes before its content."""
    parts: list[str] = []
    for message in messages:
        content = message.get("content", message.get("text", message.get("value")))
        parts += [text for name in ("reasoning_content", "reasoning", "thinking") if isinstance(text := message.get(name), str)]
        if isinstance(content, list) and are_objects(content):
            parts.append(joined(content))
        elif isinstance(content, str):
            parts.append(content)
    return "".join(parts)


def are_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def has_member(value: RequestObject, name: str, key: str) -> bool:
    held = value.get(name)
    return isinstance(held, dict) and key in held


def objects_in(value: Any, depth: int = 0) -> Iterator[RequestObject]:
    """Yield the objects in `value`, the outer ones first."""
    if isinstance(value, dict):
        yield value
    if depth < DEPTH and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from objects_in(item, depth + 1)


def holders_of(value: RequestObject) -> list[RequestObject]:
    """Return a record and the objects in it that hold settings or counts."""
    return [value, *(held for name in HOLDERS if isinstance(held := value.get(name), dict))]


def facts_of(value: RequestObject) -> dict[str, Any]:
    """Return what a record gives about the outputs inside it: limits, reasons, counts."""
    known = {*LIMITS, *REASONS, *COUNTS}
    return {name: item for holder in reversed(holders_of(value)) for name, item in holder.items() if name in known}


def count_of(value: Any) -> int | None:
    found = next((value[name] for name in COUNTS if type(value.get(name)) is int), None) if isinstance(value, Mapping) else None
    return found if found is not None and found >= 0 else None


def first_int(names: tuple[str, ...], *holders: RequestObject) -> int | None:
    for holder in holders:
        for name in names:
            found = holder.get(name)
            if type(found) is int and found > 0:
                return found
    return None


def _at(values: list[Any] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def kind_of(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
    return kinds.get(type(value), "null")
