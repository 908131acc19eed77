"""ms-swift's supervised fine-tuning (4.6.0: swift/dataset/preprocessor/core.py, swift/template/base.py)."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Message
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.ms_swift_template import (
    SwiftDropped,
    SwiftPart,
    SwiftSlot,
    SwiftTemplate,
    SwiftTurn,
    template_of,
    writes_day,
)
from llmdoctor.labels.trainers.trl_common import filled
from llmdoctor.labels.types import IGNORED, Row, Sequence, TrainerError

_MESSAGES = ("messages", "conversation", "conversations")
_SYSTEM = dict.fromkeys(("system", "system_prompt"), "system")
_PAIRS = (
    _SYSTEM
    | dict.fromkeys(("query", "prompt", "input", "instruction", "question", "problem"), "query")
    | dict.fromkeys(
        ("response answer output targets target answer_key answers solution text completion content").split(),
        "response",
    )
)
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant"}
_TOOLS = frozenset("tool_call tool_response tool function_call function_response observation observations".split())
_OTHER_DATA = ("images", "image", "videos", "video", "audios", "audio", "tools", "objects", "rejected_response", "rejected_messages")


def build(task: Task) -> list[Sequence]:
    """Return the sequences that `swift sft` trains on; a row that it cannot encode is left out, as `strict: false` does."""
    if task.get("truncation_strategy") == "split":
        message = "`--truncation_strategy split` is currently only supported for pre-training."
        raise TrainerError("ValueError", message, "swift/pipelines/train/sft.py:117")
    _name_eos(task)
    template = template_of(task)
    if not task.rows:
        return []
    task = replace(task, rows=filled(task.rows))
    talks = [(row.number, talk) for row in _renamed(task.rows) if (talk := _accepted(row)) is not None]
    if not talks:
        raise TrainerError("ZeroDivisionError", "ms-swift accepts no row of the data: it leaves out all of them", "swift/dataset/utils.py")
    out = []
    for number, (turns, system) in talks:
        try:
            out.append(_cut(task, _encoded(template, number, turns, system)))
        except SwiftDropped:
            continue
    return out


def _name_eos(task: Task) -> None:
    names = task.chat.encoder.names  # swift/model/register.py:383
    names["pad_token"] = names["pad_token"] or names["eos_token"]
    names["eos_token"] = names["eos_token"] or names["pad_token"]
    if names["eos_token"] is None:
        raise TrainerError("AssertionError", "the tokenizer has neither an eos_token nor a pad_token", "swift/model/register.py:390")


# --- swift/dataset/preprocessor/core.py


def _renamed(rows: list[Row]) -> list[Row]:
    """Return the rows with the names that AutoPreprocessor gives to the columns; two columns for one name keep theirs."""
    columns = rows[0].columns
    names: dict[str, str] = _SYSTEM | dict.fromkeys(_MESSAGES, "messages") if _holds_talk(columns) else _PAIRS
    by_lower = {name.lower(): name for name in columns}
    found = {by_lower[name]: new for name, new in names.items() if name in by_lower}
    targets = Counter(found.values())
    found = {old: new for old, new in found.items() if targets[new] == 1}
    return [Row(row.number, {found.get(name, name): value for name, value in row.columns.items()}) for row in rows]


def _holds_talk(columns: Mapping[str, Any]) -> bool:
    return any(name in columns for name in _MESSAGES)


def _accepted(row: Row) -> tuple[list[SwiftTurn], str | None] | None:
    """Return the turns of a row and its system prompt; None for a row that is left out before it is encoded."""
    try:
        return _talk(row)
    except SwiftDropped:
        return None


def _talk(row: Row) -> tuple[list[SwiftTurn], str | None]:
    """Return the turns of a row, and its system prompt, None without one."""
    columns = row.columns
    for name in _OTHER_DATA:
        if columns.get(name):
            raise QuestionError(f"row {row.number}: rows with {name} are not modelled for ms-swift")
    if (columns.get("chat_template_kwargs") or {}).get("preserve_thinking") is not None:
        raise QuestionError(f"row {row.number}: chat_template_kwargs.preserve_thinking is not modelled for ms-swift")
    messages = _listed(row) if _holds_talk(columns) else _paired(columns)
    system = None
    if messages and messages[0]["role"] == "system":
        system = messages[0]["content"]
        messages = messages[1:]
    return [turn for _, same in groupby(messages, key=lambda one: str(one["role"])) for turn in _joined(list(same))], system


def _listed(row: Row) -> list[Message]:
    """Return the messages of a conversation under ms-swift's names (MessagesPreprocessor)."""
    found = row.columns.get("messages")
    if isinstance(found, str):
        raise QuestionError(f"row {row.number}: messages as a text are not modelled for ms-swift")
    if not found:
        raise SwiftDropped("no messages")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise QuestionError(f"row {row.number}: messages: expected a list of objects")
    out = [_standard(row, one) for one in found]
    system = row.columns.get("system")
    return out if system is None or out[0]["role"] == "system" else [{"role": "system", "content": system}, *out]


