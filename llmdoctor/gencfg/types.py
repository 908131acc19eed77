"""What a generate() call is made of and what it decodes with: frozen data in which each value carries its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llmdoctor.gencfg.imports import Import
    from llmdoctor.gencfg.options import GencfgOptions
    from llmdoctor.gencfg.terminator import Terminator
    from llmdoctor.modeldir.tokenizer import Tokenizer

Json = Any  # a value as json.loads gives it: None, bool, int, float, str, list, dict

ConfigLayer = Literal[
    "library-default",
    "class-default",
    "config.json",
    "generation_config.json",
    "mutation",
    "model-file",
    "server",
    "user-config",
    "trainer",
    "kwargs",
    "derived",
]


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a value.

    `source` is what a person reads ("generation_config.json:5", "--set temperature", "trl 1.0.0 ppo_trainer.py:410");
    `file`, `pointer` and `line` are the same for a program, if there is a file.
    """

    layer: ConfigLayer
    source: str
    file: str | None = None
    pointer: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """A value and where it came from."""

    value: Json
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GenerateCall:
    """One generate() call, as far as it concerns the generation config.

    `config` holds the keys of config.json (None: the directory has no such file) and `generation_config` those of
    generation_config.json (None: no such file; an empty mapping is a file that holds `{}`). `user_config` is the GenerationConfig
    passed to generate(), None if none is passed. `mutations` are the assignments on model.generation_config after loading, in order,
    `config_mutations` those on model.config. `kwargs` are the keyword arguments of generate(). `prompt_length` is in tokens,
    `prompt_known` if it was given.
    """

    config: Mapping[str, SourcedValue] | None = None
    generation_config: Mapping[str, SourcedValue] | None = None
    mutations: tuple[tuple[str, SourcedValue], ...] = ()
    config_mutations: tuple[tuple[str, SourcedValue], ...] = ()
    user_config: Mapping[str, SourcedValue] | None = None
    kwargs: Mapping[str, SourcedValue] = field(default_factory=dict)
    prompt_length: int = 1
    prompt_known: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Resolved:
    """An effective value with its origin and the values that it replaced, the latest first."""

    value: Json
    origin: Origin
    overrides: tuple[SourcedValue, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Stop:
    """What ends decoding.

    `eos_token_id` are the ids with which each new token is compared (empty if there are none), `pad_token_id` is the id that fills
    finished rows, `limit` the number of new tokens after which decoding ends in any case (None: it could not be derived). If
    `never_stops` is true, no token can end decoding before the limit, and `because` gives the reason in one clause. `unknown` is a clause on
    what is missing if no stop id is known and one may exist all the same.
    """

    eos_token_id: tuple[int, ...]
    pad_token_id: int | None
    limit: int | None
    never_stops: bool
    because: str | None = None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class LibraryError:
    """An exception that the library would raise, with the stage: "load", "user_config" or "generate"."""

    type: str
    message: str
    stage: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Effective:
    """The generation config with which a call decodes, under one engine and version.

    `transformers` names the version that the answer is for, `rules` the newest known version whose rules were applied. `fields` holds
    every field of the engine's configuration, including those whose effective value is None, and custom ones; `model_fields` is the
    model's own generation config after loading and mutations, before the call. `limits` are clauses that belong in the verdict, because
    the engine's rules are known only in part for this call.
    """

    transformers: str
    rules: str
    fields: Mapping[str, Resolved]
    model_fields: Mapping[str, Resolved]
    stop: Stop
    error: LibraryError | None = None
    warnings: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A class of another library around a model, which generates with a generation config of its own; `eos_token_id` are the model's ids."""

    name: str
    eos_token_id: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Resolution:
    """One call with the generation config that it decodes with.

    `presets` are the trainers whose effect was applied, `notes` what was assumed, `limits` clauses that belong in the verdict because
    what they name could turn it. `from_trace` is true if the effective config was recorded by a run,
    `batch` if the call was a generate_batch(), `wrapper` what
    generated if that was no model of transformers. `terminator` is what ends a turn
    by the chat template (None: there is no template, or the call is from a trace). `imports` are what a traced run imported; `unseen`
    is true if the run did not record where the model's config came from.
    """

    options: GencfgOptions
    tokenizer: Tokenizer
    call: GenerateCall
    effective: Effective
    presets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    terminator: Terminator | None = None
    imports: tuple[Import, ...] = ()
    unseen: bool = False
    from_trace: bool = False
    batch: bool = False
    wrapper: Wrapper | None = None

    @property
    def engine(self) -> str:
        """The name of the engine that the answer is for."""
        return (self.options.engine or "transformers").partition("@")[0]
