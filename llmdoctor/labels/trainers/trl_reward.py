"""TRL's RewardTrainer (trl/trainer/reward_trainer.py `_prepare_dataset`, DataCollatorForPreference): two sequences per pair, and no token is a target.

The score of a sequence is read at its last token, so what matters is that it ends with the end token. Pairs with a side longer than max_length are
dropped, not truncated.
"""

from __future__ import annotations

from typing import Any

from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import check_pad, column, is_conversational, more_of, refuse_odd_columns, set_eos, tools_of
from llmdoctor.labels.types import Row, Sequence, sequence_of

SCORE = "RewardTrainer: the score is read at the last token, no token is a target"


def build(task: Task) -> list[Sequence]:
    """Return, for each pair, the chosen sequence and then the rejected one."""
    if not task.rows:
        return []
    refuse_odd_columns(task.rows, ("prompt", "chosen", "rejected"))
    strict = task.version >= (1, 1)
    set_eos(task.chat, task.get("eos_token"), strict=strict)
    check_pad(task.chat, task.get("pad_token"), strict=strict)
    length = task.config.get("max_length", 1024)
    pairs = [(row.number, [_ids(task, row, side) for side in ("chosen", "rejected")]) for row in task.rows]
    kept = [(number, sides) for number, sides in pairs if length is None or all(len(ids) <= length for ids in sides)]
    return [_unscored(number, ids) for number, sides in kept for ids in sides]


def _ids(task: Task, row: Row, side: str) -> list[int]:
    columns, chat = row.columns, task.chat
    ready = columns.get(f"{side}_ids") or columns.get(f"{side}_input_ids")  # tokenized already (1.0.0 reward_trainer.py:546)
    if isinstance(ready, list):
        return ready
    whole: Any = column(columns, side)
    if is_conversational(columns):
        prompt = columns.get("prompt") or []
        return chat.ids([*prompt, *whole], tools=tools_of(columns), **more_of(columns))
    eos = chat.encoder.names["eos_token"] or ""
    text = (columns.get("prompt") or "") + (whole if whole.endswith(eos) else whole + eos)
    return chat.encoder.encode(text).ids


def _unscored(row: int, ids: list[int]) -> Sequence:
    one = sequence_of(ids, row)
    one.mask(0, len(ids), SCORE)
    return one


TRAINER = Trainer(
    name="trl-reward",
    library="trl",
    five_since=(1, 0),
    versions=("0.24.0", "1.0.0", "1.16.0"),
    build=build,
    keys=frozenset({"max_length", "eos_token", "pad_token"}),
    source="trl/trainer/reward_trainer.py",
    format="trl",
    relevant=("chat_template_path", "dataset_kwargs", "center_rewards_coefficient"),
    scores_last=True,
)
