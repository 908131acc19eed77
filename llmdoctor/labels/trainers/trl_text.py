"""TRL's SFTTrainer 0.15 and 0.16: every row becomes a text first, which is tokenized with the tokenizer's special tokens.

A template that writes a bos and a tokenizer that adds one give two (trl 0.15.2 and 0.16.1 sft_trainer.py `_prepare_dataset`). 0.16 appends the
eos id to every row that does not end with it, conversations included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import roles_of
from llmdoctor.labels.collators import language_modeling
from llmdoctor.labels.packing import wrapped
from llmdoctor.labels.trainers.base import Task, apply_processing_class
from llmdoctor.labels.trainers.trl_common import check_pad, column, is_conversational, to_chatml
from llmdoctor.labels.trainers.untouched import stored_sequence
from llmdoctor.labels.types import Row, Sequence, TrainerError, sequence_of

_OWN_COLLATOR = (0, 16)
FIRST = "DataCollatorWithFlattening: the first token of a document is ignored"


def build(task: Task) -> list[Sequence]:
    """Return the sequences that SFTTrainer 0.15 or 0.16 trains on."""
    apply_processing_class(task)
    if task.config.get("data_collator") is not None:
        raise QuestionError("data_collator: not modelled for trl 0.15 and 0.16; --without data_collator answers for the default")
    own = task.version >= _OWN_COLLATOR
    if own and not task.get("padding_free", False):
        check_pad(task.chat, task.get("pad_token"), strict=False)
    built = [_tokenized(task, row, own) for row in task.rows]
    length = _length(task)
    if task.get("packing", False):
        if length is None:
            raise TrainerError("ValueError", "when packing is enabled, the maximum length can't be `None`", "trl sft_trainer.py")
        built = wrapped(built, length)
    elif length is not None:
        _refuse_without_mask(task, own)
        built = [one.part(0, length) for one in built]
    if not own:
        return language_modeling(built, task.chat.encoder.pad_id)
    for one in built if task.get("padding_free", False) else ():
        one.mask(0, 1, FIRST)
    return built


def _refuse_without_mask(task: Task, own: bool) -> None:
    """Raise what truncating tokenized rows without attention_mask raises (trl 0.15.2 sft_trainer.py truncate)."""
    first = task.rows[0].columns if task.rows else {}
    if not own and "input_ids" in first and "attention_mask" not in first:
        raise TrainerError("KeyError", "'attention_mask'", "trl 0.15.2 sft_trainer.py truncate")


def _length(task: Task) -> int | None:
    for name in ("max_seq_length", "max_length"):  # 0.16 takes both, and the older name wins (sft_config.py:193)
        if task.config.get(name) is not None:
            value: int = task.config[name]
            return value
    return None if {"max_seq_length", "max_length"} & task.config.keys() else 1024


def _tokenized(task: Task, row: Row, own: bool) -> Sequence:
    if isinstance(row.columns.get("input_ids"), list):
        return sequence_of(stored_sequence(row).ids, row.number)
    chat = task.chat
    text, talk = _text(task, row.columns)
    encoded = chat.encoder.encode(text)
    ids = list(encoded.ids)
    roles = roles_of(text, encoded, talk) if talk and chat.detail else ["text"] * len(ids)
    eos = chat.encoder.eos_id
    if own and eos is not None:
        if not ids:
            raise TrainerError("IndexError", "a row without tokens", "trl 0.16.1 sft_trainer.py tokenize")
        if ids[-1] != eos:
            ids.append(eos)
            roles.append("")
    return sequence_of(ids, row.number, roles=roles)


def _text(task: Task, columns: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of a row and its messages (none for plain text)."""
    columns = to_chatml(columns)
    if columns.get("prompt") is not None and columns.get("completion") is not None:
        name = "messages" if is_conversational(columns, content=True) else "text"
        columns[name] = columns.pop("prompt") + columns.pop("completion")
    if is_conversational(columns, content=True):
        talk = column(columns, "messages")
        columns["text"] = task.chat.render(talk).text or ""
    else:
        talk = []
    return column(columns, task.get("dataset_text_field", "text")), talk
