"""TRL's SFTTrainer from 0.17 on (trl/trainer/sft_trainer.py `_prepare_dataset` and DataCollatorForLanguageModeling)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.packing import best_fit_decreasing, wrapped
from llmdoctor.labels.trainers import trl_legacy, trl_text
from llmdoctor.labels.trainers.base import Task, Trainer, apply_processing_class
from llmdoctor.labels.trainers.trl_common import (
    boundary,
    check_pad,
    column,
    filled,
    from_value,
    is_conversational,
    more_of,
    refuse_null_texts,
    refuse_odd_columns,
    set_eos,
    to_chatml,
    tools_of,
    without_nulls,
)
from llmdoctor.labels.trainers.trl_rules import VERSIONS, ReleaseRules, rules_for, unknown_field
from llmdoctor.labels.trainers.trl_templates import trained_with
from llmdoctor.labels.trainers.untouched import stored_sequence
from llmdoctor.labels.types import Row, Sequence, TrainerError, sequence_of

PROMPT, ASSISTANT = "completion_only_loss", "assistant_only_loss"
FIRST = "padding-free collator: the first token of a document is ignored"


def build(task: Task) -> list[Sequence]:
    """Return the sequences that SFTTrainer trains on."""
    unknown = unknown_field(task.version, set(task.config))
    if unknown is not None:
        raise TrainerError("TypeError", f"SFTConfig.__init__() got an unexpected keyword argument {unknown!r}", "trl sft_config.py")
    if task.version < (0, 15):
        return trl_legacy.build(task)
    if task.version < (0, 17):
        return trl_text.build(task)
    if not task.rows:
        return []
    task = replace(task, rows=filled(task.rows))
    rules, first = rules_for(task.version), task.rows[0].columns
    refuse_odd_columns(task.rows, ("prompt", "completion"))
    if isinstance(first.get("messages"), str):
        raise QuestionError("messages: expected a list of messages, found a text: decode it before the trainer gets it")
    if rules.reads_labels and "labels" in first and "input_ids" not in first:
        raise QuestionError(
            "labels: SFTTrainer's collator takes a column of this name as the labels of the tokens, and these rows are not tokenized: remove it"
        )
    _prepare_tokenizer(task, rules, first)
    only_completion = task.get("completion_only_loss", "prompt" in first and ("completion" in first or not rules.needs_completion))
    if "input_ids" in first:
        built = [_ready(row, rules, only_completion, bool(task.get("packing", False))) for row in task.rows]
    else:
        forget = task.get("packing", False) and not rules.packs_masks
        chat = trained_with(task) if rules.training_templates and task.get("assistant_only_loss", False) else task.chat
        built = [_masked(_tokenized(task, chat, rules, row), only_completion, forget) for row in _with_eos(task, rules)]
    return _packed(task, rules, built) if task.get("packing", False) else _cut(task, rules, built)


def _ready(row: Row, rules: ReleaseRules, only_completion: bool, packing: bool) -> Sequence:
    """Return a row that is tokenized already: its own labels, or its ids as targets; masks that it holds apply to both."""
    one = stored_sequence(row)
    if not rules.reads_labels or (packing and not rules.packs_labels):
        one = sequence_of(one.ids, row.number)
    masks = {name: row.columns.get(name) for name in ("completion_mask", "assistant_masks")}
    for name, mask in masks.items():
        used = (rules.packs_masks or not packing) and (name != "completion_mask" or only_completion)
        if isinstance(mask, list) and used and not (rules.packs_labels and isinstance(row.columns.get("labels"), list)):
            one.keep(mask, f"the dataset's {name}")
    return one


def _prepare_tokenizer(task: Task, rules: ReleaseRules, first: Mapping[str, Any]) -> None:
    """Set the special tokens, and raise what the constructor raises before it reads the data."""
    only = task.get("assistant_only_loss", False)
    apply_processing_class(task)
    set_eos(task.chat, task.get("eos_token"), strict=rules.strict_vocabulary)
    if only and not is_conversational(first, rules.needs_content):
        raise TrainerError("ValueError", "assistant_only_loss=True, but the dataset is not conversational", "trl sft_trainer.py")
    check_pad(task.chat, task.get("pad_token"), strict=rules.strict_vocabulary)
    free = task.get("padding_free", False) and not task.get("packing", False)
    if free and rules.padding_free_needs_no_length and _length(task) is not None:
        raise TrainerError("ValueError", "padding_free=True without packing does not enforce max_length", "trl 1.0.0 sft_trainer.py:925")


def _length(task: Task) -> int | None:
    """Return max_length: null turns truncation off, a missing key is 1024 (trl sft_config.py)."""
    for name in ("max_length", "max_seq_length"):
        if name in task.config:
            value: int | None = task.config[name]
            return value
    return 1024


def _with_eos(task: Task, rules: ReleaseRules) -> list[Row]:
    """Return the rows as they are tokenized: ShareGPT renamed, and the eos string added to plain text and completions."""
    rows = task.rows
    if from_value(rows[0].columns):
        rows = [Row(row.number, to_chatml(row.columns)) for row in rows]
    eos = task.chat.encoder.names["eos_token"] or ""
    name = rules.eos_column or task.get("dataset_text_field", "text")
    talks = is_conversational(rows[0].columns, rules.needs_content)
    if not talks or ("messages" in rows[0].columns and {"prompt", "completion"} & rows[0].columns.keys()):
        refuse_null_texts(rows, name)  # trl looks into one of several columns, by chance
    if talks:
        return rows
    return [Row(row.number, _ended(row.columns, name, eos)) for row in rows]


def _ended(columns: Mapping[str, Any], name: str, eos: str) -> dict[str, Any]:
    out = dict(columns)
    key = name if isinstance(out.get(name), str) and not out[name].endswith(eos) else "completion"
    if isinstance(out.get(key), str) and not out[key].endswith(eos):
        out[key] += eos
    return out


@dataclass(frozen=True, slots=True)
class _Tokenized:
    row: int
    ids: list[int]
    roles: list[str]
    completion: int | None = None  # where the completion begins
    assistant: list[int] | None = None  # 1 for tokens of a {% generation %} block


def _tokenized(task: Task, chat: Chat, rules: ReleaseRules, row: Row) -> _Tokenized:
    columns = row.columns
    if rules.drops_nulls and _nested(columns):
        columns = {name: without_nulls(value) for name, value in columns.items()}
    talks = is_conversational(columns, rules.needs_content)
    only = bool(task.get("assistant_only_loss", False))
    options = {**more_of(columns), "tools": tools_of(columns, rules.decodes_tools)} if rules.passes_tools else {}
    if columns.get("prompt") is not None and talks:
        prompt = chat.render(columns["prompt"], generation_prompt=rules.generation_prompt, **options).text or ""
        whole = chat.tokenized([*columns["prompt"], *column(columns, "completion")], mask=only and rules.pairs_masked, **options)
        if rules.as_text:
            _refuse_other_prompt(columns["prompt"], prompt, whole.text)
        if rules.pairs_checked:
            _refuse_unmarked(whole.mask)
        prompt_ids = chat.encoder.encode(prompt, special=False).ids
        return _Tokenized(row.number, whole.ids, whole.roles, boundary(prompt_ids, whole.ids, rules.by_prefix), whole.mask)
    if columns.get("prompt") is not None:
        prompt_ids = chat.encoder.encode(columns["prompt"]).ids
        ids = chat.encoder.encode(columns["prompt"] + column(columns, "completion")).ids
        start = boundary(prompt_ids, ids, rules.by_prefix)
        return _Tokenized(row.number, ids, ["prompt"] * start + ["completion"] * (len(ids) - start), start)
    if talks:
        whole = chat.tokenized(column(columns, "messages"), mask=only, **options)
        _refuse_unmarked(whole.mask)
        return _Tokenized(row.number, whole.ids, whole.roles, None, whole.mask)
    ids = chat.encoder.encode(column(columns, task.get("dataset_text_field", "text"))).ids
    return _Tokenized(row.number, ids, ["text"] * len(ids))


def _nested(columns: Mapping[str, Any]) -> bool:
    """Return whether there are tools, or a message holds more than texts."""
    talks = (columns.get(name) for name in ("messages", "prompt", "completion"))
    messages = [one for talk in talks if isinstance(talk, list) for one in talk if isinstance(one, dict)]
    return bool(columns.get("tools")) or any(isinstance(value, dict | list) for one in messages for value in one.values())


def _refuse_other_prompt(talk: list[dict[str, Any]], prompt: str, whole: str) -> None:
    """Raise what apply_chat_template of trl 0.17 and 0.18 raises for a prompt that the whole does not begin with (data_utils.py:151)."""
    last = talk[-1].get("role") if talk else None
    if last == "assistant":
        raise QuestionError("a prompt that ends with an assistant's message is not modelled for trl 0.17 and 0.18 (continue_final_message)")
    if last != "user":
        raise TrainerError("ValueError", f"invalid role in the last message: {last}", "trl data_utils.py:108")
    if not whole.startswith(prompt):
        raise TrainerError(
            "ValueError", "the text of prompt and completion does not begin with that of the prompt", "trl data_utils.py:151"
        )


def _refuse_unmarked(mask: list[int] | None) -> None:
    if mask is not None and 1 not in mask:
        message = (
            "assistant_only_loss=True, but an example has no assistant tokens: the chat template has no {% generation %} block around them"
        )
        raise TrainerError("RuntimeError", message, "trl sft_trainer.py")


def _masked(parts: _Tokenized, only_completion: bool, forget: bool) -> Sequence:
    sequence = sequence_of(parts.ids, parts.row, roles=parts.roles)
    if parts.completion is not None and only_completion and not forget:
        sequence.mask(0, parts.completion, PROMPT)
    if parts.assistant is not None and not forget:
        sequence.keep(parts.assistant, ASSISTANT)
    return sequence


def _cut(task: Task, rules: ReleaseRules, built: list[Sequence]) -> list[Sequence]:
    """Return the sequences truncated, and without their first target if the collator is padding-free."""
    length, mode = _length(task), task.get("truncation_mode", "keep_start")
    if length is not None and mode not in ("keep_start", "keep_end"):
        raise TrainerError("ValueError", f"unsupported truncation mode: {mode}", "trl sft_trainer.py")
    if length is not None:
        built = [one.part(0, length) if mode == "keep_start" else one.part(max(len(one.ids) - length, 0), len(one.ids)) for one in built]
        built = [one for one in built if one.trained or not rules.drops_masked]
    if task.get("padding_free", False) and rules.first_ignored:
        for one in built:
            one.mask(0, 1, FIRST)
    return built


def _packed(task: Task, rules: ReleaseRules, built: list[Sequence]) -> list[Sequence]:
    named = task.get("packing_strategy", rules.strategies[0])
    length, strategy = _length(task), rules.old_strategies.get(named, named)
    if length is None:
        raise TrainerError("ValueError", "when packing is enabled, `max_length` can't be `None`", "trl sft_trainer.py")
    if strategy not in rules.strategies:
        raise TrainerError("ValueError", f"invalid packing strategy {strategy!r}, must be one of {rules.strategies}", "trl data_utils.py")
    if strategy == "wrapped":
        out = wrapped(built, length)
    else:
        out = best_fit_decreasing(built, length, split=strategy in rules.splitting, drop_empty=rules.drops_empty)
    for one in out:  # position_ids 0 is never a target of the padding-free collator
        if rules.first_ignored and (strategy != "wrapped" or task.get("padding_free", False)):
            for start in one.starts if strategy != "wrapped" else (0,):
                one.mask(start, start + 1, FIRST)
    return out


TRAINER = Trainer(
    name="trl-sft",
    library="trl",
    five_since=(1, 0),
    versions=VERSIONS,
    build=build,
    keys=frozenset(
        "assistant_only_loss completion_only_loss dataset_text_field eos_token pad_token max_length max_seq_length packing packing_strategy "
        "padding_free pad_to_multiple_of truncation_mode processing_class data_collator".split()
    ),
    source="trl/trainer/sft_trainer.py",
    fixes={
        ASSISTANT: "Move {end} in front of {{% endgeneration %}} in the chat template, or set assistant_only_loss=False.",
        "DataCollatorForCompletionOnlyLM": "Use SFTConfig(completion_only_loss=True) with prompt and completion columns (trl 0.17 and newer).",
    },
    format="trl",
    relevant=(
        "chat_template_path",
        "chat_template_kwargs",
        "dataset_kwargs",
        "formatting_func",
        "shuffle_dataset",
        "skip_prepare_dataset",
        "datasets",
    ),
)
