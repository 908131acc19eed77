"""axolotl's supervised fine-tuning without sample packing (0.19.0: prompt_strategies/, utils/data/utils.py, utils/trainer.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.trainers.axolotl_chat import ChatStrategy, strategy_of
from llmdoctor.labels.trainers.base import Task, Trainer
from llmdoctor.labels.trainers.trl_common import column
from llmdoctor.labels.trainers.trl_legacy import truncated
from llmdoctor.labels.types import Row, Sequence, TrainerError, joined, sequence_of

_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_NO_INPUT = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
# axolotl/utils/chat_templates/templates/chatml.jinja
_CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def build(task: Task) -> list[Sequence]:
    """Return the sequences of the first dataset, in its order; axolotl shuffles them."""
    datasets = task.get("datasets") or [{}]
    if not isinstance(datasets, list) or len(datasets) != 1:
        raise QuestionError("datasets: expected the one entry that describes DATA; leave the others out")
    _set_tokens(task)
    entry = datasets[0]
    length = int(task.get("sequence_len", 2048))
    built = _of_type(task, entry, length)
    return _dropped(_fitted(task, built, length))


def _set_tokens(task: Task) -> None:
    """Set special tokens and the chat template as the tokenizer's loader does; a missing pad is the eos (loaders/tokenizer.py)."""
    encoder = task.chat.encoder
    for name, token in (task.get("special_tokens") or {}).items():
        if name not in _SPECIAL:
            raise QuestionError(f"special_tokens.{name}: not modelled, expected one of {', '.join(_SPECIAL)}")
        if not isinstance(token, str):
            raise QuestionError(f"special_tokens.{name}: expected a text, found {type(token).__name__}")
        encoder.add_special(token)
        encoder.names[name] = token
    if encoder.names["pad_token"] is None:
        encoder.names["pad_token"] = encoder.names["eos_token"]
    if task.config.get("chat_template") is not None:
        task.chat.template = _template(task, task.config["chat_template"])


def _template(task: Task, name: str) -> Any:
    from llmdoctor.modeldir.template import ChatTemplate

    if name == "chatml":
        return ChatTemplate("chatml", _CHATML, "axolotl chat_template: chatml")
    if name in ("tokenizer_default", "tokenizer_default_fallback_chatml") and task.chat.template is not None:
        return task.chat.template
    if name == "tokenizer_default_fallback_chatml":
        return ChatTemplate("chatml", _CHATML, "axolotl chat_template: chatml")
    if name == "jinja" and isinstance(task.config.get("chat_template_jinja"), str):
        return ChatTemplate("jinja", task.config["chat_template_jinja"], "axolotl chat_template_jinja")
    raise QuestionError(
        f"chat_template: {name} is one of axolotl's own templates and not modelled, expected chatml, tokenizer_default or jinja"
    )


# --- the dataset types


def _of_type(task: Task, entry: Mapping[str, Any], length: int) -> list[Sequence]:
    if not isinstance(entry, Mapping):
        raise QuestionError(f"datasets[0]: expected an object with path and type, found {type(entry).__name__}")
    kind = entry.get("type")
    if isinstance(kind, Mapping):
        raise QuestionError("datasets[0].type: an object with formats of its own is not modelled, expected a name")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise TrainerError("ValueError", f"unhandled prompt tokenization strategy: {kind}", "axolotl utils/data/wrappers.py:52")
    known, function = _TYPES[kind]
    for key in entry.keys() - known - _HARMLESS:
        raise QuestionError(f"datasets[0].{key}: not modelled for type {kind}")
    for key, (expected, fits) in _ENTRY.items():
        if entry.get(key) is not None and not fits(entry[key]):
            raise QuestionError(f"datasets[0].{key}: expected {expected}")
    return function(task, entry, length)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Settings of a dataset that are used as they are: what axolotl's class SFTDataset takes, and whether a value is that (utils/schemas/datasets.py).
_ENTRY: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "field": ("a text", lambda value: isinstance(value, str)),
    "field_messages": ("a text", lambda value: isinstance(value, str)),
    "roles_to_train": ("a list of texts", _texts),
    "roles": ("an object whose values are lists of texts", lambda value: isinstance(value, dict) and all(map(_texts, value.values()))),
    "message_property_mappings": ("an object whose values are texts", lambda value: isinstance(value, dict) and _texts([*value.values()])),
    "train_on_eos": ("a text", lambda value: isinstance(value, str)),
    "train_on_eot": ("a text", lambda value: isinstance(value, str)),
}


def _completion(task: Task, entry: Mapping[str, Any], length: int) -> list[Sequence]:
    """Text with an eos at its end, cut into pieces of sequence_len (prompt_strategies/completion.py)."""
    out = []
    for row in task.rows:
        whole = _tokens(task, row, column(row.columns, entry.get("field", "text")), 64 * length, end=True)
        out += [whole.part(at, at + length) for at in range(0, len(whole.ids), length)]
    return [replace(one, truncated=False) for one in out]