def _standard(row: Row, message: Message) -> Message:
    if message.get("tool_calls"):
        raise QuestionError(f"row {row.number}: tool calls are written by ms-swift's agent templates, which are not modelled")
    if message.get("loss_scale") is not None:
        raise QuestionError(f"row {row.number}: loss_scale of a message is not modelled for ms-swift")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if not isinstance(role, str):
        raise QuestionError(f"row {row.number}: a message without role, or with one that is no text, is not modelled for ms-swift")
    if role.replace("-", "_") in _TOOLS:
        raise QuestionError(f"row {row.number}: tool messages are written by ms-swift's agent templates, which are not modelled")
    return {"role": _ROLES.get(role, role), "content": _text(row, content), "loss": message.get("loss")}


def _text(row: Row, content: Any) -> str:
    if content is None:
        raise SwiftDropped("AssertionError: a message without content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise QuestionError(f"row {row.number}: content of the type {type(content).__name__} is not modelled for ms-swift")
    return content


def _paired(columns: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a question and its answer (AlpacaPreprocessor, ResponsePreprocessor)."""
    query, response = columns.get("query"), columns.get("response")
    if "instruction" in columns and "input" in columns:
        parts = [columns.get(name) for name in ("instruction", "input")]
        query = "\n".join(part for part in parts if part)
        response = columns.get("output") if columns.get("output") is not None else response
    if isinstance(response, list):
        response = response[0] if response else None
    pairs = [*(columns.get("history") or []), [query, response]]
    out: list[Message] = [{"role": "system", "content": columns["system"]}] if columns.get("system") is not None else []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str | None) for text in pair):
            raise QuestionError("history: expected a list of pairs of texts")
        out += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True) if text is not None]
    if not out:
        raise SwiftDropped("AssertionError: no messages")
    return out


def _joined(same: list[Message]) -> list[SwiftTurn]:
    """Return neighbours of one role as one turn: the texts of users are joined, answers stay apart (_swift_prepare_inputs)."""
    role = str(same[0]["role"])
    if role == "assistant":
        return [SwiftTurn(role, [one["content"] for one in same], [one.get("loss") for one in same])]
    if role == "user":
        return [SwiftTurn(role, ["".join(one["content"] for one in same)], [None])]
    if role != "system":
        raise SwiftDropped(f"AssertionError: the role {role}")
    return [SwiftTurn(role, [one["content"]], [None]) for one in same]


# --- swift/template/base.py


def _encoded(template: SwiftTemplate, row: int, turns: list[SwiftTurn], system: str | None) -> Sequence:
    """Return a conversation's tokens; neighbouring texts that are targets alike are tokenized as one (_simplify_context_list)."""
    one = Sequence([], [], [], [], rows=(row,))
    for (text, trained), same in groupby(template.contexts(turns, system), key=lambda part: (isinstance(part.slot, str), part.trained)):
        for parts in [list(same)] if text else [[part] for part in same]:
            ids, roles = _text_ids(template, parts) if text else (list(parts[0].slot), [parts[0].role] * len(parts[0].slot))
            one.ids += ids
            one.labels += ids if trained else [IGNORED] * len(ids)
            one.sources += ["target" if trained else "loss_scale"] * len(ids)
            one.roles += roles
    _train_ends(one, [token for slot in template.suffix for token in _ids(template, slot)])
    one.mask(0, 1, "the first token")
    return one


def _text_ids(template: SwiftTemplate, parts: list[SwiftPart]) -> tuple[list[int], list[str]]:
    """Return the ids of texts that are tokenized as one, and the role of the part in which each token begins."""
    encoded = template.chat.encoder.encode("".join(part.slot for part in parts), special=False)
    stops = list(accumulate(len(part.slot) for part in parts))
    return encoded.ids, [parts[min(bisect_right(stops, start), len(parts) - 1)].role for start, _ in encoded.offsets]


def _ids(template: SwiftTemplate, part: SwiftSlot) -> list[int]:
    return template.chat.encoder.encode(part, special=False).ids if isinstance(part, str) else list(part)


def _train_ends(one: Sequence, suffix: list[int]) -> None:
    """Make the suffix behind every trained answer a target (_add_dynamic_eos)."""
    labels, count, start = one.labels, len(suffix), 0
    for place in range(1, len(labels) + 1):
        if labels[place - 1] >= 0 and place < len(labels) and labels[place] == IGNORED:
            start = place
            continue
        ended = start > 0 and labels[place - 1] == IGNORED and (place == len(labels) or labels[place] >= 0)
        if ended and place - start >= count and one.ids[start : start + count] == suffix:
            labels[start : start + count] = suffix
            one.sources[start : start + count] = ["target"] * count


def _cut(task: Task, one: Sequence) -> Sequence:
    longest, strategy = task.get("max_length"), task.get("truncation_strategy", "delete")
    if longest is None or len(one.ids) <= longest:
        return one
    if longest < 1:
        raise QuestionError(f"max_length: {longest}, expected at least 1")
    if strategy == "delete":
        raise SwiftDropped(f"MaxLengthError: the row has {len(one.ids)} tokens")
    if strategy not in ("left", "right"):
        raise QuestionError(f"truncation_strategy: {strategy}, expected delete, left or right")
    one = one.part(0, longest) if strategy == "right" else one.part(len(one.ids) - longest, len(one.ids))
    one.mask(0, 1, "the first token")
    return one


def _assumed(config: Mapping[str, Any]) -> list[str]:
    out = [] if config.get("max_length") is not None else ["rows longer than the model's own context are left out, which is not counted"]
    return [*out, "the template writes the day of the run: today"] if writes_day(config.get("template")) else out


TRAINER = Trainer(
    name="ms-swift",
    library="ms-swift",
    five_since=(1,),
    release=(5, 19),
    versions=("4.6.0",),
    build=build,
    keys=frozenset(
        "template system max_length truncation_strategy loss_scale use_chat_template enable_thinking preserve_thinking add_non_thinking_prefix "
        "disable_ignore_empty_think".split()
    ),
    source="swift/template/base.py",
    renders_roles=False,
    format="ms-swift",
    assumed=_assumed,
    fixes={"loss_scale": "loss_scale: default"},
    relevant=(
        "packing",
        "rlhf_type",
        "task_type",
        "template_backend",
        "agent_template",
        "columns",
        "strict",
        "streaming",
        "new_special_tokens",
        "disable_auto_column_mapping",
        "custom_register_path",
        "external_plugins",
        "cached_dataset",
        "max_model_len",
    ),
    harmless={"task_type": ("causal_lm",), "template_backend": ("swift",)},
)
