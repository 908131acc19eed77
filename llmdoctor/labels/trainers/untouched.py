"""`--trainer none`: the labels as the file holds them, or a conversation as the chat template renders it with every token a target."""

from __future__ import annotations

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import from_value, to_chatml
from llmdoctor.labels.types import IGNORED, STORED, Row, Sequence, sequence_of


def build(task: Task) -> list[Sequence]:
    """Return the sequences that the file holds."""
    return [_row(task, row) for row in task.rows]


def _refuse_odd_ids(number: int, name: str, ids: list[object], least: int) -> None:
    odd = next((one for one in ids if not isinstance(one, int) or isinstance(one, bool) or not least <= one < 2**31), None)
    if odd is not None:
        raise QuestionError(f"row {number}: {name}: expected token ids, found {str(odd)[:40]}")


def stored_sequence(row: Row) -> Sequence:
    """Return the sequence of a row with `input_ids`: with its `labels` if it has them, else with every token a target.

    Positions whose attention_mask is 0 are left out. Raises QuestionError for what is no list of ids.
    """
    columns = row.columns
    ids, labels, mask = columns.get("input_ids"), columns.get("labels"), columns.get("attention_mask")
    if not isinstance(ids, list):
        raise QuestionError(f"row {row.number}: input_ids: expected a list of token ids, found {type(ids).__name__}")
    _refuse_odd_ids(row.number, "input_ids", ids, 0)
    one = sequence_of(ids, row.number, source=STORED if isinstance(labels, list) else "input_ids without labels")
    if isinstance(labels, list):
        if len(labels) != len(ids):
            raise QuestionError(f"row {row.number}: {len(ids)} input_ids and {len(labels)} labels, expected as many")
        _refuse_odd_ids(row.number, "labels", [0 if label == IGNORED else label for label in labels], 0)
        one.labels = list(labels)
    if isinstance(mask, list) and len(mask) == len(ids) and 0 in mask:
        kept = [place for place, bit in enumerate(mask) if bit]
        one = Sequence([one.ids[at] for at in kept], [one.labels[at] for at in kept], [one.sources[at] for at in kept], rows=one.rows)
    return one


def _row(task: Task, row: Row) -> Sequence:
    columns = row.columns
    if isinstance(columns.get("input_ids"), list):
        return stored_sequence(row)
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