def _alpaca(task: Task, _entry: Mapping[str, Any], length: int) -> list[Sequence]:
    """Prompt and answer are tokenized apart, so a tokenizer that adds eos puts one before the answer (prompt_tokenizers.py)."""
    out = []
    for row in task.rows:
        columns = row.columns
        prompt = _tokens(task, row, _instruction(columns), length, end=False, role="user")
        if not task.get("train_on_inputs", False):
            prompt.mask(0, len(prompt.ids), "train_on_inputs")
        answer = _tokens(task, row, column(columns, "output"), length, end=True, role="assistant")
        if answer.ids and answer.ids[0] == task.chat.encoder.bos_id:
            answer = replace(answer.part(1, len(answer.ids)), truncated=answer.truncated)
        whole = joined([prompt, answer])
        whole.rows, whole.starts = (row.number,), (0,)
        out.append(whole)
    return out


def _instruction(columns: Mapping[str, Any]) -> str:
    text = f"### Instruction:\n{column(columns, 'instruction')}\n\n"
    given = columns.get("input")
    return f"{_INPUT}\n\n{text}### Input:\n{given}\n\n### Response:\n" if given else f"{_NO_INPUT}\n\n{text}### Response:\n"


def _tokens(task: Task, row: Row, text: str, length: int, *, end: bool, role: str = "text") -> Sequence:
    encoder = task.chat.encoder
    if not text:
        return sequence_of([], row.number)
    ids = encoder.encode(text).ids
    one = truncated(sequence_of(ids, row.number, roles=[role] * len(ids)), length, encoder.encode("").ids)
    eos = encoder.eos_id
    if end and eos is not None and one.ids and one.ids[-1] != eos and len(one.ids) < length:
        more = sequence_of([eos], row.number, roles=[""])
        starts = one.starts
        one = joined([one, more])
        one.rows, one.starts = (row.number,), starts
    return one


def _chat(task: Task, entry: Mapping[str, Any], _length: int) -> list[Sequence]:
    strategy: ChatStrategy = strategy_of(task, entry)
    return [strategy.sequence(row) for row in task.rows]


# --- what happens to long and empty sequences


def _fitted(task: Task, built: list[Sequence], length: int) -> list[Sequence]:
    least = int(task.get("min_sample_len") or 2)
    how = str(task.get("excess_length_strategy") or "drop").lower()
    built = [one for one in built if len(one.ids) >= least]
    if how == "truncate":
        return [one.part(0, length) for one in built]
    if how == "raise" and any(len(one.ids) > length for one in built):
        raise TrainerError("ValueError", f"a sequence is longer than sequence_len ({length})", "axolotl utils/trainer.py:200")
    return [one for one in built if len(one.ids) <= length]


def _dropped(built: list[Sequence]) -> list[Sequence]:
    """Return the sequences with a target. Raises TrainerError if none is left (utils/trainer.py process_datasets_for_packing)."""
    kept = [one for one in built if one.trained]
    if built and not kept:
        raise TrainerError(
            "ValueError", "the dataset has no samples left after dropping samples with no trainable tokens", "axolotl utils/trainer.py:278"
        )
    return kept


_HARMLESS = frozenset({"path", "ds_type", "split", "data_files", "name", "revision", "shards", "trust_remote_code"})
_CHAT_KEYS = (
    "type field_messages message_property_mappings roles_to_train train_on_eos train_on_eot roles drop_system_message chat_template"
)
_TYPES: dict[Any, tuple[frozenset[str], Callable[[Task, Mapping[str, Any], int], list[Sequence]]]] = {
    "completion": (frozenset({"type", "field"}), _completion),
    "alpaca": (frozenset({"type"}), _alpaca),
    "chat_template": (frozenset(_CHAT_KEYS.split()), _chat),
}
TRAINER = Trainer(
    name="axolotl",
    library="axolotl",
    versions=("0.19.0",),
    build=build,
    keys=frozenset(
        "datasets sequence_len special_tokens eot_tokens train_on_inputs excess_length_strategy min_sample_len chat_template chat_template_jinja "
        "chat_template_kwargs".split()
    ),
    source="axolotl/prompt_strategies/chat_template.py",
    fixes={
        "eot_tokens": 'eot_tokens: ["{end}"]',
        "train_on_eot": "datasets:\n  - train_on_eot: turn",
        "train_on_eos": "datasets:\n  - train_on_eos: turn",
    },
    renders_roles=False,
    format="axolotl",
    relevant=(
        "tokenizer_type",
        "tokenizer_legacy",
        "tokenizer_use_mistral_common",
        "tokens",
        "added_tokens_overrides",
        "default_system_message",
        "sample_packing",
        "pretraining_dataset",
        "skip_prepare_dataset",
        "pose_*",
        "rl",
        "reward_model",
        "process_reward_model",
        "curriculum_sampling",
        "role_boundaries",
        "dataset_exact_deduplication",
        "dataset_shard_*",
        "max_packed_sequence_len",
        "streaming",
        "val_set_size",
    ),
    harmless={"val_set_size": (0, 0.0)},
)
