"""What a generate() call is made of, and what it comes to: frozen data that carries where each value came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Any  # a value as json.loads gives it: None, bool, int, float, str, list, dict

Layer = Literal[
    "library-default",
    "class-default",
    "config.json",
    "generation_config.json",
    "mutation",
    "user-config",
    "kwargs",
    "derived",
]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    `source` is what a person reads ("generation_config.json:5", "--set temperature", "trl 1.0.0 ppo_trainer.py:410");
    `file`, `pointer` and `line` are the same for a program, where there is a file.
    """

    layer: Layer
    source: str
    file: str | None = None
    pointer: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from."""

    value: Json
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Call:
    """One generate() call as far as its generation config goes.

    `config` is config.json's top level and nested objects as settings of plain values (None: there is no such file);
    `generation_config` likewise, None where the directory has no generation_config.json (an empty mapping is a file
    holding `{}`). `user_config` is the GenerationConfig passed to generate(), None where none is passed. `mutations` are
    assignments on model.generation_config made after loading, in order, `config_mutations` those on model.config.
    `kwargs` are generate()'s keyword arguments. `prompt_length` is in tokens.
    """

    config: Mapping[str, Setting] | None = None
    generation_config: Mapping[str, Setting] | None = None
    mutations: tuple[tuple[str, Setting], ...] = ()
    config_mutations: tuple[tuple[str, Setting], ...] = ()
    user_config: Mapping[str, Setting] | None = None
    kwargs: Mapping[str, Setting] = field(default_factory=dict)
    prompt_length: int = 1


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Resolved:
    """An effective value: what it is, where it came from, and what it overrode (the latest first)."""

    value: Json
    origin: Origin
    overrides: tuple[Setting, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Stop:
    """What ends decoding.

    `eos_token_id` are the ids the stopping criterion compares with ([] where there is none), `pad_token_id` what finished rows are
    filled with, `limit` the number of new tokens after which decoding ends anyway (None: no limit could be derived), and `never_stops`
    is True where no token can end the decoding before the limit; `because` then says why, in one clause.
    """

    eos_token_id: tuple[int, ...]
    pad_token_id: int | None
    limit: int | None
    never_stops: bool
    because: str | None = None


@dataclass(frozen=True, slots=True)
class LibraryError:
    """An exception that the library would raise, with the stage: "load", "user_config" or "generate"."""

    type: str
    message: str
    stage: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Effective:
    """What a call comes to under one version of transformers.

    `transformers` is the version asked about and `rules` the newest known version whose rules were applied to it. `fields` holds every
    field of the library's GenerationConfig, and custom ones, also those whose effective value is None; `model_fields` is
    the model's own generation config after loading and mutations, before the call.
    """

    transformers: str
    rules: str
    fields: Mapping[str, Resolved]
    model_fields: Mapping[str, Resolved]
    stop: Stop
    error: LibraryError | None = None
    warnings: tuple[str, ...] = ()
