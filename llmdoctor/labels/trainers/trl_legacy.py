"""TRL's SFTTrainer before its own collator, 0.12 (trl/trainer/sft_trainer.py, trl/extras/dataset_formatting.py, trl/trainer/utils.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.collators import language_modeling
from llmdoctor.labels.trainers.base import Task, apply_processing_class
from llmdoctor.labels.trainers.untouched import stored_sequence
from llmdoctor.labels.types import Row, Sequence, TrainerError, sequence_of

COLLATOR = "DataCollatorForCompletionOnlyLM"


def build(task: Task) -> list[Sequence]:
    """Return the sequences that SFTTrainer 0.12 trains on."""
    apply_processing_class(task)
    if task.get("packing", False) and task.chat.encoder.pad_id is not None:
        raise QuestionError(
            "packing: trl 0.12 packs in a random order, which cannot be predicted; --without packing shows the rows before it"
        )
    collated = language_modeling([_tokenized(task, row) for row in task.rows], task.chat.encoder.pad_id)
    collator = task.get("data_collator")
    if collator is None:
        return collated
    response = _marker(task, collator, "response_template") or []
    instruction = _marker(task, collator, "instruction_template")
    for one in collated:
        if instruction is None:
            only_last(one, response)
        else:
            between(one, response, instruction)
    return collated


def _marker(task: Task, collator: Mapping[str, Any], name: str) -> list[int] | None:
    value = collator.get(name)
    return task.chat.encoder.encode(value, special=False).ids if isinstance(value, str) else value


def _tokenized(task: Task, row: Row) -> Sequence:
    """Chat and instruction formats go through the template without more special tokens; other text gets those of the tokenizer."""
    columns, chat = row.columns, task.chat
    if isinstance(columns.get("input_ids"), list):
        return sequence_of(stored_sequence(row).ids, row.number)
    length = task.get("max_seq_length", task.get("max_length", 1024))
    talk = _messages(columns)
    if talk is not None:
        whole = chat.tokenized(talk)
        return sequence_of(whole.ids, row.number, roles=whole.roles).part(0, length)
    name = task.get("dataset_text_field", "text")
    if not isinstance(columns.get(name), str):
        raise TrainerError("KeyError", f"the dataset has no column {name!r}", "trl 0.12.2 sft_trainer.py")
    encoded = chat.encoder.encode(columns[name])
    one = sequence_of(encoded.ids, row.number, roles=["text"] * len(encoded.ids))
    return truncated(one, length, chat.encoder.encode("").ids)


def truncated(one: Sequence, length: int, special: list[int]) -> Sequence:
    """Return at most `length` tokens; the tokenizer's own truncation keeps the token that its post-processor adds after the text.

    `special` are the ids of an empty text: what the post-processor adds.
    """
    if len(one.ids) <= length:
        return one
    tail = 1 if len(special) > 1 and one.ids[-1] == special[-1] else 0
    kept = one.part(0, length - tail)
    if tail:
        end = one.part(len(one.ids) - 1, len(one.ids))
        for name in ("ids", "labels", "sources", "roles"):
            getattr(kept, name).extend(getattr(end, name))
    return kept


def _messages(columns: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the messages of a dataset that has exactly the columns of ChatML or of instructions (dataset_formatting.py:24)."""
    for name in ("messages", "conversations"):
        value = columns.get(name)
        if isinstance(value, list):
            exact = all(isinstance(one, dict) and set(one) == {"role", "content"} for one in value)
            return value if exact else None
    if set(columns) == {"prompt", "completion"} and all(isinstance(value, str) for value in columns.values()):
        return [{"role": "user", "content": columns["prompt"]}, {"role": "assistant", "content": columns["completion"]}]
    return None


def find(labels: list[int], marker: list[int]) -> list[int]:
    """Return the positions at which `marker` begins in `labels`."""
    size = len(marker)
    return [at for at in range(len(labels) - size + 1) if labels[at : at + size] == marker] if size else []


def only_last(one: Sequence, response: list[int]) -> None:
    """Train what follows the last response marker; without one, nothing (trl 0.12.2 utils.py:166)."""
    found = find(one.labels, response)
    if found:
        one.mask(0, found[-1] + len(response), f"{COLLATOR}: before the last response_template")
    else:
        one.mask(0, len(one.ids), f"{COLLATOR}: response_template was not found")


def between(one: Sequence, response: list[int], instruction: list[int]) -> None:
    """Train from each response marker to the next instruction marker (trl 0.12.2 utils.py:183)."""
    answers = [at + len(response) for at in find(one.labels, response)]
    if not answers:
        one.mask(0, len(one.ids), f"{COLLATOR}: response_template was not found")
    instructions = find(one.labels, instruction) if answers else []
    if not instructions:
        one.mask(0, len(one.ids), f"{COLLATOR}: instruction_template was not found")
    if instructions and answers and instructions[0] > answers[0]:
        instructions = [0, *instructions]
    for number, (start, end) in enumerate(zip(instructions, answers, strict=False)):
        one.mask(start if number else 0, end, f"{COLLATOR}: before a response_template")
    if instructions and len(answers) < len(instructions):
        one.mask(instructions[-1], len(one.ids), f"{COLLATOR}: after the last instruction_template")
