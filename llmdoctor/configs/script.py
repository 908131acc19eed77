"""Python training scripts: the calls that make a configuration, read by syntax tree. Nothing of the script is imported or executed.

Read are TrainingArguments and TRL's classes, LoraConfig, BitsAndBytesConfig and from_pretrained. A value that is no literal, and no name that the
script binds once to a literal, is unknown: a setting of such a value is rejected if it can change the answer.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from llmdoctor.configs import peft, trainer, trl
from llmdoctor.configs.schema import keys_of
from llmdoctor.configs.script_steps import unread_steps
from llmdoctor.configs.types import Format, Variant
from llmdoctor.core.errors import QuestionError

LIMIT = 2**20  # bytes of a script
TRAINER = ("TrainingArguments", "Seq2SeqTrainingArguments")
_DTYPES = frozenset({"float32", "bfloat16", "float16", "half", "float"})


@dataclass(frozen=True, slots=True)
class Computed:
    """A value that the script computes; `source` is its expression."""

    source: str


@dataclass(slots=True)
class Script:
    """What the calls of a script set: `name` is the class of arguments, `values` as a configuration file would hold them.

    `steps` are what else in the script changes the memory and is not read.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)


def read_calls(text: str, path: str) -> Script:
    """Return the settings that a script's calls make. Raises QuestionError if it is no Python, or makes no arguments, or makes several."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise QuestionError(f"{path}: not Python: {error}") from None
    known = constants(tree)
    calls: dict[str, list[ast.Call]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            calls.setdefault(_called(node), []).append(node)
    makers = [(name, call) for name in (*TRAINER, *trl.OBJECTIVES) for call in calls.get(name, ())]
    if not makers:
        raise QuestionError(f"{path}: no call of {TRAINER[0]} or of a configuration class of TRL, so there is no training to answer for")
    if len(makers) > 1:
        places = ", ".join(f"{name} on line {call.lineno}" for name, call in makers)
        raise QuestionError(f"{path}: {places}: it is not known which of them trains")
    name, call = makers[0]
    script = Script(name, steps=unread_steps(tree, call))
    _add(script, call, "", known, positional=("output_dir",))
    for kind, section in (("LoraConfig", "model_init.peft_config"), ("BitsAndBytesConfig", "model_init.quantization_config")):
        _add_one(script, calls.get(kind, []), section, known, path)
    models = [
        node
        for node in calls.get("from_pretrained", [])
        if _owner(node).startswith("AutoModel") or _owner(node).endswith(("ForCausalLM", "Model"))
    ]
    _add_one(script, models, "model_init", known, path, skip=("quantization_config",))
    if models:
        script.values.setdefault("model_init", {}).setdefault("dtype", script.values["model_init"].pop("torch_dtype", "auto"))
    return script


def variant(script: Script) -> Variant:
    """Return the keys that the class accepts, without those that a command line adds to it."""
    return _variant(script.name)


@cache
def _variant(name: str) -> Variant:
    if name in TRAINER:
        return trainer.variant_of(name)
    own = {**keys_of("trl", (name,), trl.TABLES), **trainer.OURS, **trl.model_kwargs(), **peft.keys("model_init.peft_config.")}
    return replace(trl.variant_of(name), keys=own)


def format_of(script: Script) -> Format:
    """Return the format whose class the script calls."""
    return trainer.FORMAT if script.name in TRAINER else trl.FORMAT


def computed(value: Any) -> Iterator[Computed]:
    """Yield the values inside `value` that the script computes."""
    if isinstance(value, Computed):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from computed(item)


def _add_one(script: Script, calls: list[ast.Call], section: str, known: Mapping[str, Any], path: str, skip: tuple[str, ...] = ()) -> None:
    if len(calls) > 1 and len({ast.dump(call) for call in calls}) > 1:
        lines = ", ".join(str(call.lineno) for call in calls)
        raise QuestionError(f"{path}: {_called(calls[0])} is called on lines {lines}: it is not known which of them is trained")
    for call in calls[:1]:
        _add(script, call, section, known, skip=skip)


def _add(
    script: Script, call: ast.Call, section: str, known: Mapping[str, Any], positional: tuple[str, ...] = (), skip: tuple[str, ...] = ()
) -> None:
    place = script.values
    for part in filter(None, section.split(".")):
        place = place.setdefault(part, {})
    prefix = f"/{section.replace('.', '/')}" if section else ""
    for name, item in zip(positional, call.args, strict=False):
        place[name] = value_of(item, known)
        script.lines[f"{prefix}/{name}"] = item.lineno
    for word in call.keywords:
        if word.arg is None:
            place["**"] = Computed(ast.unparse(word.value)[:80])
        elif word.arg not in skip:
            place[word.arg] = value_of(word.value, known)
            script.lines[f"{prefix}/{word.arg}"] = word.value.lineno


def value_of(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """Return the value of an expression: a literal, a dtype of torch, a name that is bound once to one of them; else Computed."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        pass
    if isinstance(node, ast.Attribute) and node.attr in _DTYPES:
        return node.attr
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    return Computed(ast.unparse(node)[:80])


def constants(tree: ast.Module) -> dict[str, Any]:
    """Return the names that are bound exactly once in the whole script, to a literal."""
    times: Counter[str] = Counter()
    values: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            times[node.id] += 1
        elif isinstance(node, ast.arg):
            times[node.arg] += 1
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = value_of(node.value, {})
    return {name: value for name, value in values.items() if times[name] == 1 and not isinstance(value, Computed)}


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


def _owner(node: ast.Call) -> str:
    inner = node.func.value if isinstance(node.func, ast.Attribute) else None
    return inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""
