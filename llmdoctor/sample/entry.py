"""What an engine is, as data: the fields in which engines differ. The engines themselves are in :mod:`llmdoctor.sample.tables`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from llmdoctor.sample import cuts
from llmdoctor.sample.types import LogitRow

Cut: TypeAlias = Callable[[LogitRow, float], LogitRow]
LogprobKind = Literal["raw", "temperature", "processed"]
ModelFiles = Literal["none", "sampling", "generation_config"]
_CUTS = ("joint", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@dataclass(frozen=True, slots=True)
class Range:
    """The values that an engine accepts of a parameter: low (or more than low) to high, or one of `also`; `says` is its error message."""

    option: str
    says: str
    low: float = float("-inf")
    high: float = float("inf")
    over: bool = False
    under: bool = False
    also: tuple[float, ...] = ()

    def accepts(self, value: float) -> bool:
        """Return whether the engine accepts `value`; NaN never."""
        low = value > self.low if self.over else value >= self.low
        high = value < self.high if self.under else value <= self.high
        return (low and high) or value in self.also


def _as_given(values: dict[str, Any]) -> dict[str, Any]:
    return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SamplingEngine:
    """One engine in one version.

    `off` are the values that turn a stage off, `scope` the tokens that a penalty counts, `ties` which of several equal logits at the k-th
    stay, `logprobs` the kind of log-probabilities that it returns by default: "raw", after the temperature, or after every stage;
    `raw_logprobs` is how to get raw ones, `unlisted` the cuts that come after processed ones.
    `reads` turns the parameters that are set into those that it uses (clamped temperatures, temperature 0 as greedy). `model_files` is what it
    takes from a model's files for what a request leaves out: nothing, the sampling parameters of generation_config.json, or all of it.
    `checks_unused`: it refuses a bad temperature of a greedy call too. `has_do_sample`: do_sample is one of its parameters.
    """

    name: str
    version: str
    source: str
    order: tuple[str, ...]
    takes: frozenset[str]
    unknown: str
    ranges: tuple[Range, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    off: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scope: Mapping[str, Literal["all", "output", "window"]] = field(default_factory=dict)
    ties: Literal["all", "low"] = "all"
    logprobs: LogprobKind = "processed"
    raw_logprobs: str = "raw log-probabilities"
    unlisted: tuple[str, ...] = ()
    model_files: ModelFiles = "none"
    checks_unused: bool = True
    has_do_sample: bool = False
    reads: Callable[[dict[str, Any]], dict[str, Any]] = _as_given
    top_p: Cut = cuts.top_p_ascending
    min_p: Cut = cuts.min_p_probs
    typical_p: Cut = cuts.typical
    bias_limit: float = np.inf
    frequency_by_length: bool = False  # the frequency penalty is divided by the number of tokens it counts
    not_harmless: frozenset[str] = frozenset()  # keys that change no draw in other engines, and do here; they are not modelled
    other_orders: tuple[SamplingEngine, ...] = ()
    since: tuple[int, ...] = ()  # the first version that this entry describes
    read: tuple[str, ...] = ()  # the versions in which this entry was read, if other ones than `version`
    wanted: str = ""  # the version that the user names
    known: bool = True  # whether that version is one that was read, or lies between such ones of this entry

    @property
    def release(self) -> str:
        """The version that an answer is for: the one that is named, else the one that was read."""
        return self.wanted or self.version.split(" (")[0]

    @property
    def label(self) -> str:
        """The engine and its version in words."""
        return f"{self.name} {self.release}"

    @property
    def doubt(self) -> str:
        """Why the answer may not hold for the version that is named; "" if it lies between versions that were read, or none is named."""
        return "" if not self.wanted or self.known else f"{self.label} was not read: these are the rules of {self.version.split(' (')[0]}"

    @property
    def cuts_after_temperature(self) -> bool:
        """Whether top_p and min_p see the distribution after the temperature."""
        return self.order.index("temperature") < min(self.order.index(name) for name in _CUTS if name in self.order)

    @property
    def min_p_first(self) -> bool:
        """Whether min_p removes tokens before top_k and top_p do."""
        return "min_p" in self.order and self.order.index("min_p") < self.order.index("top_k")

    @property
    def nucleus_of_all(self) -> bool:
        """Whether top_p measures its mass on the distribution that top_k has not cut."""
        return "joint" in self.order
