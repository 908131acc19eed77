"""Python training scripts: the calls that make a configuration, read by syntax tree. Nothing of the script is imported or executed.

Read are TrainingArguments and TRL's classes, LoraConfig, BitsAndBytesConfig and from_pretrained. A value that is no literal, and no name that the
script binds once to a literal, is unknown: a setting of such a value is rejected if it can change the answer. So are adapters that are added under a
condition that is not known. What else the script does is in `script_steps`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from llmdoctor.configs import peft, trainer, trl
from llmdoctor.configs.schema import NO_TARGETS, keys_of, removed_keys
from llmdoctor.configs.script_models import Step, is_model
from llmdoctor.configs.script_steps import steps_of
from llmdoctor.configs.script_values import Computed, Names, conditions, name_of, names_of, reachable, source_of
from llmdoctor.configs.types import Format, Ignored, Key, Meaning, Refused, Uses, Variant
from llmdoctor.core.errors import QuestionError

LIMIT = 2**20  # bytes of a script
TRAINER = ("TrainingArguments", "Seq2SeqTrainingArguments")
OF_PEFT = ("peft_config", "model", "adapter_name", "revision", "low_cpu_mem_usage")  # arguments of get_peft_model that change nothing
ADAPTERS, QUANTIZED = "model_init.peft_config", "model_init.quantization_config"
PREPARES = "prepare_model_for_kbit_training"


@dataclass(slots=True)
class Script:
    """What a script sets: `name` is the class of arguments, `values` as a configuration file would hold them, `steps` what it does beside them."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def section(self, section: str) -> dict[str, Any]:
        """Return the settings below `section`, a name with dots."""
        place = self.values
        for part in filter(None, section.split(".")):
            place = place.setdefault(part, {})
        return place

    def set(self, section: str, name: str, value: Any, line: int) -> None:
        """Set one value, found on `line`."""
        self.section(section)[name] = value
        self.lines["".join(f"/{part}" for part in (*filter(None, section.split(".")), name))] = line


def read_calls(text: str, path: str) -> Script:
    """Return the settings that a script's calls make. Raises QuestionError if it is no Python, or makes no arguments, or makes several."""
    try:
        tree = reachable(ast.parse(text))
        return _Calls(tree, path).read()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise QuestionError(f"{path}: not Python: {error}") from None


