"""LLaMA-Factory's supervised fine-tuning (0.9.5: data/template.py, data/processor/supervised.py, data/converter.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.packing import greedy_knapsack
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.llama_factory_template import Talk, Template, template_of
from llmdoctor.labels.types import IGNORED, Row, Sequence, TrainerError, joined

_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_ENTRY = frozenset(
    {"formatting", "columns", "tags", "file_name", "hf_hub_url", "ms_hub_url", "split", "subset", "folder", "num_samples", "ranking"}
)


def build(task: Task) -> list[Sequence]:
    """Return the sequences that `stage: sft` trains on."""
    mask_history, all_prompt = bool(task.get("mask_history", False)), bool(task.get("train_on_prompt", False))
    if mask_history and all_prompt:
        raise TrainerError("ValueError", "`mask_history` is incompatible with `train_on_prompt`", "llamafactory hparams/data_args.py:182")
    template = template_of(task)
    packing = bool(task.get("packing", False) or task.get("neat_packing", False))
    cutoff = int(task.get("cutoff_len", 2048)) - packing
    out = []
    for row in task.rows:
        talk = _talk(task, row)
        if talk is not None:
            out.append(_encoded(task, template, row.number, talk, cutoff))
    return _packed(task, out, cutoff) if packing else out


# --- data/converter.py


def _talk(task: Task, row: Row) -> Talk | None:
    """Return the conversation of a row; None for one that is dropped."""
    entry = task.get("dataset_info") or {}
    for key in entry.keys() - _ENTRY:
        raise QuestionError(f"dataset_info.{key}: this key is not modelled")
    if entry.get("ranking"):
        raise QuestionError("dataset_info.ranking: preference data of LLaMA-Factory are not modelled")
    kind = entry.get("formatting", "alpaca")
    columns = {**_COLUMNS, **dict.fromkeys(_COLUMNS if "columns" in entry else (), None), **(entry.get("columns") or {})}
    for name in ("images", "videos", "audios", "tools"):
        if columns.get(name):
            raise QuestionError(f"dataset_info.columns.{name}: rows with {name} are not modelled for LLaMA-Factory")
    if kind == "alpaca":
        return _alpaca(row.columns, columns)
    if kind in ("sharegpt", "openai"):
        tags = {**_TAGS, **dict.fromkeys(_TAGS if "tags" in entry else (), None), **(entry.get("tags") or {})}
        talk = _sharegpt(row.columns, columns, tags, strict=kind == "openai")
        return talk if talk is None or kind != "openai" else Talk(talk.messages, _thinking_off(talk.system))
    raise QuestionError(f"dataset_info.formatting: {kind!r}, expected alpaca, sharegpt or openai")


def _alpaca(row: Mapping[str, Any], columns: Mapping[str, Any]) -> Talk | None:
    messages = []
    for old, answer in row.get(columns.get("history") or "") or []:
        messages += [("user", old), ("assistant", answer)]
    parts = [row[columns[name]] for name in ("prompt", "query") if columns.get(name) and _column(row, columns[name])]
    if not all(isinstance(part, str) for part in parts):
        raise QuestionError(f"{columns['prompt']} and {columns.get('query')}: expected texts, found another type")
    messages.append(("user", "\n".join(parts)))
    answer = row.get(columns["response"]) if columns.get("response") else None
    if not isinstance(answer, str):
        return None
    system = row.get(columns["system"]) if columns.get("system") else ""
    return Talk([*messages, ("assistant", answer)], system or "")


def _column(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise TrainerError("KeyError", repr(name), "llamafactory data/converter.py")
    return row[name]


def _thinking_off(system: str) -> str:
    """Return the system prompt of the format openai: without tools it ends with this line (0.9.5 converter.py:343)."""
    line = "detailed thinking off"
    if not system:
        return line
    return system if line in system or "detailed thinking on" in system else f"{system}\n{line}"


def _sharegpt(row: Mapping[str, Any], columns: Mapping[str, Any], tags: Mapping[str, Any], *, strict: bool) -> Talk | None:
    """Users and assistants take turns, and an assistant ends it; every other row is dropped (converter.py SharegptDatasetConverter).

    `strict` (the format openai): an unknown role raises KeyError.
    """
    messages = list(_column(row, columns["messages"]) if columns["messages"] else [])
    system = ""
    if messages and tags["system_tag"] and _column(messages[0], tags["role_tag"]) == tags["system_tag"]:
        system = messages.pop(0)[tags["content_tag"]]
    elif columns.get("system"):
        system = row.get(columns["system"]) or ""
    out = []
    for number, message in enumerate(messages):
        role = _column(message, tags["role_tag"])
        if role is not None and role in (tags["function_tag"], tags["observation_tag"]):
            raise QuestionError("tool calls and observations in LLaMA-Factory's formats are not modelled")
        if strict and message.get("tool_calls"):
            raise QuestionError("tool calls and observations in LLaMA-Factory's formats are not modelled")
        if strict and role not in (tags["user_tag"], tags["assistant_tag"], tags["system_tag"]):
            raise TrainerError("KeyError", repr(role), "llamafactory data/converter.py:278")
        if role != (tags["user_tag"], tags["assistant_tag"])[number % 2]:
            return None
        out.append((("user", "assistant")[number % 2], _column(message, tags["content_tag"])))
    return Talk(out, system) if out and len(out) % 2 == 0 else None


# --- data/processor/supervised.py


def _encoded(task: Task, template: Template, row: int, talk: Talk, cutoff: int) -> Sequence:
    last_only, all_prompt = bool(task.get("mask_history", False)), bool(task.get("train_on_prompt", False))
    pairs = template.pairs(talk, discard_thoughts=last_only and not template.preserve_thinking)
    order = list(enumerate(pairs[::-1] if last_only else pairs))
    eos = template.eos_id
    total = int(template.efficient_eos)
    parts: list[Sequence] = []
    cut = False
    for turn, (source, target) in order:
        if total >= cutoff:
            cut = True
            break
        kept_source, kept_target = infer_lengths(len(source), len(target), cutoff - total)
        cut = cut or kept_source < len(source) or kept_target < len(target)
        total += kept_source + kept_target
        prompt = _part(source[:kept_source], row, "user", all_prompt, "train_on_prompt is off")
        if template.efficient_eos and turn != 0 and not all_prompt and prompt.ids:
            prompt.labels[0], prompt.sources[0] = eos, "efficient_eos: the next turn's first token carries the end"
        answer = _part(target[:kept_target], row, "assistant", not (last_only and turn != 0), "mask_history")
        parts = [prompt, answer, *parts] if last_only else [*parts, prompt, answer]
    if template.efficient_eos:
        parts.append(Sequence([eos], [eos], ["efficient_eos"], [""], rows=(row,)))
    whole = joined(parts)
    whole.rows, whole.starts, whole.truncated = (row,), (0,), cut
    return whole


def _part(ids: list[int], row: int, role: str, trained: bool, source: str) -> Sequence:
    labels = list(ids) if trained else [IGNORED] * len(ids)
    return Sequence(list(ids), labels, ["target" if trained else source] * len(ids), [role] * len(ids), rows=(row,))


def infer_lengths(source: int, target: int, cutoff: int) -> tuple[int, int]:
    """Return how many tokens of a prompt and of its answer are kept (0.9.5 processor_utils.py:76)."""
    if target * 2 < cutoff:
        most = cutoff
    elif source * 2 < cutoff:
        most = cutoff - source
    else:
        most = int(cutoff * (target / (source + target)))
    kept = min(most, target)
    return min(max(cutoff - kept, 0), source), kept


def _packed(task: Task, rows: list[Sequence], cutoff: int) -> list[Sequence]:
    """Return knapsacks of exactly cutoff_len tokens, filled up with pads that attend (supervised.py PackedSupervisedDatasetProcessor)."""
    pad = task.chat.encoder.pad_id or 0
    fitting = [row for row in rows if len(row.ids) <= cutoff]
    by_length: dict[int, list[Sequence]] = {}
    for row in fitting:
        by_length.setdefault(len(row.ids), []).append(row)
    out = []
    for knapsack in greedy_knapsack([len(row.ids) for row in fitting], cutoff):
        whole = joined([by_length[length].pop() for length in knapsack])
        missing = 0 if task.get("neat_packing", False) else cutoff - len(whole.ids) + 1
        if missing > 0:
            filler = Sequence([pad] * missing, [IGNORED] * missing, ["padding"] * missing, ["padding"] * missing)
            rows_of, starts = whole.rows, whole.starts
            whole = joined([whole, filler])
            whole.rows, whole.starts = rows_of, starts
        out.append(whole)
    return out


TRAINER = Trainer(
    name="llama-factory",
    library="llamafactory",
    five_since=(1,),
    release=(5, 6),
    versions=("0.9.5",),
    build=build,
    keys=frozenset(
        "template dataset_info cutoff_len mask_history train_on_prompt packing neat_packing default_system enable_thinking preserve_thinking".split()
    ),
    source="llamafactory/data/processor/supervised.py",
    renders_roles=False,
    format="llamafactory",
    relevant=(
        "stage",
        "tool_format",
        "max_samples",
        "val_size",
        "mix_strategy",
        "interleave_probs",
        "split_special_tokens",
        "add_tokens",
        "add_special_tokens",
        "new_special_tokens_config",
        "tokenized_path",
        "efficient_eos",
        "streaming",
    ),
    harmless={"stage": ("sft",), "mix_strategy": ("concat",), "val_size": (0, 0.0)},
)
