"""From the words of a command line to a Call: which model, which call, what happened to the model before it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.gencfg.resolve import resolve
from llmdoctor.gencfg.types import Call, Effective, Layer, Origin, Setting
from llmdoctor.gencfg.versions import newest_known

if TYPE_CHECKING:
    from llmdoctor.files.jsonfile import JsonFile
    from llmdoctor.gencfg.imports import Import
    from llmdoctor.modeldir.directory import ModelDir
    from llmdoctor.modeldir.tokenizer import Tokenizer

ENGINES = ("transformers", "vllm")
TRACE = re.compile(r"(.*\.jsonl)(?:#(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Side:
    """One side of a comparison, as the options give it; None is an option that was not used."""

    model: str
    config: str | None = None
    sets: list[str] | None = None
    mutate: list[str] | None = None
    mutate_config: list[str] | None = None
    preset: list[str] | None = None
    transformers: str | None = None
    engine: str | None = None
    prompt_length: int | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answer:
    """A side and what it comes to. `presets` are the trainers whose effect was applied, `notes` what was assumed for them, and
    `imports` what a run has shown of its imports; `unseen` says that a run did not see where its model's config came from."""

    side: Side
    tokenizer: Tokenizer
    call: Call
    effective: Effective
    presets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    imports: tuple[Import, ...] = ()
    unseen: bool = False

    @property
    def engine(self) -> str:
        """The engine asked about."""
        return self.side.engine or "transformers"


def is_trace(subject: str) -> bool:
    """Whether a subject names a trace, or a call in one: `run.jsonl`, `run.jsonl#3`."""
    return not os.path.isdir(subject) and TRACE.fullmatch(subject) is not None


def split_trace(subject: str) -> tuple[str, str | None]:
    """The trace's path and what stands behind "#", None where there is no "#"."""
    match = TRACE.fullmatch(subject)
    return (subject, None) if match is None else (match[1], match[2])


def pair(both: Side, left: Side, right: Side) -> tuple[Side, Side]:
    """The two sides of a diff: an option for both comes first, a side's own adds to it or replaces it."""
    return _under(both, left), _under(both, right)


def _under(both: Side, side: Side) -> Side:
    return Side(
        side.model,
        side.config or both.config,
        (both.sets or []) + (side.sets or []),
        (both.mutate or []) + (side.mutate or []),
        (both.mutate_config or []) + (side.mutate_config or []),
        (both.preset or []) + (side.preset or []),
        side.transformers or both.transformers,
        side.engine or both.engine,
        both.prompt_length if side.prompt_length is None else side.prompt_length,
    )


def ask(side: Side) -> Answer:
    """Read what `side` names and resolve it.

    Raises QuestionError where a file, a version, a preset or an option cannot be understood.
    """
    from llmdoctor.modeldir.directory import read_model_dir

    if is_trace(side.model):
        from llmdoctor.gencfg.trace.sides import ask_trace

        return ask_trace(side)
    if side.engine not in (None, *ENGINES):
        raise QuestionError(f"--engine {side.engine}: unknown engine, expected one of {', '.join(ENGINES)}")
    directory = read_model_dir(side.model)
    refuse_modelless(directory)
    call = model_call(directory, lines=True)
    call = replace(
        call,
        user_config=_user_config(side.config),
        kwargs=_assignments(side.sets, "--set", "kwargs"),
        config_mutations=tuple(_assignments(side.mutate_config, "--mutate-config", "mutation").items()),
        prompt_length=1 if side.prompt_length is None else side.prompt_length,
    )
    presets = tuple(side.preset or ())
    call, notes = _trained(call, presets, directory, side.transformers)
    call = replace(call, mutations=call.mutations + tuple(_assignments(side.mutate, "--mutate", "mutation").items()))
    return Answer(side, directory.tokenizer, call, _effective(side, call, directory), presets, notes)


