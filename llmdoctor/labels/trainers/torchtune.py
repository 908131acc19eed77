"""torchtune 0.6.1 with the Qwen2.5 tokenizer (models/qwen2_5/_tokenizer.py, data/_messages.py, datasets/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.packing import split_across
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import column
from llmdoctor.labels.types import IGNORED, Row, Sequence, TrainerError, sequence_of

_TOKENIZER = "torchtune.models.qwen2_5.qwen2_5_tokenizer"
_PADDING = 0  # PackedDataset(padding_idx=0), which the recipes leave alone (datasets/_packed.py)
_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
_STYLES = {"sharegpt": ("conversations", "from", "value"), "openai": ("messages", "role", "content")}


@dataclass(frozen=True, slots=True)
class _Message:
    role: str
    text: str
    masked: bool


def build(task: Task) -> list[Sequence]:
    """Return the sequences that the recipe's dataset yields."""
    tokenizer, dataset = task.get("tokenizer") or {}, task.get("dataset") or {}
    if tokenizer.get("_component_") != _TOKENIZER:
        raise QuestionError(f"tokenizer._component_: {tokenizer.get('_component_')!r} is not modelled, expected {_TOKENIZER}")
    for key in tokenizer.keys() - {"_component_", "max_seq_len", "path", "merges_file"}:
        raise QuestionError(f"tokenizer.{key}: this argument is not modelled")
    longest = tokenizer.get("max_seq_len")
    kind = str(dataset.get("_component_", "")).rpartition(".")[2]
    if kind not in _DATASETS:
        raise QuestionError(
            f"dataset._component_: {dataset.get('_component_')!r} is not modelled, expected torchtune.datasets.{'|'.join(_DATASETS)}"
        )
    known, messages = _DATASETS[kind]
    for key in dataset.keys() - known:
        raise QuestionError(f"dataset.{key}: this argument of {kind} is not modelled")
    out = [
        _text(task.chat, row, dataset, longest) if messages is None else _chat(task.chat, row, messages(row, dataset), longest)
        for row in task.rows
    ]
    if not dataset.get("packed"):
        return out
    if longest is None:
        raise TrainerError("ValueError", "PackedDataset requires a max_seq_len to be set on the tokenizer", "torchtune datasets/_chat.py")
    return split_across(out, longest, _PADDING, split=kind == "text_completion_dataset")


def _conversation(row: Row, dataset: Mapping[str, Any]) -> list[_Message]:
    style = dataset.get("conversation_style")
    if style not in _STYLES:
        raise TrainerError("ValueError", f"unsupported conversation style: {style}", "torchtune datasets/_chat.py")
    default, role, content = _STYLES[style]
    train_all, system = dataset.get("train_on_input", False), dataset.get("new_system_prompt")
    out = [] if system is None else [_Message("system", system, True)]
    for message in _listed(row, dataset.get("conversation_column", default), role, content):
        if style == "sharegpt" and message[role] not in _ROLES:
            raise TrainerError("KeyError", repr(message[role]), "torchtune data/_messages.py")
        name = _ROLES[message[role]] if style == "sharegpt" else message[role]
        if name != "system" or system is None:
            out.append(_Message(name, message[content] or "", name != "assistant" and not train_all))
    return _checked(out)


def _listed(row: Row, name: str, role: str, content: str) -> list[Mapping[str, Any]]:
    """Return the messages of a row. Raises QuestionError for what is no list of objects with texts for both keys."""
    found = column(row.columns, name)
    texts = (str, type(None))
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and isinstance(one.get(role), str) and content in one and isinstance(one[content], texts) for one in found
    ):
        raise QuestionError(f"row {row.number}: {name}: expected a list of objects with texts for {role} and {content}")
    return found


def _instruction(row: Row, dataset: Mapping[str, Any]) -> list[_Message]:
    names = {"input": "input", "output": "output", **(dataset.get("column_map") or {})}
    system = dataset.get("new_system_prompt")
    out = [] if system is None else [_Message("system", system, True)]
    out.append(_Message("user", column(row.columns, names["input"]), not dataset.get("train_on_input", False)))
    return _checked([*out, _Message("assistant", column(row.columns, names["output"]), False)])


