"""What the user asked of a gencfg command: one keyword-only dataclass for each command."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

TRACE = re.compile(r"(.*\.jsonl)(?:#(.*))?", re.DOTALL)


def is_served(subject: str) -> bool:
    """Return whether a subject is one that served.py reads (a GGUF file, a Modelfile, a script): anything but a directory, a trace and a JSON file."""
    return os.path.isfile(subject) and not subject.endswith((".json", ".jsonl"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GencfgOptions:
    """One call: a model and what is passed to generate(). None or () is an option that was not given.

    `model` is a model directory, a hub id in the local cache, a generation_config.json or a trace. `config` is the file of the
    GenerationConfig that is passed; `sets`, `mutate` and `mutate_config` hold texts such as "eos_token_id=[2]": keyword arguments of
    generate(), assignments on model.generation_config, and assignments on model.config. `presets` name trainers, `transformers`
    and `engine` what to answer for ("vllm", "vllm@0.33.0"). `prompt_length` is in tokens. `without` names keys of
    generation_config.json and config.json that count as not set.
    """

    model: str
    config: str | None = None
    sets: tuple[str, ...] = ()
    mutate: tuple[str, ...] = ()
    mutate_config: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    transformers: str | None = None
    engine: str | None = None
    prompt_length: int | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    """The two calls of `gencfg diff`."""

    left: GencfgOptions
    right: GencfgOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class GencfgCheckOptions:
    """The directories of `gencfg check`; `select` and `ignore` are prefixes of rule codes."""

    paths: tuple[str, ...]
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    transformers: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetsOptions:
    """The trainer that `gencfg presets` describes; without a name it lists all of them."""

    name: str | None = None


def under(both: GencfgOptions, side: GencfgOptions) -> GencfgOptions:
    """Return the options of one side of a diff: an option for both sides comes first, the side's own adds to it or replaces it."""
    return replace(
        side,
        config=side.config or both.config,
        sets=(*both.sets, *side.sets),
        mutate=(*both.mutate, *side.mutate),
        mutate_config=(*both.mutate_config, *side.mutate_config),
        presets=(*both.presets, *side.presets),
        transformers=side.transformers or both.transformers,
        engine=side.engine or both.engine,
        prompt_length=both.prompt_length if side.prompt_length is None else side.prompt_length,
        without=(*both.without, *side.without),
    )


def is_trace(subject: str) -> bool:
    """Return whether a subject names a trace, or a call in one: `run.jsonl`, `run.jsonl#3`."""
    return not os.path.isdir(subject) and TRACE.fullmatch(subject) is not None


def split_trace(subject: str) -> tuple[str, str | None]:
    """Return the path of a trace and the text after "#", None without "#"."""
    match = TRACE.fullmatch(subject)
    return (subject, None) if match is None else (match[1], match[2])