class _Calls:
    """The calls of one script, by the last name of what is called."""

    def __init__(self, tree: ast.Module, path: str) -> None:
        self.tree, self.path = tree, path
        self.names: Names = names_of(tree)
        self.under = conditions(tree)
        self.calls: dict[str, list[ast.Call]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                self.calls.setdefault(name_of(node.func), []).append(node)

    def read(self) -> Script:
        """Return what the script sets."""
        name, call = self._maker()
        script = Script(name)
        for word, item in zip(("output_dir",), call.args, strict=False):
            script.set("", word, self.names.value(item), item.lineno)
        self._add(script, call, "")
        adapters = self._adapters(script)
        self._model(script)
        meanings = {key.name: key.meanings["memory"] for key in _variant(name).keys.values()}
        script.steps += steps_of(
            self.tree, call, self.names, self.under, adapters=adapters, recomputes=self._recomputes(script), arguments=meanings
        )
        if "quantization_config" not in script.section("model_init"):
            whole = Refused(
                "prepare_model_for_kbit_training() converts weights that are not quantized to float32, which is not modelled", ()
            )
            script.steps = [replace(step, meaning=whole) if step.name == PREPARES else step for step in script.steps]
        for step in script.steps:
            script.set("script", step.name, step.value, step.line)
        return script

    def _recomputes(self, script: Script) -> bool:
        default = script.name not in TRAINER  # TRL's classes
        enabled = {"gradient_checkpointing_enable", PREPARES} & self.calls.keys()
        return bool(enabled) or script.values.get("gradient_checkpointing", default) is True

    def _maker(self) -> tuple[str, ast.Call]:
        makers = [(name, call) for name in (*TRAINER, *trl.OBJECTIVES) for call in self.calls.get(name, ())]
        if not makers:
            parsed = "HfArgumentParser" in self.calls or "TrlParser" in self.calls
            advice = ": its arguments come from the command line, so give them as a JSON or YAML file" if parsed else ""
            what = f"no call of {TRAINER[0]} or of a configuration class of TRL, so there is no training to answer for"
            raise QuestionError(f"{self.path}: {what}{advice}")
        if len(makers) > 1:
            places = ", ".join(f"{name} on line {call.lineno}" for name, call in makers)
            raise QuestionError(f"{self.path}: {places}: it is not known which of them trains")
        return makers[0]

    def _adapters(self, script: Script) -> int:
        """Add the adapters that the script trains; return the line where they are added, 0 if there are none."""
        given = list(self._handed_over())
        if not given:
            self._unused(script, "LoraConfig", ADAPTERS)
            return 0
        expressions = {ast.dump(self.names.behind(item)) for item, _ in given}
        if len(expressions) > 1:
            lines = ", ".join(str(call.lineno) for _, call in given)
            raise QuestionError(f"{self.path}: adapters are added on lines {lines}: it is not known which of them are trained")
        item, call = given[0]
        # The Trainer adds its own when it is made, after all that is done to the model.
        line = call.lineno if name_of(call.func) == "get_peft_model" else 1 << 30
        self._resolved(script, "LoraConfig", ADAPTERS, item, call)
        return line

    def _handed_over(self) -> Iterator[tuple[ast.expr, ast.Call]]:
        """Yield each expression that is given to PEFT or to a trainer as the configuration of adapters, with the call that takes it."""
        for name, calls in self.calls.items():
            for call in calls if name == "get_peft_model" or name.endswith("Trainer") else ():
                given = dict(self.names.arguments(call)).get("peft_config")
                if given is None and name == "get_peft_model" and len(call.args) > 1:
                    given = call.args[1]
                if given is not None and self.names.value(given) is not None:
                    yield given, call

    def _model(self, script: Script) -> None:
        loading = [
            call
            for call in self.calls.get("from_pretrained", [])
            if isinstance(call.func, ast.Attribute) and is_model(name_of(call.func.value))
        ]
        if len(loading) > 1 and len({ast.dump(call) for call in loading}) > 1:
            lines = ", ".join(str(call.lineno) for call in loading)
            raise QuestionError(f"{self.path}: from_pretrained is called on lines {lines}: it is not known which of them is trained")
        if not loading:
            self._unused(script, "BitsAndBytesConfig", QUANTIZED)
            built = [call for name, calls in self.calls.items() if is_model(name) for call in calls]
            if built:  # a class of models that is called with a configuration makes float32 weights (transformers 5.23.0)
                script.set("model_init", "dtype", "float32", built[0].lineno)
            return
        self._add(script, loading[0], "model_init", skip=("quantization_config",))
        place = script.section("model_init")
        place.setdefault("dtype", place.pop("torch_dtype", "auto"))
        given = dict(self.names.arguments(loading[0])).get("quantization_config")
        if given is None:
            self._unused(script, "BitsAndBytesConfig", QUANTIZED)
        elif self.names.value(given) is not None:
            self._resolved(script, "BitsAndBytesConfig", QUANTIZED, given, loading[0])

    def _resolved(self, script: Script, kind: str, section: str, item: ast.expr, taker: ast.Call) -> None:
        """Add the configuration that `item` stands for; a value that is not known if it is made or taken under a condition."""
        found = self.names.behind(item)
        condition = next((self.under[id(node)] for node in (taker, found) if id(node) in self.under), "")
        if isinstance(found, ast.Call) and name_of(found.func) == kind and not condition:
            self._add(script, found, section)
            script.section(section)
            if name_of(taker.func) == "get_peft_model":
                self._add(script, taker, section, skip=OF_PEFT)
            return
        above, _, name = section.rpartition(".")
        script.set(above, name, Computed(f"{source_of(item)} {condition}".strip()), item.lineno)

    def _unused(self, script: Script, kind: str, section: str) -> None:
        """Name a configuration that the script makes and hands over to nothing that is read."""
        for call in self.calls.get(kind, []):
            bound = next((name for name, value in self.names.bound.items() if value is call), "")
            if bound and not self.names.read[bound]:
                script.steps.append(Step(kind, f"{kind} on line {call.lineno}", call.lineno, Ignored("nothing uses it")))
            else:
                above, _, name = section.rpartition(".")
                script.set(above, name, Computed(f"{kind} on line {call.lineno}, and what uses it is not known"), call.lineno)

    def _add(self, script: Script, call: ast.Call, section: str, skip: tuple[str, ...] = ()) -> None:
        for name, item in self.names.arguments(call):
            if name not in skip:
                script.set(section, name, Computed(source_of(item)) if name == "**" else self.names.value(item), item.lineno)


def variant(script: Script) -> Variant:
    """Return the keys that the class accepts, without those that a command line adds to it, and the steps of the script."""
    plain = _variant(script.name)
    steps = {f"script.{step.name}": _key(f"script.{step.name}", step.meaning) for step in script.steps}
    return replace(plain, keys={**plain.keys, **steps})


def _key(name: str, meaning: Meaning) -> Key:
    return Key(name=name, meanings={"memory": meaning, "labels": NO_TARGETS})


@cache
def _variant(name: str) -> Variant:
    whole = {
        ADAPTERS: _key(ADAPTERS, Refused("the adapters are not known")),
        "**": _key("**", Refused("more arguments, which are not known")),
    }
    casts = f"{ADAPTERS}.autocast_adapter_dtype"  # an argument of get_peft_model
    whole[casts] = _key(casts, Uses("lora_float32"))
    whole["model_init.**"] = _key("model_init.**", whole["**"].meanings["memory"])
    if name in TRAINER:
        plain = trainer.variant_of(name)
        # Nothing but the script itself prepares quantized weights.
        return replace(plain, keys={**plain.keys, **whole}, facts={**plain.facts, "prepared": False})
    older = {**removed_keys("transformers", trl.TABLES), **removed_keys("trl", trl.TABLES)}
    own = {**older, **keys_of("trl", (name,), trl.TABLES), **trainer.OURS, **trl.model_kwargs(), **peft.keys(f"{ADAPTERS}."), **whole}
    return replace(trl.variant_of(name), keys=own)


def format_of(script: Script) -> Format:
    """Return the format whose class the script calls."""
    return trainer.FORMAT if script.name in TRAINER else trl.FORMAT