def refuse_modelless(directory: ModelDir) -> None:
    """Raise QuestionError where there is no model to make a call of."""
    for file in (directory.config, directory.generation_config):
        if file is not None and not isinstance(file.value, dict):
            raise QuestionError(_unreadable(file))
    if directory.config is None and directory.generation_config is None:
        if directory.adapter is not None:
            base = directory.adapter.name or "which adapter_config.json does not name"
            raise QuestionError(
                f"{directory.shown_name}: an adapter, whose base model ({base}) is not here: neither a local path nor in the hub cache"
            )
        raise QuestionError(f"{directory.shown_name}: no config.json and no generation_config.json, so there is no call to resolve")


def model_call(directory: ModelDir, *, lines: bool) -> Call:
    """A plain generate() of the directory's model; with `lines`, each setting knows its line.

    A generation_config.json that is not JSON counts as none: from_pretrained catches its OSError and turns to config.json (4.37 to 5.23).
    """
    config, generation = directory.config, directory.generation_config
    return Call(config=_settings(config, "config.json", lines), generation_config=_settings(generation, "generation_config.json", lines))


def default_version() -> str:
    """The installed transformers where it is one this tool knows rules for, else the newest known."""
    return installed_version("transformers") or newest_known()


def _effective(side: Side, call: Call, directory: ModelDir) -> Effective:
    if side.engine == "vllm":
        from llmdoctor.gencfg.vllm import effective_vllm

        return effective_vllm(call, tokenizer_eos=_special_id(directory, "eos_token"), max_model_len=None)
    return resolve(call, side.transformers or default_version())


def _trained(call: Call, presets: tuple[str, ...], directory: ModelDir, version: str | None) -> tuple[Call, tuple[str, ...]]:
    """`call` after what the trainers do to the model, and what had to be assumed for it."""
    if not presets:
        return call, ()
    from llmdoctor.gencfg.presets import apply_preset, preset_notes

    eos, pad = _special_id(directory, "eos_token"), _special_id(directory, "pad_token")
    bos = _special_id(directory, "bos_token")
    notes: list[str] = []
    for name in presets:
        call = apply_preset(name, call, tokenizer_eos=eos, tokenizer_pad=pad, tokenizer_bos=bos, transformers_version=version)
        notes += preset_notes(name, tokenizer_eos=eos, tokenizer_pad=pad, transformers_version=version)
    return call, tuple(notes)


def _special_id(directory: ModelDir, name: str) -> int | None:
    found = directory.tokenizer.special(name)
    return None if found is None else found.id


def _settings(file: JsonFile | None, layer: Layer, lines: bool) -> Mapping[str, Setting] | None:
    if file is None or not isinstance(file.value, dict):
        return None
    return {key: Setting(value, _origin(file, layer, key, lines)) for key, value in file.value.items()}


def _origin(file: JsonFile, layer: Layer, key: str, lines: bool) -> Origin:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    line = file.line(pointer) if lines else None
    name = file.shown_name.rsplit("/", 1)[-1]
    return Origin(layer, name if line is None else f"{name}:{line}", file.shown_name, pointer, line)


def _user_config(path: str | None) -> Mapping[str, Setting] | None:
    if path is None:
        return None
    from llmdoctor.files.jsonfile import read_json_file

    file = read_json_file(path)
    if not isinstance(file.value, dict):
        raise QuestionError(_unreadable(file))
    return _settings(file, "user-config", lines=True)


def _unreadable(file: JsonFile) -> str:
    reason = next((problem.message for problem in file.problems), None)
    if reason is not None and file.value is None:
        return reason if file.shown_name in reason else f"{file.shown_name}: {reason}"
    return f"{file.shown_name}:1: expected a JSON object of generation settings, found {type(file.value).__name__}"


def _assignments(items: list[str] | None, option: str, layer: Layer) -> dict[str, Setting]:
    import json

    out: dict[str, Setting] = {}
    for item in items or ():
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier():
            raise QuestionError(f"{option} {item}: expected NAME=JSON, such as eos_token_id=[151645,151643] or eos_token_id=null")
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise QuestionError(
                f"{option} {item}: the value of {name} is not JSON; None is null, True is true, text stands in double quotes"
            ) from None
        out[name] = Setting(value, Origin(layer, f"{option} {name}"))
    return out
