"""`--trainer none`: the labels as the file holds them, or a conversation as the chat template renders it with every token a target."""

from __future__ import annotations

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import from_value, to_chatml
from llmdoctor.labels.types import Row, Sequence, sequence_of


def build(task: Task) -> list[Sequence]:
    """Return the sequences that the file holds."""
    return [_row(task, row) for row in task.rows]


def _refuse_odd_ids(number: int, ids: list[object]) -> None:
    odd = next((one for one in ids if not isinstance(one, int) or not 0 <= one < 2**31), None)
    if odd is not None:
        raise QuestionError(f"row {number}: input_ids: expected token ids, found {str(odd)[:40]}")


def _row(task: Task, row: Row) -> Sequence:
    columns = row.columns
    ids, labels = columns.get("input_ids"), columns.get("labels")
    if isinstance(ids, list):
        _refuse_odd_ids(row.number, ids)
        one = sequence_of(ids, row.number, source="the file's labels" if isinstance(labels, list) else "input_ids without labels")
        if isinstance(labels, list):
            if len(labels) != len(ids):
                raise QuestionError(f"row {row.number}: {len(ids)} input_ids and {len(labels)} labels, expected as many")
            one.labels = labels
        mask = columns.get("attention_mask")
        if isinstance(mask, list) and len(mask) == len(ids) and 0 in mask:
            kept = [place for place, bit in enumerate(mask) if bit]
            one = Sequence([one.ids[at] for at in kept], [one.labels[at] for at in kept], [one.sources[at] for at in kept], rows=one.rows)
        return one
    columns = to_chatml(columns) if from_value(columns) else columns
    if isinstance(columns.get("messages"), list):
        whole = task.chat.tokenized(columns["messages"], tools=columns.get("tools"))
        return sequence_of(whole.ids, row.number, roles=whole.roles)
    text = columns.get(task.get("text_column", "text"))
    if not isinstance(text, str):
        raise QuestionError(
            f"row {row.number}: expected input_ids, messages, conversations or text, found {', '.join(sorted(columns)) or 'nothing'}"
        )
    encoded = task.chat.encoder.encode(text)
    return sequence_of(encoded.ids, row.number, roles=["text"] * len(encoded.ids))


TRAINER = Trainer(name="none", library="", versions=(), build=build, keys=frozenset({"text_column"}), source="the file itself")
