"""The `result` of each gencfg command, as types: what a program reads in the JSON report."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired

from llmdoctor.configs.versions import LibraryVersionResult
from llmdoctor.core.inputs import InputsResult
from llmdoctor.gencfg.types import ConfigLayer


class ReplacedResult(TypedDict):
    """A value that another one replaced."""

    layer: ConfigLayer
    value: Any
    source: str  # "generation_config.json:5", "--set temperature"


class ProvenanceResult(TypedDict):
    """The origin of an effective value."""

    layer: ConfigLayer
    source: str
    file: str | None
    pointer: str | None  # RFC 6901
    line: int | None  # from 1
    overrides: list[ReplacedResult]  # the latest first


class StopResult(TypedDict):
    """What ends decoding."""

    eos_token_id: list[int]  # the ids with which each new token is compared
    pad_token_id: int | None
    limit: int | None  # new tokens after which decoding ends, at the prompt length of the subject; None: no limit is known
    limit_is_default: bool  # nothing sets the limit: it is the default of the engine
    never_stops: bool  # no token can end decoding before the limit
    because: str | None  # why it never stops
    turn_end: list[int]  # ids with which the chat template ends a turn; [] if no file gives them
    stops_at_turn_end: bool | None  # None: turn_end is not known


class LibraryErrorResult(TypedDict):
    """An exception that the library raises."""

    type: str
    message: str
    stage: str  # "load", "user_config" or "generate"


class ShowResult(TypedDict):
    """`gencfg show`: the effective generation config of one call."""

    transformers: str  # the version that the answer is for; for another engine its name and version
    rules: str  # the version whose rules were applied
    engine: str
    effective: dict[str, Any]  # the fields that are not None
    provenance: dict[str, ProvenanceResult]
    stop: StopResult
    error: LibraryErrorResult | None
    warnings: list[str]  # what the library warns of
    notes: list[str]  # what was assumed
    limits: list[str]  # what could turn the verdict, as clauses
    inputs: InputsResult


class FieldChangeResult(TypedDict):
    """A field whose effective value differs."""

    field: str
    left: Any
    right: Any
    left_from: str
    right_from: str
    left_provenance: ProvenanceResult | None
    right_provenance: ProvenanceResult | None
    consequence: str


class NeverStopsResult(TypedDict):
    """Whether each side never stops."""

    left: bool
    right: bool


class ImportResult(TypedDict):
    """A package that a traced run imported."""

    side: str
    package: str
    source: str
    observed: int  # functions and defaults that were compared before and after
    changed: list[str]


class DiffResult(TypedDict):
    """`gencfg diff`: two calls side by side."""

    left: ShowResult
    right: ShowResult
    changed: list[FieldChangeResult]
    runaway: NeverStopsResult
    cause: str | None
    imports: list[ImportResult]
    inputs: InputsResult  # of both calls; each key begins with "left: " or "right: "


class EngineVerdictResult(TypedDict):
    """What the plain call does under one engine."""

    version: str
    eos_token_id: list[int]
    never_stops: bool
    error: str | None  # the type of the exception


class TerminatorResult(TypedDict):
    """The token that ends an answer."""

    token: str | None
    id: int | None
    reason: str | None  # why it could not be found
    tool: int | None  # the id that ends a tool call, if it is another one
    inside: list[int]  # ids that can occur inside an answer


class CheckedModelResult(TypedDict):
    """One directory or file of `gencfg check`."""

    path: str
    kind: str  # of a directory "model", "adapter" or "tokenizer", of a file "gguf", "modelfile" or "server"
    findings: list[int]  # indices into the report's findings
    no_call: NotRequired[str]  # why no rule about generate() applies; the four below are missing then
    verdicts: NotRequired[dict[str, EngineVerdictResult]]  # by engine
    terminator: NotRequired[TerminatorResult | None]
    inputs: NotRequired[InputsResult]
    versions: NotRequired[list[LibraryVersionResult]]  # the releases that the verdicts are for


class GencfgCheckResult(TypedDict):
    """`gencfg check`: rules over model directories."""

    subjects: list[CheckedModelResult]


class AssignmentResult(TypedDict):
    """One value that a trainer sets."""

    target: str  # "model": model.generation_config; "call": its own GenerationConfig; "kwargs": arguments of its generate()
    field: str
    value: dict[str, Any]
    source: str  # "grpo_trainer.py:759"
    default: bool  # it happens with the trainer's default arguments
    needs: dict[str, Any]  # the trainer arguments that it needs


class PresetResult(TypedDict):
    """One trainer."""

    name: str
    library: str
    first: str  # the oldest version known that has it
    last: str
    versions: int  # versions of the library whose source was read
    owner: str
    version: NotRequired[str]  # the version whose assignments follow
    assignments: NotRequired[list[AssignmentResult]]
    notes: NotRequired[list[str]]


class PresetsResult(TypedDict):
    """`gencfg presets`: the trainers that --preset takes."""

    presets: list[PresetResult]
