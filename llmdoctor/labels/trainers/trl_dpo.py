"""TRL's DPOTrainer (trl/trainer/dpo_trainer.py `_prepare_dataset`, DataCollatorForPreference): two sequences per pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import (
    check_pad,
    column,
    common_prefix,
    filled,
    is_conversational,
    more_of,
    refuse_gone_fields,
    refuse_odd_columns,
    set_eos,
    tools_of,
)
from llmdoctor.labels.types import Row, Sequence, TrainerError, sequence_of

BY_PREFIX = (1, 14)  # the first release in which the completion begins where the tokenizations part
_DROPS = (1, 9)  # the first release that drops a prompt that fills max_length alone
_STRICT = (1, 1)


def build(task: Task) -> list[Sequence]:
    """Return, for each pair, the chosen sequence and then the rejected one; the completion's tokens are the targets."""
    refuse_gone_fields(task, "DPOConfig")
    if not task.rows:
        return []
    task = replace(task, rows=filled(task.rows))
    refuse_odd_columns(task.rows, ("prompt", "chosen", "rejected"))
    set_eos(task.chat, task.get("eos_token"), strict=task.version >= _STRICT)
    if task.get("pad_token") is not None:
        check_pad(task.chat, task.get("pad_token"), strict=task.version >= _STRICT)
    implicit = task.rows[0].columns.get("prompt") is None
    rows = [Row(row.number, extract_prompt(row.columns) if implicit else row.columns) for row in task.rows]
    if not is_conversational(rows[0].columns):
        rows = [Row(row.number, _ended(row.columns, task.chat.encoder.names["eos_token"] or "")) for row in rows]
    return [one for row in rows for one in _pair(task, row)]


def extract_prompt(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the common beginning of chosen and rejected as the prompt (trl data_utils.py extract_prompt)."""
    chosen, rejected = column(columns, "chosen"), column(columns, "rejected")
    shorter = min(len(chosen), len(rejected))
    at = next((at for at in range(shorter) if chosen[at] != rejected[at]), None)
    if at is None:
        at = max(shorter - 1, 0)  # the library's loop variable keeps its last value
    elif chosen[at - 1] == " ":
        at -= 1
    return {**columns, "prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


def _ended(columns: Mapping[str, Any], eos: str) -> dict[str, Any]:
    for key in ("chosen", "rejected"):
        if key in columns and columns[key] is None:
            raise TrainerError(
                "AttributeError", f"'NoneType' object has no attribute 'endswith': a row has no {key}", "trl dpo_trainer.py add_eos"
            )
    sides = {key: column(columns, key) for key in ("chosen", "rejected")}
    return {**columns, **{key: text if text.endswith(eos) else text + eos for key, text in sides.items()}}


def _pair(task: Task, row: Row) -> list[Sequence]:
    columns, chat = row.columns, task.chat
    options = {"tools": tools_of(columns), **more_of(columns)}
    sides = [column(columns, name) for name in ("chosen", "rejected")]
    if is_conversational(columns):
        prompt = chat.ids(columns["prompt"], generation_prompt=True, **options)
        wholes = [chat.ids([*columns["prompt"], *side], **options) for side in sides]
    else:
        prompt = chat.encoder.encode(columns["prompt"]).ids
        wholes = [chat.encoder.encode(columns["prompt"] + side).ids for side in sides]
    start = min(common_prefix(prompt, whole) for whole in wholes) if task.version >= BY_PREFIX else len(prompt)
    length = task.config.get("max_length", 1024)
    if task.version >= _DROPS and length is not None and start >= length and task.get("truncation_mode", "keep_start") == "keep_start":
        return []  # a prompt that fills max_length alone is dropped (trl 1.16.0 dpo_trainer.py:1140; from 1.9 on)
    return [_side(task, row.number, prompt[:start] + whole[start:], start) for whole in wholes]


def _side(task: Task, row: int, ids: list[int], start: int) -> Sequence:
    one = sequence_of(ids, row, roles=["prompt"] * start + ["completion"] * (len(ids) - start))
    one.mask(0, start, "prompt")
    length = task.config.get("max_length", 1024)
    if length is None:
        return one
    return (
        one.part(0, length) if task.get("truncation_mode", "keep_start") == "keep_start" else one.part(max(len(ids) - length, 0), len(ids))
    )


TRAINER = Trainer(
    name="trl-dpo",
    library="trl",
    five_since=(1, 0),
    versions=("1.0.0", "1.9.2", "1.14.2", "1.16.0"),
    build=build,
    keys=frozenset({"max_length", "truncation_mode", "eos_token", "pad_token", "max_prompt_length", "max_completion_length"}),
    source="trl/trainer/dpo_trainer.py",
    format="trl",
    relevant=(
        "chat_template_path",
        "dataset_kwargs",
        "shuffle_dataset",
        "tools",
        "datasets",
    ),
)
