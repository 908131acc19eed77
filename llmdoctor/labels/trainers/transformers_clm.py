"""A script with transformers' Trainer: a tokenizer call, then one of the library's collators over the whole file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.collators import flattened, language_modeling
from llmdoctor.labels.trainers.base import Task, Trainer, apply_processing_class
from llmdoctor.labels.trainers.trl_common import column
from llmdoctor.labels.trainers.trl_legacy import truncated
from llmdoctor.labels.trainers.untouched import stored_sequence
from llmdoctor.labels.types import Row, Sequence, TrainerError, sequence_of

_TOKENIZER = frozenset({"add_special_tokens", "truncation", "max_length", "add_generation_prompt", "tools", "padding"})


def build(task: Task) -> list[Sequence]:
    """Return the sequences of the file as one batch of the collator."""
    apply_processing_class(task)
    call = task.get("tokenizer") or {}
    for key in call:
        if key not in _TOKENIZER:
            raise QuestionError(
                f"tokenizer.{key}: this argument of the tokenizer call is not modelled, leave it out with --without tokenizer.{key}"
            )
    collator = task.get("collator") or {"class": "DataCollatorForLanguageModeling", "mlm": False}
    name = collator.get("class")
    if name not in _COLLATORS:
        raise QuestionError(f"collator.class: {name!r} is not modelled, expected one of {', '.join(_COLLATORS)}")
    return _COLLATORS[name]([_tokenized(task, row, call) for row in task.rows], task, collator)


def _tokenized(task: Task, row: Row, call: Mapping[str, Any]) -> Sequence:
    columns, chat = row.columns, task.chat
    if columns.get("input_ids") is not None:
        return stored_sequence(row)  # the dataset is tokenized already
    length = call.get("max_length") if call.get("truncation") else None
    if columns.get("messages") is not None:
        whole = chat.tokenized(columns["messages"], generation_prompt=bool(call.get("add_generation_prompt")), tools=call.get("tools"))
        return sequence_of(whole.ids, row.number, roles=whole.roles).part(0, length or len(whole.ids))
    text = column(columns, task.get("text_column", "text"))
    if task.get("append_eos", False):
        text += chat.encoder.names["eos_token"] or ""
    special = call.get("add_special_tokens", True)
    ids = chat.encoder.encode(text, special=special).ids
    one = sequence_of(ids, row.number, roles=["text"] * len(ids))
    return truncated(one, length or len(ids), chat.encoder.encode("", special=special).ids)


def _language_modeling(rows: list[Sequence], task: Task, collator: Mapping[str, Any]) -> list[Sequence]:
    """Labels are made of the ids: those of the dataset are not used."""
    if collator.get("mlm", True):
        raise QuestionError(
            "collator.mlm: masked language modelling draws its targets at random, which cannot be predicted; expected false"
        )
    return language_modeling(rows, task.chat.encoder.pad_id)


def _seq2seq(rows: list[Sequence], task: Task, _collator: Mapping[str, Any]) -> list[Sequence]:
    """Labels are kept as they are given; only the collator's own padding is ignored (data_collator.py DataCollatorForSeq2Seq)."""
    if task.get("labels") != "copy" and any("labels" not in row.columns for row in task.rows):
        raise TrainerError("KeyError", "the dataset has no column 'labels', which DataCollatorForSeq2Seq pads")
    if task.chat.encoder.pad_id is None:
        raise TrainerError("ValueError", "the tokenizer does not have a pad token", "transformers data_collator.py")
    return rows


def _flattened(rows: list[Sequence], _task: Task, _collator: Mapping[str, Any]) -> list[Sequence]:
    return flattened(rows)


_COLLATORS: dict[str, Callable[[list[Sequence], Task, Mapping[str, Any]], list[Sequence]]] = {
    "DataCollatorForLanguageModeling": _language_modeling,
    "DataCollatorForSeq2Seq": _seq2seq,
    "DataCollatorWithFlattening": _flattened,
}
TRAINER = Trainer(
    name="transformers-clm",
    library="transformers",
    versions=("4.46.3", "5.23.0"),
    build=build,
    keys=frozenset({"collator", "tokenizer", "text_column", "append_eos", "labels", "processing_class"}),
    source="transformers/data/data_collator.py",
    format="transformers",
)