def _checked(messages: list[_Message]) -> list[_Message]:
    """Return the messages. Raises TrainerError as validate_messages does (data/_messages.py:634)."""
    last = "assistant"
    for number, message in enumerate(messages):
        wrong = (
            (message.role == "assistant" and last != "user")
            or (message.role == last == "user")
            or (message.role == "system" and number > 0)
        )
        if wrong:
            raise TrainerError(
                "ValueError", f"the {message.role} message at index {number} is out of order", "torchtune data/_messages.py:634"
            )
        last = message.role
    if len(messages) < 2:
        raise TrainerError("ValueError", f"messages must be at least length 2, but got {len(messages)}", "torchtune data/_messages.py:655")
    return messages


def _chat(chat: Chat, row: Row, messages: list[_Message], longest: int | None) -> Sequence:
    """A message is header, content and footer, all masked alike; the last assistant message has the eos in place of its footer."""
    start, end = (chat.encoder.token_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    ids: list[int] = []
    masked: list[bool] = []
    roles: list[str] = []
    for number, message in enumerate(messages):
        head = [start or 0, *_ids(chat, f"{message.role}\n")]
        body = _ids(chat, message.text)
        last = message.role == "assistant" and number == len(messages) - 1
        tail = [] if last else [end or 0, *_ids(chat, "\n")]
        ids += head + body + tail
        roles += [""] * len(head) + [message.role] * len(body) + [""] * len(tail)
        masked += [message.masked] * (len(head) + len(body) + len(tail))
        if longest and len(ids) >= longest:
            break
    ids.append(end or 0)
    masked.append(masked[-1])
    roles.append("")
    one = sequence_of(ids, row.number, roles=roles)
    for place, flag in enumerate(masked):
        if flag:
            one.mask(place, place + 1, "masked: not an assistant message")
    return one if longest is None else _cut(one, longest, end or 0)


def _cut(one: Sequence, longest: int, eos: int) -> Sequence:
    """With any max_seq_len the last token becomes the eos and is ignored, even if nothing is cut (models/qwen2_5/_tokenizer.py:191)."""
    one = one.part(0, longest)
    one.ids[-1] = eos
    one.labels[-1], one.sources[-1] = IGNORED, "max_seq_len: torchtune masks the last token of every sequence"
    return one


def _text(chat: Chat, row: Row, dataset: Mapping[str, Any], longest: int | None) -> Sequence:
    ids = _ids(chat, column(row.columns, dataset.get("column", "text")))
    if dataset.get("add_eos", True):
        ids.append(chat.encoder.token_id("<|im_end|>") or 0)
    one = sequence_of(ids, row.number, roles=["text"] * len(ids))
    return one if longest is None else one.part(0, longest - 1)


def _ids(chat: Chat, text: str) -> list[int]:
    return chat.encoder.encode(text, special=False).ids


_COMMON = frozenset({"_component_", "source", "split", "data_files", "packed", "train_on_input", "new_system_prompt"})
_DATASETS: dict[str, tuple[frozenset[str], Any]] = {
    "chat_dataset": (_COMMON | {"conversation_column", "conversation_style"}, _conversation),
    "instruct_dataset": (_COMMON | {"column_map"}, _instruction),
    "text_completion_dataset": (frozenset({"_component_", "source", "split", "data_files", "packed", "column", "add_eos"}), None),
}
TRAINER = Trainer(
    name="torchtune",
    library="torchtune",
    versions=("0.6.1",),
    build=build,
    keys=frozenset({"tokenizer", "dataset"}),
    source="torchtune/models/qwen2_5/_tokenizer.py",
    fixes={"max_seq_len": "tokenizer:\n  max_seq_len: null"},
    renders_roles=False,
    format="torchtune",
)
