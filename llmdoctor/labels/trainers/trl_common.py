"""What TRL's trainers share: conversational rows, special tokens, the boundary between prompt and completion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.trainers.base import Task
from llmdoctor.labels.types import Row, TrainerError

_SUPPORTED = ("prompt", "chosen", "rejected", "completion", "messages")


def refuse_odd_columns(rows: Iterable[Row], names: tuple[str, ...]) -> None:
    """Raise QuestionError for a row whose columns `names` are not all texts or all lists of messages."""
    for row in rows:
        kinds = {_kind_of(row, name, row.columns[name]) for name in names if row.columns.get(name) is not None}
        if len(kinds) > 1:
            raise QuestionError(
                f"row {row.number}: {', '.join(names)}: a text stands beside a list of messages, expected one of the two in all of them"
            )


def _kind_of(row: Row, name: str, value: Any) -> type:
    if isinstance(value, str):
        return str
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return list
    raise QuestionError(f"row {row.number}: {name}: expected a text or a list of messages, found {type(value).__name__}")


def filled(rows: list[Row]) -> list[Row]:
    """Return the rows with the columns of all of them, None for those that a row does not have: `datasets` makes one table of a file."""
    first = rows[0].columns.keys() if rows else ()
    if all(row.columns.keys() == first for row in rows):
        return rows
    names = dict.fromkeys(name for row in rows for name in row.columns)
    return [Row(row.number, {name: row.columns.get(name) for name in names}) for row in rows]


def refuse_null_texts(rows: list[Row], field: str) -> None:
    """Raise what the eos added to a null text or completion raises (trl 1.0.0 sft_trainer.py:1103), as when rows of two kinds are in a file."""
    table = rows[0].columns.keys() if rows else ()
    pairs = "prompt" in table or "completion" in table
    names = [name for name in ("prompt", "completion", "text") if name in table] if pairs else [field] if field in table else []
    for row in rows if names else ():
        missing = [name for name in names if row.columns[name] is None]
        if missing:
            message = f"'NoneType' object has no attribute 'endswith': row {row.number} has no {', '.join(missing)}, other rows do"
            raise TrainerError("AttributeError", message, "trl sft_trainer.py add_eos")


def is_conversational(columns: Mapping[str, Any], content: bool = False) -> bool:
    """Return whether a row holds messages (trl data_utils.py is_conversational; 0.24.0 also asks for `content`)."""
    for key in _SUPPORTED:
        if columns.get(key) is not None:
            value = columns[key]
            if value == []:
                raise TrainerError("IndexError", f"list index out of range: {key} is an empty list", "trl data_utils.py is_conversational")
            first = value[0] if isinstance(value, list) else None
            return isinstance(first, dict) and "role" in first and (not content or "content" in first)
    return False


def from_value(columns: Mapping[str, Any]) -> bool:
    """Return whether a row is ShareGPT's: `conversations` of {from, value}."""
    value = columns.get("conversations")
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and "from" in first and "value" in first


def to_chatml(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with `from` and `value` renamed to `role` and `content`; the names of the roles stay (trl data_utils.py maybe_convert_to_chatml)."""
    out = dict(columns)
    for key in (*_SUPPORTED, "conversations"):
        if isinstance(out.get(key), list):
            out[key] = [_renamed(message) for message in out[key]]
    if "conversations" in out:
        out["messages"] = out.pop("conversations")
    return out


def _renamed(message: Any) -> Any:
    names = {"from": "role", "value": "content"}
    return {names.get(key, key): value for key, value in message.items()} if isinstance(message, dict) else message


def without_nulls(value: Any) -> Any:
    """Return a list or mapping without the keys that are null, at any depth (trl 0.24.0 utils.py remove_none_values)."""
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return value


def tools_of(columns: Mapping[str, Any], decodes: bool = True) -> Any:
    """Return the row's tools, decoded if they are JSON text. Raises TrainerError for a text in a release that does not decode it."""
    tools = columns.get("tools")
    if isinstance(tools, str) and not decodes:
        raise TrainerError(
            "ValueError", "tools should either be a JSON schema, or a callable function: the column holds a text", "the chat template"
        )
    try:
        return json.loads(tools) if isinstance(tools, str) else tools
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"tools: expected JSON, {error}") from None


def more_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row's chat_template_kwargs. Raises TrainerError for null ones, as `**None` does."""
    value = columns.get("chat_template_kwargs", {})
    if value is None:
        raise TrainerError(
            "TypeError", "'NoneType' object is not a mapping: a row has no chat_template_kwargs, others do", "trl sft_trainer.py"
        )
    if not isinstance(value, dict):
        raise QuestionError(f"chat_template_kwargs: expected an object, found {type(value).__name__}")
    return dict(value)


def column(columns: Mapping[str, Any], name: str) -> Any:
    """Return a column. Raises TrainerError as a missing column does."""
    if columns.get(name) is None:
        raise TrainerError("KeyError", f"the dataset has no column {name!r}; its columns are {', '.join(sorted(columns))}")
    return columns[name]


def set_eos(chat: Chat, token: str | None, *, strict: bool) -> None:
    """Make `token` the eos_token. Raises TrainerError if the vocabulary lacks it.

    Before trl 1.16 (`strict` false) a tokenizer with an unk_token takes any token, and unk becomes the eos (1.0.0 sft_trainer.py:711).
    """
    if token is None:
        return
    found = chat.encoder.token_id(token) if strict else chat.encoder.token_id_or_unknown(token)
    if found is None:
        raise TrainerError("ValueError", f"the specified eos_token ({token!r}) is not in the vocabulary", "trl sft_trainer.py")
    chat.encoder.names["eos_token"] = chat.encoder.token_of(found)


def check_pad(chat: Chat, token: str | None, *, strict: bool) -> None:
    """Make `token`, the tokenizer's own pad_token or its eos_token the pad_token. Raises TrainerError if the vocabulary lacks it."""
    chosen = token or chat.encoder.names["pad_token"] or chat.encoder.names["eos_token"]
    lookup = chat.encoder.token_id if strict else chat.encoder.token_id_or_unknown
    if chosen is None or lookup(chosen) is None:
        raise TrainerError("ValueError", f"the specified pad_token ({chosen!r}) is not in the vocabulary", "trl sft_trainer.py")
    chat.encoder.names["pad_token"] = chosen


def refuse_gone_fields(task: Task, kind: str) -> None:
    """Raise TypeError for limits of prompt and completion, which DPOConfig and KTOConfig of the modelled releases do not have (1.0.0, 1.8.0)."""
    gone = next((name for name in ("max_prompt_length", "max_completion_length") if name in task.config), None)
    if gone is not None:
        raise TrainerError("TypeError", f"{kind}.__init__() got an unexpected keyword argument {gone!r}", "trl")


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return how many leading ids are equal."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def boundary(prompt: list[int], whole: list[int], by_prefix: bool) -> int:
    """Return where the completion begins: after len(prompt) ids, or (trl 1.16 on) where the two tokenizations part."""
    return common_prefix(prompt, whole) if by_prefix else min(len(prompt), len(whole))
