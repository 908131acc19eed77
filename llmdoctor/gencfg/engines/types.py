"""What gencfg knows about an engine that generates text: one entry holds the facts and the functions in which engines differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmdoctor.gencfg.types import Effective, GenerateCall, Json, SourcedValue

RuleBasis = Literal["measured", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What an engine reads beside the call: special ids of the tokenizer that it loads, None if no file gives them.

    `base_eos` is the eos id of an adapter's base model, whose tokenizer some engines load instead of the adapter's; it equals
    `tokenizer_eos` if the model is no adapter. `max_model_len` is the server's context in tokens, None to derive it from config.json. `id_of`
    looks up the id of a token's text. `is_gguf` is true if the metadata of a GGUF file replace generation_config.json.
    `has_tokenizer` is false if no file of a tokenizer lies in the directory, so that its special ids are unknown and not absent.
    `request_defaults` are the values that the server puts under every request, None if they come from generation_config.json.
    """

    tokenizer_eos: int | None = None
    tokenizer_pad: int | None = None
    base_eos: int | None = None
    max_model_len: int | None = None
    id_of: Callable[[str], int | None] | None = None
    is_gguf: bool = False
    has_tokenizer: bool = True
    request_defaults: Mapping[str, SourcedValue] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The command line that starts a server: the words that it begins with, and which of its options matter for generation.

    `model` is the option that names the model (None: the first word that is no option). `defaults` is the option for the source of
    request defaults, and `own_defaults` its value for "not from generation_config.json". `override` takes JSON values over
    those defaults, `context` the context length in tokens, and `yaml` a YAML file of further options.
    """

    words: tuple[str, ...]
    model: str | None = None
    tokenizer: str | None = None
    defaults: str | None = None
    own_defaults: str | None = None
    override: str | None = None
    context: str | None = None
    yaml: str | None = None


Resolver = Callable[[GenerateCall, ModelFacts, str], Effective]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GenerationEngine:
    """One engine.

    `name` is what --engine takes, `title` what a person reads, `distribution` the package whose installed version counts (None: the
    engine is no Python package). `known` are the versions whose rules are here, oldest first. `evidence` is "measured" if the rules
    were compared with runs of the engine, "read" if they were only read in its sources; `source` names those sources.

    `resolve` makes the effective config of a call for a version. `acts_on` are the fields, in transformers' names, that change what this
    engine generates, and `neutral` their values without effect if that is not None. `stops` and `ignores` say in a sentence each where
    its stop ids come from and what it does not read. `stop_fix` returns the text to paste that makes a request stop at ids.
    `file_defaults` are the fields of generation_config.json that count as defaults of every request. `serve` are the command lines
    that start the server. `has_own_ends` is true if it also stops at tokens of a list of its own, whatever the model's files name.
    `keeps_assignments` is true if assignments on a model in Python reach the engine, `reads_directories` if it
    answers for a model directory as well.
    """

    name: str
    title: str
    distribution: str | None
    known: tuple[str, ...]
    evidence: RuleBasis
    source: str
    resolve: Resolver
    acts_on: frozenset[str]
    stops: str
    ignores: str
    stop_fix: Callable[[Sequence[int]], str]
    neutral: Mapping[str, Json] = field(default_factory=dict)
    file_defaults: tuple[str, ...] = ()
    serve: tuple[ServeOptions, ...] = ()
    has_own_ends: bool = False
    keeps_assignments: bool = False
    reads_directories: bool = True

    def value(self, name: str, value: Json) -> Json:
        """Return what `value` of the field `name` means for this engine: None and values without effect become the neutral one."""
        if name not in self.acts_on:
            return None
        neutral = self.neutral.get(name)
        if value is None or value == neutral or (name == "top_k" and value in (-1, 0)):
            return None
        return value


def same_meaning(name: str, left: tuple[GenerationEngine, Json], right: tuple[GenerationEngine, Json]) -> bool:
    """Return whether a field's value under one engine means what another value means under another engine.

    None, a missing field and a value without effect mean the same; a field on which neither engine acts makes no difference.
    """
    (first, one), (second, other) = left, right
    return bool(first.value(name, one) == second.value(name, other))
