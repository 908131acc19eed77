"""TRL's KTOTrainer (trl/trainer/kto_trainer.py `_prepare_dataset`, DataCollatorForUnpairedPreference): a prompt, a completion, a label.

The completion's tokens are the targets of desirable and undesirable rows alike; `label` decides the direction of the loss.
"""

from __future__ import annotations

from typing import Any

from llmdoctor.labels.packing import BATCH
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import (
    boundary,
    check_pad,
    column,
    is_conversational,
    more_of,
    refuse_gone_fields,
    refuse_odd_columns,
    tools_of,
)
from llmdoctor.labels.trainers.trl_dpo import BY_PREFIX, extract_prompt
from llmdoctor.labels.types import Row, Sequence, TrainerError, sequence_of

_DROPS = (1, 9)  # the first release that drops a prompt that fills max_length alone


def build(task: Task) -> list[Sequence]:
    """Return one sequence per row. Pairs (chosen, rejected) become two rows: all chosen of 1,000 rows, then all rejected."""
    refuse_gone_fields(task, "KTOConfig")
    if not task.rows:
        return []
    refuse_odd_columns(task.rows, ("prompt", "completion", "chosen", "rejected"))
    check_pad(task.chat, None, strict=False)
    first = task.rows[0].columns
    rows = task.rows
    if first.get("prompt") is None:
        rows = [Row(row.number, extract_prompt(row.columns)) for row in rows]
    if first.get("chosen") is not None and first.get("rejected") is not None:
        rows = [one for start in range(0, len(rows), BATCH) for one in _unpaired(rows[start : start + BATCH])]
    elif "label" not in first:
        raise TrainerError(
            "ValueError", "Column 'label' doesn't exist: KTO needs to know which completions are desirable", "trl kto_trainer.py"
        )
    length = task.config.get("max_length", 1024)
    parts = [_parts(task, row) for row in rows]
    if length is not None and task.version >= _DROPS:
        parts = [one for one in parts if one[2] < length]
    return [_sequence(number, ids, start, length) for number, ids, start in parts]


def _unpaired(rows: list[Row]) -> list[Row]:
    return [Row(row.number, {**row.columns, "completion": column(row.columns, side)}) for side in ("chosen", "rejected") for row in rows]


def _parts(task: Task, row: Row) -> tuple[int, list[int], int]:
    """Return the row's number, its ids, and where the completion begins."""
    columns, chat = row.columns, task.chat
    prompt, completion = column(columns, "prompt"), column(columns, "completion")
    if is_conversational(columns):
        options: dict[str, Any] = {"tools": tools_of(columns), **more_of(columns)}
        before = chat.ids(prompt, generation_prompt=True, **options)
        whole = chat.ids([*prompt, *completion], **options)
    else:
        eos = chat.encoder.names["eos_token"] or ""
        before = chat.encoder.encode(prompt).ids
        whole = chat.encoder.encode(prompt + (completion if completion.endswith(eos) else completion + eos)).ids
    start = boundary(before, whole, task.version >= BY_PREFIX)
    return row.number, before[:start] + whole[start:], start


def _sequence(row: int, ids: list[int], start: int, length: int | None) -> Sequence:
    one = sequence_of(ids, row, roles=["prompt"] * start + ["completion"] * (len(ids) - start))
    one.mask(0, start, "prompt")
    return one if length is None else one.part(0, length)


TRAINER = Trainer(
    name="trl-kto",
    library="trl",
    five_since=(1, 0),
    versions=("1.8.0", "1.9.2", "1.14.2", "1.16.0"),
    build=build,
    keys=frozenset({"max_length", "max_prompt_length", "max_completion_length"}),
    source="trl/trainer/kto_trainer.py",
    format="trl",
    relevant=(
        "chat_template_path",
        "dataset_kwargs",
        "truncation_mode",
        "eos_token",
        "pad_token",
    ),
)
