"""The `result` of `gencfg runaway`, as types: what a program reads in the JSON report."""

from __future__ import annotations

from typing import Literal, TypedDict

OutputUnit = Literal["token", "character"]  # characters if the records hold no token ids


class EndCountsResult(TypedDict):
    """Sequences by how they ended."""

    eos: int  # at a terminator
    stop: int  # at a stop string, or the engine reports "stop" without saying at what
    length: int  # at the limit of tokens
    other: int  # a tool call, a filter, an error, an abort
    unknown: int  # known neither from the record nor from its ids


class PassedExampleResult(TypedDict):
    """One sequence that went on after a terminator."""

    line: int  # of the file, from 1; of a table the row
    position: int  # of the terminator, from 0, in units


class PassedTerminatorResult(TypedDict):
    """The sequences that produced one terminator and went on."""

    token: str | None  # its text, if it is known
    id: int | None  # null: it was found by its text
    unit: OutputUnit
    sequences: int
    median_position: int
    wasted: int  # units behind it
    wasted_share: float  # of the units of these sequences
    stopped_later: int  # of these sequences stopped at a terminator in the end
    examples: list[PassedExampleResult]


class LoopExampleResult(TypedDict):
    """One sequence that ends in a loop."""

    line: int
    start: int  # in units, from 0
    repeats: float


class LoopResult(TypedDict):
    """The sequences that end in a loop of one period."""

    period: int  # in units
    unit: OutputUnit
    sequences: int
    median_start: int
    median_repeats: int
    stopped: int  # of these sequences stopped at a terminator all the same
    ids: list[int] | None  # what the first of them repeats
    text: str | None
    examples: list[LoopExampleResult]


class WastedResult(TypedDict):
    """What was generated after a terminator."""

    tokens: int
    characters: int
    share: float  # of all tokens (of all characters if there are no ids)


class SearchedTerminatorResult(TypedDict):
    """A terminator that was searched for."""

    token: str | None
    id: int | None
    source: Literal["model", "option", "well-known", "inferred"]


class EngineStopsResult(TypedDict):
    """Where an engine stops with the model's files as they are."""

    eos_token_id: list[int]
    never_stops: bool


class TurnEndResult(TypedDict):
    """The token with which the chat template ends an answer."""

    token: str | None
    id: int | None


class RunawayModelResult(TypedDict):
    """What the files of --model say."""

    path: str
    engines: dict[str, EngineStopsResult]  # by the name that --engine takes
    terminator: TurnEndResult | None  # null: not known from the template


class RunawayResult(TypedDict):
    """How recorded outputs ended."""

    sequences: int
    ended_by: EndCountsResult
    passed_terminators: list[PassedTerminatorResult]  # the most frequent first
    loops: list[LoopResult]  # the most frequent first
    cause: str | None
    limit: int | None  # tokens; the median if the records differ
    tokens: int  # of all sequences, without padding
    characters: int
    wasted: WastedResult
    terminators: list[SearchedTerminatorResult]
    inferred: list[str]  # what was inferred, as sentences
    model: RunawayModelResult | None
    engines: list[str]  # whose record formats the file has, such as "sglang"; [] if many engines write them
    empty: int  # sequences without a token
    padded: int  # sequences whose padding was taken off
    padding_assumed: int  # of these, those that repeat their terminator while no padding token is known
    fronted: int  # sequences that begin with padding or a prompt
    with_ids: int
    format: str  # "jsonl", "json" or "parquet"
    records: int
    skipped: int  # records without an output that could be read
    failed: int  # of these, records of failed requests, which have no output
