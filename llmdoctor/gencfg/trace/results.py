"""The `result` of `gencfg trace`, as types: what a program reads in the JSON report."""

from __future__ import annotations

from typing import Any, TypedDict


class PassedTerminatorsResult(TypedDict):
    """Sequences of one call site that ran past a terminator."""

    sequences: int
    tokens: dict[str, int]  # a terminator's text, or its id, to the number of sequences
    median_position: int | None  # of the first terminator, from 1 among the new tokens; null without any


class CallSiteResult(TypedDict):
    """The generate() calls of one line of code."""

    source: str  # "train.py:31", "trl 1.0.0 ppo_trainer.py:410"
    file: str | None
    line: int | None
    stack: list[str]  # the lines that led there, the innermost first
    calls: int
    sequences: int
    ended_by: dict[str, int]  # eos, stop_string, length or other, to the number of sequences
    never_stops: int  # calls that no token can end before their limit
    failed: int  # calls that raised an exception
    unfinished: int  # calls that had not ended when their process did
    own: int  # calls of a generate() that replaces the one of transformers: its loop is not recorded
    stopping_criteria: list[str]  # classes of the StoppingCriteria that were passed
    passed_terminators: PassedTerminatorsResult
    new_tokens: int
    wasted_tokens: int  # after the first passed terminator


class TracedImportResult(TypedDict):
    """A package that was imported, and what its import changed."""

    package: str | None
    version: str | None
    observed: int | None  # functions and defaults that were compared
    changed: Any  # [{"what", "before", "after"}]
    file: str | None
    line: int | None


class MutationResult(TypedDict):
    """An assignment on a generation config."""

    target: str | None
    model: str | None
    field: str | None
    before: Any
    after: Any
    source: str | None
    file: str | None
    line: int | None
    rank: int | None


# A key that is a keyword of Python needs this form: a model that was loaded, and its class.
LoadResult = TypedDict("LoadResult", {"model": str | None, "class": str | None})


class VllmRolloutResult(TypedDict):
    """SamplingParams that were made, or asked of a vLLM server by TRL's client."""

    source: str | None
    sampling_params: Any


class TraceResult(TypedDict):
    """What a run did to its generation configs, and how its sequences ended."""

    calls: int
    sequences: int
    ranks: int
    overhead: float | None  # the recorder's time as a share of the time in generate(); null without any call
    exit_code: int | None  # of the command; null if there was none, or if the trace was cut off
    command: list[str] | None
    ended_by: dict[str, int]
    sites: list[CallSiteResult]
    imports: list[TracedImportResult]
    mutations: list[MutationResult]
    loads: list[LoadResult]
    vllm: list[VllmRolloutResult]
    cause: str | None
    complete: bool  # the whole run is in the trace, and every line of it could be read
